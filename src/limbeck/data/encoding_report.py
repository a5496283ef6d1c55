"""What encoding did to the rows, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class EncodingReport:
    """What encoding did to the rows. `boundary_merges`: places where encoding prompt and response in one piece would
    have joined a token across the border; the border was kept. `control_tokens`: rows whose own text spells a special
    token of the tokenizer. `unknown_tokens`: rows with text that the tokenizer has no token for. `open_thoughts`:
    responses without the `</think>` that ends what the chat template's header begins. `cut_ids`: rows whose prompt or
    response was cut. Lengths are in tokens, of the rows that were kept.
    """

    rows: int = 0
    dropped_prompts: int = 0
    cut_prompts: int = 0
    cut_responses: int = 0
    boundary_merges: int = 0
    control_tokens: int = 0
    unknown_tokens: int = 0
    open_thoughts: int = 0
    dropped_ids: list[str] = field(default_factory=list)
    cut_ids: list[str] = field(default_factory=list)
    prompt_lengths: list[int] = field(default_factory=list)
    response_lengths: list[int] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """For a run's directory: how many rows were read and kept, and whatever was dropped, cut or odd, with ids.

        >>> report = EncodingReport(rows=9, dropped_prompts=1, dropped_ids=["a"])
        >>> report.counts()["read"], report.counts()["kept"], report.counts()["dropped_ids"]
        (10, 9, ['a'])
        """
        odd = ("dropped_prompts", "cut_prompts", "cut_responses", "boundary_merges", "control_tokens", "unknown_tokens",
               "open_thoughts")  # fmt: skip
        return {
            "read": self.rows + self.dropped_prompts,
            "kept": self.rows,
            **{name: getattr(self, name) for name in odd},
            "cut_rows": len(self.cut_ids),
            "dropped_ids": list(self.dropped_ids),
            "cut_ids": list(self.cut_ids),
        }

    def lines(self) -> tuple[str, ...]:
        """For printing: the lengths, then whatever was dropped, cut or odd, with the setting that governs it."""
        dropped = f"{', '.join(self.dropped_ids[:3])}{', ...' if len(self.dropped_ids) > 3 else ''}"
        odd = {
            f"dropped, prompt longer than data.max_prompt ({dropped}); data.long_prompt=cut keeps them": (
                self.dropped_prompts
            ),
            "prompts cut in the middle of the user's text to fit data.max_prompt": self.cut_prompts,
            "responses cut at data.max_length; they teach no end of turn": self.cut_responses,
            "borders of prompt and response where one encoding would have joined a token": self.boundary_merges,
            "rows whose text spells a special token of the tokenizer, which is encoded as that token": (
                self.control_tokens
            ),
            "rows with text that the tokenizer has no token for; its token for unknown text is learned in its place": (
                self.unknown_tokens
            ),
            "responses without </think>, though the chat template begins them with <think>": self.open_thoughts,
        }
        lengths = f"prompt tokens {_spread(self.prompt_lengths)}; response tokens {_spread(self.response_lengths)}"
        return (f"{self.rows:,} rows: {lengths}", *(f"{count:,} {what}" for what, count in odd.items() if count))


def _spread(lengths: Sequence[int]) -> str:
    if not lengths:
        return "none"
    ordered = sorted(lengths)
    middle, high = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95))
    return f"median {middle}, 95 % {high}, longest {ordered[-1]}"
