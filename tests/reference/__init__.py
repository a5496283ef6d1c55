"""The formulas once more, in plain Python: what the library is compared with."""
