"""A distillation method is a record. This is the first file to read.

| question                              | field        |
|---------------------------------------|--------------|
| Where do sequences come from?         | `sequences`  |
| What is repaired in them?             | `revision`   |
| What is matched token by token?       | `token`      |
| What is matched span by span?         | `span`       |
| Cross-entropy on the reference beside?| `weights.supervised` |

A new method is a new record; nothing below this file asks which method is running.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from limbeck.errors import ConfigError, UnknownName
from limbeck.losses import CLIP_NETWORKS, DIVERGENCES, SPAN_TERMS, TARGETS, TOKEN_TERMS, TOKEN_WEIGHTS
from limbeck.losses.correlation import Correlation, PairTerm
from limbeck.losses.dac import DACKL
from limbeck.losses.divergences import JSD, ForwardKL
from limbeck.losses.match import Likelihood, Match, TermToBuild, TokenTerm
from limbeck.losses.objective import Objective, Reduction
from limbeck.losses.policy_gradient import ReverseKLGradient
from limbeck.registry import Registry
from limbeck.revision import DETECTORS, REVISERS, SCRG, Reviser
from limbeck.sequences import SOURCES, CollectedRollouts, Fixed, Mixture, Source, Student
from limbeck.spans import EXTRACTORS


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The scale of each term (MGSR, arXiv 2407.10068, Eq. 11: all 1). A term of weight 0 is not computed.

    `span` counts for a method with a span term only.
    """

    token: float = 1.0
    supervised: float = 0.0
    span: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is drawn and what is minimised; printable, comparable, and the whole of what a run does differently."""

    sequences: Source
    token: TokenTerm | TermToBuild
    revision: Reviser | None = None
    span: PairTerm | None = None
    weights: Weights = field(default_factory=Weights)
    reduction: Reduction = "token"

    def objective(self) -> Objective:
        """The loss fields, built."""
        scales = dataclasses.asdict(self.weights)
        return Objective.of(self.token, span=self.span, scales=scales, reduction=self.reduction)


def sft() -> Method:
    """Supervised fine-tuning (Eq. 2): cross-entropy on the reference responses."""
    return Method(sequences=Fixed(), token=Likelihood())


def kd() -> Method:
    """Word-level knowledge distillation (Eq. 1): forward KL on the reference responses."""
    return Method(sequences=Fixed(), token=Match(ForwardKL()))


def imitkd() -> Method:
    """Imitation distillation: forward KL on responses that the student draws."""
    return Method(sequences=Student(), token=Match(ForwardKL()))


def gkd(*, student_share: float = 0.5, beta: float = 0.5) -> Method:
    """Generalised knowledge distillation: JSD(β) on a mixture of drawn and reference responses."""
    return Method(sequences=Mixture(Student(), Fixed(), student_share), token=Match(JSD(beta)))


def minillm(*, teacher_share: float = 0.2, term: ReverseKLGradient | None = None) -> Method:
    """MiniLLM (arXiv 2306.08543): reverse KL of whole responses by policy gradient, on rollouts with the teacher."""
    return Method(
        sequences=CollectedRollouts(teacher_share=teacher_share),
        token=term if term is not None else ReverseKLGradient(),
    )


def mgsr(*, student_share: float = 0.5, clip: DACKL | None = None) -> Method:
    """Multi-granularity semantic revision (arXiv 2407.10068): SCRG, DAC-KL, span correlation, Eq. 11's three terms."""
    return Method(
        sequences=Mixture(Student(), Fixed(), student_share),
        revision=SCRG(),
        token=clip if clip is not None else DACKL(),
        span=Correlation(),
        weights=Weights(token=1.0, supervised=1.0, span=1.0),
    )


METHODS: Registry[Callable[[], Method]] = Registry(
    "method",
    {
        "sft": sft,
        "kd": kd,
        "imitkd": imitkd,
        "gkd": gkd,
        "minillm": minillm,
        "mgsr": mgsr,
    },
)

PRESETS: Registry[Callable[[], Method]] = Registry(
    "method or preset",
    {
        **METHODS,
        "gkd:distillm": lambda: gkd(beta=0.1),
        "minillm:code": lambda: minillm(
            term=ReverseKLGradient(returns_from="own", gamma=0.95, reward_scale=2.0, reward_limit=100.0)
        ),
        "mgsr:full": lambda: mgsr(clip=DACKL(features="full")),
        "mgsr:literal": lambda: mgsr(clip=DACKL(features="full", coordinate="value", normalise="none")),
    },
)

# The base of a method that is no preset with changes: its record states every part.
CUSTOM = "custom"

SLOTS: dict[str, Registry[Any]] = {
    "sequences": SOURCES,
    "first": SOURCES,
    "second": SOURCES,
    "token": TOKEN_TERMS,
    "divergence": DIVERGENCES,
    "target": TARGETS,
    "weight": TOKEN_WEIGHTS,
    "clip": CLIP_NETWORKS,
    "revision": REVISERS,
    "detector": DETECTORS,
    "span": SPAN_TERMS,
    "extractor": EXTRACTORS,
}


