"""Where a link to a row leads."""

from __future__ import annotations

import re


def row_anchor(id: str) -> str:
    """The element id of a row on a page: `#row-ID` opens it. What could need escaping in an address becomes a hyphen.

    >>> row_anchor("dolly-12"), row_anchor("step 3, <mine>")
    ('row-dolly-12', 'row-step-3-mine')
    """
    return "row-" + (re.sub(r"[^A-Za-z0-9._-]+", "-", id).strip("-") or "unnamed")


class RowAnchors:
    """The rows of one page: each gets an element id of its own, the first of a name `row_anchor` itself.

    >>> anchors = RowAnchors()
    >>> anchors.take("a"), anchors.take("a"), anchors.take("a-2"), anchors.take("b")
    ('row-a', 'row-a-2', 'row-a-2-2', 'row-b')
    """

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def take(self, id: str) -> str:
        """An element id for the next row of this id."""
        first = anchor = row_anchor(id)
        while anchor in self._taken:
            self._taken[first] += 1
            anchor = f"{first}-{self._taken[first]}"
        self._taken[anchor] = 1
        return anchor
