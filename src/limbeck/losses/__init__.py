"""What is matched token by token: divergences, and the terms made of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from limbeck.losses.clip_networks import MLP, Bounds, ClipNetwork, FixedBounds
    from limbeck.losses.correlation import Correlation, PairScores, PairTerm
    from limbeck.losses.dac import DACKL
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
        Measured,
        MeasuringTerm,
        Target,
        TeacherTarget,
        TermToBuild,
        TokenScores,
        TokenTerm,
        TokenWeight,
        UniformWeight,
    )
    from limbeck.losses.policy_gradient import ExperiencedTerm, ReverseKLGradient
    from limbeck.losses.ranked_networks import Convolutional, Recurrent
    from limbeck.losses.targets import NucleusTarget, OtherRowTarget, PushedDownTarget, TopKTarget
    from limbeck.registry import Registry

    CLIP_NETWORKS: Registry[Callable[..., ClipNetwork]]
    DIVERGENCES: Registry[Callable[..., Divergence]]
    SPAN_TERMS: Registry[Callable[..., PairTerm]]
    TARGETS: Registry[Callable[..., Target]]
    TOKEN_TERMS: Registry[Callable[..., TokenTerm | TermToBuild]]
    TOKEN_WEIGHTS: Registry[Callable[..., TokenWeight]]

__all__ = [
    "CLIP_NETWORKS",
    "DACKL",
    "DIVERGENCES",
    "JSD",
    "MLP",
    "SPAN_TERMS",
    "TARGETS",
    "TOKEN_TERMS",
    "TOKEN_WEIGHTS",
    "TVD",
    "Bounds",
    "ClipNetwork",
    "Convolutional",
    "Correlation",
    "Divergence",
    "ExperiencedTerm",
    "FixedBounds",
    "ForwardKL",
    "Likelihood",
    "Match",
    "Measured",
    "MeasuringTerm",
    "NucleusTarget",
    "OtherRowTarget",
    "PairScores",
    "PairTerm",
    "PushedDownTarget",
    "Recurrent",
    "ReverseKL",
    "ReverseKLGradient",
    "SkewForwardKL",
    "SkewReverseKL",
    "SymmetricKL",
    "Target",
    "TeacherTarget",
    "TermToBuild",
    "TokenScores",
    "TokenTerm",
    "TokenWeight",
    "TopKTarget",
    "UniformWeight",
]

_HOME = {
    "Bounds": "clip_networks",
    "ClipNetwork": "clip_networks",
    "Convolutional": "ranked_networks",
    "Correlation": "correlation",
    "DACKL": "dac",
    "FixedBounds": "clip_networks",
    "JSD": "divergences",
    "MLP": "clip_networks",
    "Measured": "match",
    "MeasuringTerm": "match",
    "NucleusTarget": "targets",
    "OtherRowTarget": "targets",
    "PairScores": "correlation",
    "PairTerm": "correlation",
    "PushedDownTarget": "targets",
    "TermToBuild": "match",
    "TVD": "divergences",
    "Divergence": "divergences",
    "ExperiencedTerm": "policy_gradient",
    "ForwardKL": "divergences",
    "Likelihood": "match",
    "Match": "match",
    "Recurrent": "ranked_networks",
    "ReverseKL": "divergences",
    "ReverseKLGradient": "policy_gradient",
    "SkewForwardKL": "divergences",
    "SkewReverseKL": "divergences",
    "SymmetricKL": "divergences",
    "Target": "match",
    "TeacherTarget": "match",
    "TokenScores": "match",
    "TokenTerm": "match",
    "TokenWeight": "match",
    "TopKTarget": "targets",
    "UniformWeight": "match",
}
_REGISTRIES = ("CLIP_NETWORKS", "DIVERGENCES", "SPAN_TERMS", "TARGETS", "TOKEN_TERMS", "TOKEN_WEIGHTS")


def _load_registries() -> dict[str, object]:
    from limbeck.losses import (
        clip_networks,
        correlation,
        dac,
        divergences,
        match,
        policy_gradient,
        ranked_networks,
        targets,
    )
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
        "CLIP_NETWORKS": Registry[Any](
            "clip network",
            {
                "mlp": clip_networks.MLP,
                "conv": ranked_networks.Convolutional,
                "rnn": ranked_networks.Recurrent,
                "fixed": clip_networks.FixedBounds,
            },
        ),
        "SPAN_TERMS": Registry[Any]("span term", {"correlation": correlation.Correlation}),
        "TARGETS": Registry[Any](
            "target",
            {
                "teacher": match.TeacherTarget,
                "top-k": targets.TopKTarget,
                "nucleus": targets.NucleusTarget,
                "other-row": targets.OtherRowTarget,
                "pushed-down": targets.PushedDownTarget,
            },
        ),
        "TOKEN_TERMS": Registry[Any](
            "token term",
            {
                "likelihood": match.Likelihood,
                "match": match.Match,
                "dac-kl": dac.DACKL,
                "reverse-kl-gradient": policy_gradient.ReverseKLGradient,
            },
        ),
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