def to_config(component: Any) -> Any:
    """A component, or a whole method, as the plain dictionary a recipe holds."""
    if not dataclasses.is_dataclass(component) or isinstance(component, type):
        return component
    names = [(slot, name) for slot in SLOTS.values() for name, entry in slot.items() if entry is type(component)]
    plain: dict[str, Any] = {"kind": names[0][1]} if names else {}
    is_known = bool(names) or isinstance(component, Method | Weights)
    if not is_known:
        plain["kind"] = f"{type(component).__module__}:{type(component).__qualname__}"
    for part in dataclasses.fields(component):
        plain[part.name] = to_config(getattr(component, part.name))
    return plain


def from_config(plain: Mapping[str, Any], *, allow_import: bool) -> Method:
    """The method of a recipe's `method` section: a `base`, with the parts that the recipe changes.

    Raises `UnknownName` for a base, kind or key that does not exist, and `ConfigError` for a value out of range. A
    `kind` of the form "module:Class" is imported only with `allow_import` (hand-written recipes, never resumed runs).
    """
    changes = dict(plain)
    base = changes.pop("base", None)
    if base is None:
        raise ConfigError(f"method.base is missing; it names a method\n  known: {', '.join(sorted(PRESETS))}")
    whole = _nothing_but_defaults() if base == CUSTOM else to_config(PRESETS[str(base)]())
    known = [part.name for part in dataclasses.fields(Method)]
    for key in changes:
        if key not in known:
            raise UnknownName.among("part of a method", key, known, f"method.{key}")
    merged = _merge(whole, changes)
    for key in known:
        if key not in merged:
            raise ConfigError(f"method.{key} is missing; a method of base '{CUSTOM}' states every part")
    weights = dict(merged["weights"])
    scales = [part.name for part in dataclasses.fields(Weights)]
    for key, value in weights.items():
        if key not in scales:
            raise UnknownName.among("term weight", key, scales, f"method.weights.{key}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"method.weights.{key} is {value!r}; a weight is a finite number of at least 0")
    if merged["reduction"] not in ("token", "sequence"):
        raise ConfigError(f"method.reduction is {merged['reduction']!r}; allowed: token, sequence")
    return Method(
        sequences=_component("sequences", merged["sequences"], "method.sequences", allow_import),
        token=_component("token", merged["token"], "method.token", allow_import),
        revision=_optional("revision", merged["revision"], allow_import),
        span=_optional("span", merged["span"], allow_import),
        weights=Weights(**{key: float(value) for key, value in weights.items()}),
        reduction=merged["reduction"],
    )


def _nothing_but_defaults() -> dict[str, Any]:
    """The parts of a method that need not be stated."""
    required = {"sequences", "token"}
    return {key: value for key, value in to_config(gkd()).items() if key not in required}


def _merge(whole: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `whole`; a part whose kind changes is replaced, not merged."""
    merged = dict(whole)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(value, str) and isinstance(old, dict) and "kind" in old:
            value = {"kind": value}
        if isinstance(value, Mapping) and isinstance(old, dict):
            same = value.get("kind", old.get("kind")) == old.get("kind")
            merged[key] = _merge(old, value) if same else dict(value)
        else:
            merged[key] = value
    return merged


def _optional(slot: str, plain: Any, allow_import: bool) -> Any:
    return None if plain is None else _component(slot, plain, f"method.{slot}", allow_import)


def _component(slot: str, plain: Any, where: str, allow_import: bool) -> Any:
    if isinstance(plain, str):
        plain = {"kind": plain}
    if not isinstance(plain, Mapping) or "kind" not in plain:
        raise ConfigError(f"{where} is {plain!r}; write {{kind: ...}}\n  known: {', '.join(sorted(SLOTS[slot]))}")
    kind = str(plain["kind"])
    if ":" in kind and kind not in SLOTS[slot]:
        entry = _imported(kind, where, allow_import)
    elif kind in SLOTS[slot]:
        entry = SLOTS[slot][kind]
    else:
        raise UnknownName.among(SLOTS[slot].what, kind, SLOTS[slot], f"{where}.kind")
    known = [part.name for part in dataclasses.fields(entry)]
    values: dict[str, Any] = {}
    for key, value in plain.items():
        if key == "kind":
            continue
        if key not in known:
            raise UnknownName.among(f"field of '{kind}'", key, [*known, "kind"], f"{where}.{key}")
        is_part = key in SLOTS and isinstance(value, str | Mapping)
        values[key] = _component(key, value, f"{where}.{key}", allow_import) if is_part else value
    try:
        return entry(**values)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where} ('{kind}') does not take these values: {_reason(error)}") from error


def _imported(kind: str, where: str, allow_import: bool) -> Any:
    if not allow_import:
        raise ConfigError(
            f"{where}.kind is '{kind}', code outside Limbeck; it is taken from hand-written recipes only.\n"
            "  Pass your recipe file again instead of the run's own copy."
        )
    module, _, name = kind.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}.kind is '{kind}', which cannot be imported: {error}") from error


def _reason(error: Exception) -> str:
    """pydantic's findings on one line each, without its web links."""
    found = getattr(error, "errors", None)
    if found is None:
        return str(error)
    return "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in found())
