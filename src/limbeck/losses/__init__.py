"""What is matched token by token: divergences, and the terms made of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from limbeck.losses.divergences import (
        JSD,
        TVD,
        Divergence,
        ForwardKL,
        ReverseKL,
        SkewForwardKL,
        SkewReverseKL,
        SymmetricKL,
    )
    from limbeck.losses.match import (
        Likelihood,
        Match,
        Target,
        TeacherTarget,
        TokenScores,
        TokenTerm,
        TokenWeight,
        UniformWeight,
    )
    from limbeck.registry import Registry

    DIVERGENCES: Registry[Callable[..., Divergence]]
    TARGETS: Registry[Callable[..., Target]]
    TOKEN_TERMS: Registry[Callable[..., TokenTerm]]
    TOKEN_WEIGHTS: Registry[Callable[..., TokenWeight]]

__all__ = [
    "DIVERGENCES",
    "JSD",
    "TARGETS",
    "TOKEN_TERMS",
    "TOKEN_WEIGHTS",
    "TVD",
    "Divergence",
    "ForwardKL",
    "Likelihood",
    "Match",
    "ReverseKL",
    "SkewForwardKL",
    "SkewReverseKL",
    "SymmetricKL",
    "Target",
    "TeacherTarget",
    "TokenScores",
    "TokenTerm",
    "TokenWeight",
    "UniformWeight",
]

_HOME = {
    "JSD": "divergences",
    "TVD": "divergences",
    "Divergence": "divergences",
    "ForwardKL": "divergences",
    "Likelihood": "match",
    "Match": "match",
    "ReverseKL": "divergences",
    "SkewForwardKL": "divergences",
    "SkewReverseKL": "divergences",
    "SymmetricKL": "divergences",
    "Target": "match",
    "TeacherTarget": "match",
    "TokenScores": "match",
    "TokenTerm": "match",
    "TokenWeight": "match",
    "UniformWeight": "match",
}
_REGISTRIES = ("DIVERGENCES", "TARGETS", "TOKEN_TERMS", "TOKEN_WEIGHTS")


def _load_registries() -> dict[str, object]:
    from limbeck.losses import divergences, match
    from limbeck.registry import Registry

    return {
        "DIVERGENCES": Registry[Any](
            "divergence",
            {
                "forward-kl": divergences.ForwardKL,
                "reverse-kl": divergences.ReverseKL,
                "symmetric-kl": divergences.SymmetricKL,
                "jsd": divergences.JSD,
                "tvd": divergences.TVD,
                "skew-forward-kl": divergences.SkewForwardKL,
                "skew-reverse-kl": divergences.SkewReverseKL,
            },
        ),
        "TARGETS": Registry[Any]("target", {"teacher": match.TeacherTarget}),
        "TOKEN_TERMS": Registry[Any]("token term", {"likelihood": match.Likelihood, "match": match.Match}),
        "TOKEN_WEIGHTS": Registry[Any]("token weight", {"uniform": match.UniformWeight}),
    }


def __getattr__(name: str) -> object:
    if name in _REGISTRIES:
        # Kept, so that an entry which a user adds is there at the next look.
        globals().update(_load_registries())
        return globals()[name]
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
