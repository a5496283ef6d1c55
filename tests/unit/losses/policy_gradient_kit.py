"""Tokens that teacher and student drew together, and what a term sees of them once the student has moved."""

from __future__ import annotations

from typing import Any

import torch

from limbeck.losses.match import TokenScores
from limbeck.types import Experience

V = 5


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn_case(lengths: list[int], *, share: float = 0.2, seed: int = 0, drift: float = 0.3) -> dict[str, Any]:
    """Logits of teacher, student and the student that drew, with the tokens that it drew and their experience."""
    count = sum(lengths)
    target = normal(count, V, seed=seed).log_softmax(-1)
    old_logits = normal(count, V, seed=seed + 1)
    old = old_logits.log_softmax(-1)
    tokens = torch.randint(0, V, (count,), generator=torch.Generator().manual_seed(seed))
    behaviour = (share * target.exp() + (1 - share) * old.exp()).log()
    drawn = {
        name: logp.gather(1, tokens[:, None]).squeeze(1)
        for name, logp in (("behaviour_logp", behaviour), ("student_logp", old), ("teacher_logp", target))
    }
    return {
        "logits": old_logits + drift * normal(count, V, seed=seed + 2),
        "target": target,
        "old": old,
        "tokens": tokens,
        "experience": Experience(**drawn),
        "lengths": torch.tensor(lengths, dtype=torch.long),
    }


def scores_of(case: dict[str, Any], experience: Experience | None, logits: torch.Tensor | None = None) -> TokenScores:
    logits = case["logits"] if logits is None else logits
    return TokenScores(
        student_logp=logits.log_softmax(-1),
        target_logp=case["target"],
        tokens=case["tokens"],
        experience=experience,
    )
