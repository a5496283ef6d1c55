"""The sections about single tokens, from the rows of tokens.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from limbeck.reporting.clipping import Distribution
from limbeck.reporting.page import ClippingSection, Section, TokensSection
from limbeck.reporting.tokens import Response


def is_revised(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any response of these rows was corrected, or any of their tokens clipped.

    >>> is_revised([{"tokens": [{"token": "a"}]}]), is_revised([{"tokens": [], "corrected": [3]}])
    (False, True)
    """
    return any(row.get("corrected") or any("kept_mass" in token for token in row["tokens"]) for row in rows)


def look_sections(rows: Iterable[Mapping[str, Any]], *, run: str = "") -> list[Section]:
    """A run's responses token by token, and what its clip keeps at the last step; nothing for a run without rows.

    `run` is named in the titles, where a page shows several.
    """
    held = list(rows)
    if not held:
        return []
    of_run = f" ({run})" if run else ""
    intro = (
        "What the student wrote to rows that it does not learn from. A token's colour is KL(student‖teacher) in its "
        "place; point at a token, or choose one with the arrow keys, for its numbers."
    )
    responses = tuple(map(Response.of, held))
    if any(each.corrected for each in responses):
        intro += (
            " The token in error becomes the teacher's; what is before it is kept, and the student goes on from there."
        )
    sections: list[Section] = [TokensSection(title=f"Token by token{of_run}", responses=responses, intro=intro)]
    last = max(each.step for each in responses)
    clipped = tuple(each for row in held if row["step"] == last for each in Distribution.all_of(row))
    if clipped:
        intro = (
            f"The teacher's distribution p after step {last:,} at the tokens where student and teacher are furthest "
            "apart, its classes from the likeliest on. Each class has a gate m between 0 and 1; the student learns "
            "from the clipped distribution m·p / Σ m·p."
        )
        sections.append(ClippingSection(title=f"What the clip keeps{of_run}", distributions=clipped, intro=intro))
    return sections
