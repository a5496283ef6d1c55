"""A distillation method is a record. This is the first file to read.

| question                              | field        |
|---------------------------------------|--------------|
| Where do sequences come from?         | `sequences`  |
| What is repaired in them?             | `revision`   |
| What is matched token by token?       | `token`      |
| What is matched span by span?         | `span`       |
| Cross-entropy on the reference beside?| `weights.supervised` |
| Cross-entropy on plain text beside?   | `weights.plain_text` |

A new method is a new record; nothing below this file asks which method is running.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from limbeck.errors import ConfigError, UnknownName
from limbeck.losses.correlation import Correlation, PairTerm
from limbeck.losses.dac import DACKL
from limbeck.losses.divergences import JSD, ForwardKL, SkewForwardKL, SkewReverseKL
from limbeck.losses.match import Likelihood, Match, TermToBuild, TokenTerm
from limbeck.losses.objective import Objective, Reduction
from limbeck.losses.policy_gradient import ReverseKLGradient
from limbeck.registry import Registry
from limbeck.revision import SCRG, Reviser
from limbeck.sequences import (
    Adaptive,
    CollectedRollouts,
    Constant,
    Fixed,
    Mixture,
    Replay,
    Source,
    SourceToBuild,
    Student,
    TeacherWritten,
)
from limbeck.slots import SLOTS, component_of, merged_parts


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The scale of each term (MGSR, arXiv 2407.10068, Eq. 11: all 1). A term of weight 0 is not computed.

    `span` counts for a method with a span term only. `plain_text` is cross-entropy on the texts of `data.plain_text`.
    """

    token: float = 1.0
    supervised: float = 0.0
    span: float = 1.0
    plain_text: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is drawn and what is minimised; printable, comparable, and the whole of what a run does differently."""

    sequences: Source | SourceToBuild
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


def seqkd() -> Method:
    """Sequence-level knowledge distillation: fine-tuning on responses that the teacher writes."""
    return Method(sequences=TeacherWritten(), token=Likelihood())


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


def distillm(*, schedule: Adaptive | None = None, token: TokenTerm | None = None) -> Method:
    """DistiLLM: skew reverse KL on the student's responses, replayed more and more, and on the corpus's."""
    source = Replay(Student(), Adaptive() if schedule is None else schedule)
    return Method(sequences=source, token=Match(SkewReverseKL(0.1)) if token is None else token)


def buffered(method: Method, *, student_share: float) -> Method:
    """The method with the sampling of DistiLLM's code: rows of a buffer, into which fresh ones go, where it draws."""
    return dataclasses.replace(
        method, sequences=Replay(Student(), Constant(student_share), capacity=1000, replay_on_mixed=True)
    )


def mgsr(*, sequences: Source | SourceToBuild | None = None, clip: DACKL | None = None) -> Method:
    """Multi-granularity semantic revision (arXiv 2407.10068): SCRG, DAC-KL, span correlation, Eq. 11's three terms."""
    return Method(
        sequences=Mixture(Student(), Fixed(), 0.5) if sequences is None else sequences,
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
        "seqkd": seqkd,
        "imitkd": imitkd,
        "gkd": gkd,
        "minillm": minillm,
        "distillm": distillm,
        "mgsr": mgsr,
    },
)

PRESETS: Registry[Callable[[], Method]] = Registry(
    "method or preset",
    {
        **METHODS,
        "seqkd:kl": lambda: dataclasses.replace(seqkd(), token=Match(ForwardKL())),
        "imitkd:buffered": lambda: buffered(imitkd(), student_share=1.0),
        "gkd:distillm": lambda: gkd(beta=0.1),
        "gkd:buffered": lambda: buffered(gkd(beta=0.1), student_share=0.5),
        "gkd:trl": lambda: dataclasses.replace(gkd(beta=1.0), sequences=Student()),
        "minillm:code": lambda: minillm(
            term=ReverseKLGradient(returns_from="own", gamma=0.95, reward_scale=2.0, reward_limit=100.0)
        ),
        "distillm:small": lambda: distillm(schedule=Adaptive(initial=0.5)),
        "distillm:gpt2-base": lambda: distillm(token=Match(SkewForwardKL(0.1))),
        "distillm:openllama": lambda: distillm(schedule=Adaptive(initial=0.2, rise=0.2)),
        "mgsr:off-policy": lambda: mgsr(sequences=Replay(Student(), Adaptive())),
        "mgsr:full": lambda: mgsr(clip=DACKL(features="full")),
        "mgsr:literal": lambda: mgsr(clip=DACKL(features="full", coordinate="value", normalise="none")),
    },
)

# The base of a method that is no preset with changes: its record states every part.
CUSTOM = "custom"


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
    merged = merged_parts(whole, changes)
    for key in known:
        if key not in merged:
            raise ConfigError(f"method.{key} is missing; a method of base '{CUSTOM}' states every part")
    weights = merged["weights"]
    if not isinstance(weights, Mapping):
        example = "weights: {token: 1, supervised: 0}"
        raise ConfigError(f"method.weights is {weights!r}; a section of keys is expected, e.g. {example}")
    scales = [part.name for part in dataclasses.fields(Weights)]
    for key, value in weights.items():
        if key not in scales:
            raise UnknownName.among("term weight", key, scales, f"method.weights.{key}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"method.weights.{key} is {value!r}; a weight is a finite number of at least 0")
    if merged["reduction"] not in ("token", "sequence"):
        raise ConfigError(f"method.reduction is {merged['reduction']!r}; allowed: token, sequence")
    return Method(
        sequences=component_of("sequences", merged["sequences"], "method.sequences", allow_import),
        token=component_of("token", merged["token"], "method.token", allow_import),
        revision=_optional("revision", merged["revision"], allow_import),
        span=_optional("span", merged["span"], allow_import),
        weights=Weights(**{key: float(value) for key, value in weights.items()}),
        reduction=merged["reduction"],
    )


def _nothing_but_defaults() -> dict[str, Any]:
    """The parts of a method that need not be stated."""
    required = {"sequences", "token"}
    return {key: value for key, value in to_config(gkd()).items() if key not in required}


def _optional(slot: str, plain: Any, allow_import: bool) -> Any:
    return None if plain is None else component_of(slot, plain, f"method.{slot}", allow_import)
