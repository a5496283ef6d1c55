"""What is repaired in drawn responses: where the student went wrong, and how the row goes on from there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.registry import Registry
    from limbeck.revision.correcting import SCRG, Correction, Measures, Reviser, Revision
    from limbeck.revision.detectors import Detector, KLDArgmax
    from limbeck.revision.gathering import Viewer, gather_evidence

    DETECTORS: Registry[type[Detector]]
    REVISERS: Registry[type[Reviser]]

__all__ = [
    "DETECTORS",
    "REVISERS",
    "SCRG",
    "Correction",
    "Detector",
    "KLDArgmax",
    "Measures",
    "Reviser",
    "Revision",
    "Viewer",
    "gather_evidence",
]

_HOMES = {
    "SCRG": "correcting",
    "Correction": "correcting",
    "Detector": "detectors",
    "KLDArgmax": "detectors",
    "Measures": "correcting",
    "Reviser": "correcting",
    "Revision": "correcting",
    "Viewer": "gathering",
    "gather_evidence": "gathering",
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
    from limbeck.revision.detectors import KLDArgmax

    return {
        "DETECTORS": Registry("detector", {"kld-argmax": KLDArgmax}),
        "REVISERS": Registry("reviser", {"scrg": SCRG}),
    }
