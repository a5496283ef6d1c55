"""The command line: one file a verb, each a thin call of one public function."""

from __future__ import annotations

from limbeck.cli.entry import main

__all__ = ["main"]
