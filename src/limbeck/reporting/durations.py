"""Times for people."""

from __future__ import annotations


def duration(seconds: int | float) -> str:
    """Seconds for people.

    >>> duration(42), duration(75), duration(7320)
    ('42 s', '1 min 15 s', '2 h 2 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
