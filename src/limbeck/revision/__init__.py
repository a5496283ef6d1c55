"""What is repaired in drawn responses: where the student went wrong, and how the row goes on from there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.registry import Registry
    from limbeck.revision.correcting import SCRG, Correction, Measures, Reviser, Revision
    from limbeck.revision.detectors import AttentionArgmax, Detector, Heuristic, KLDArgmax, RandomToken, ranked_errors
    from limbeck.revision.gathering import Viewer, gather_evidence, view_of

    DETECTORS: Registry[type[Detector]]
    REVISERS: Registry[type[Reviser]]

__all__ = [
    "DETECTORS",
    "REVISERS",
    "SCRG",
    "AttentionArgmax",
    "Correction",
    "Detector",
    "Heuristic",
    "KLDArgmax",
    "Measures",
    "RandomToken",
    "Reviser",
    "Revision",
    "Viewer",
    "gather_evidence",
    "ranked_errors",
    "view_of",
]

_HOMES = {
    "SCRG": "correcting",
    "AttentionArgmax": "detectors",
    "Correction": "correcting",
    "Detector": "detectors",
    "Heuristic": "detectors",
    "KLDArgmax": "detectors",
    "Measures": "correcting",
    "RandomToken": "detectors",
    "Reviser": "correcting",
    "Revision": "correcting",
    "Viewer": "gathering",
    "gather_evidence": "gathering",
    "ranked_errors": "detectors",
    "view_of": "gathering",
}


def __getattr__(name: str) -> Any:
    if name in ("DETECTORS", "REVISERS"):
        globals().update(_registries())
        return globals()[name]
    if name in _HOMES:
        return getattr(import_module(f"limbeck.revision.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'limbeck.revision' has no attribute '{name}'")


def _registries() -> dict[str, Any]:
    from limbeck.registry import Registry
    from limbeck.revision.correcting import SCRG
    from limbeck.revision.detectors import AttentionArgmax, Heuristic, KLDArgmax, RandomToken

    detectors = {
        "kld-argmax": KLDArgmax,
        "random": RandomToken,
        "heuristic": Heuristic,
        "attention": AttentionArgmax,
    }
    return {
        "DETECTORS": Registry("detector", detectors),
        "REVISERS": Registry("reviser", {"scrg": SCRG}),
    }
