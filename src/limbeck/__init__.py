"""Limbeck distils large language models: a big teacher makes a small student better."""
