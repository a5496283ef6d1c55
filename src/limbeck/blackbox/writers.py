"""The kinds of teachers that a recipe can name, and how each is made for a stage of a run."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from limbeck.blackbox.endpoints import Address, Budget, Endpoint, Prices
from limbeck.blackbox.http_teacher import HttpTeacher
from limbeck.blackbox.ledger import Ledger
from limbeck.blackbox.prompted_teacher import PromptedTeacher, RecordedTeacher
from limbeck.blackbox.prompting import Prompts
from limbeck.blackbox.writing import RationaleTeacher
from limbeck.errors import ConfigError, UnknownName
from limbeck.registry import Registry

_FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What a teacher is made with: the ledger, the stage whose calls it makes, the budget, the run's seed.

    `is_replay`: answers come from the ledger alone.
    """

    ledger: Ledger
    stage: str
    budget: Budget
    seed: int
    is_replay: bool = False


@runtime_checkable
class Writer(Protocol):
    """A kind of teacher with its settings.

    `what` says in a sentence what it is, for the first line of a report; `calls_cost`: whether a call is worth counting
    against a budget.
    """

    what: ClassVar[str]
    calls_cost: ClassVar[bool]

    def build(self, desk: Desk) -> RationaleTeacher:
        """The teacher for one stage."""
        ...


@settings(frozen=True, config=_FORBID)
class HttpWriter:
    """A language model behind an OpenAI-compatible endpoint. Prices are money a million tokens."""

    url: Address
    model: str
    key_variable: str | None = None
    concurrency: int = Field(default=4, ge=1)
    timeout: float = Field(default=120.0, gt=0)
    attempts: int = Field(default=6, ge=1)
    first_wait: float = Field(default=1.0, ge=0)
    longest_wait: float = Field(default=60.0, ge=0)
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    context: int | None = Field(default=None, ge=256)
    prompts: str | None = None
    price_prompt: float = Field(default=0.0, ge=0)
    price_completion: float = Field(default=0.0, ge=0)

    what: ClassVar[str] = "a language model that was prompted over HTTP"
    calls_cost: ClassVar[bool] = True

    def prices(self) -> Prices:
        """Money a million tokens."""
        return Prices(prompt=self.price_prompt, completion=self.price_completion)

    def build(self, desk: Desk) -> RationaleTeacher:
        """The endpoint behind Limbeck's prompts; in a replay the ledger in its place. Raises `ConfigError`."""
        shared = {field.name for field in dataclasses.fields(Endpoint)}
        endpoint = Endpoint(**{name: value for name, value in dataclasses.asdict(self).items() if name in shared})
        name = f"{self.url.rstrip('/')} {self.model}"
        teacher = (
            RecordedTeacher(name, desk.ledger)
            if desk.is_replay
            else HttpTeacher(endpoint, ledger=desk.ledger, stage=desk.stage, budget=desk.budget, prices=self.prices())
        )
        return PromptedTeacher(
            teacher,
            ledger=desk.ledger,
            prompts=Prompts.load(None if self.prompts is None else Path(self.prompts)),
            stage=desk.stage,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            context=self.context,
            seed=desk.seed,
        )


@settings(frozen=True, config=_FORBID)
class LocalWriter:
    """A language model on this machine, prompted as one over HTTP is."""

    model: str
    device: str = "auto"
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    prompts: str | None = None

    what: ClassVar[str] = "a language model on this machine, prompted"
    calls_cost: ClassVar[bool] = True

    def build(self, desk: Desk) -> RationaleTeacher:
        """The model behind Limbeck's prompts; in a replay the ledger in its place."""
        from limbeck.blackbox.local_teacher import LocalTeacher

        loaded = LocalTeacher.load(self.model, device=self.device)
        return PromptedTeacher(
            RecordedTeacher(loaded.name, desk.ledger) if desk.is_replay else loaded,
            ledger=desk.ledger,
            prompts=Prompts.load(None if self.prompts is None else Path(self.prompts)),
            stage=desk.stage,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            budget=None if desk.is_replay else desk.budget,
            seed=desk.seed,
        )


@settings(frozen=True, config=_FORBID)
class SolverWriter:
    """Rules that know how to do arithmetic: no language model, no cost, no evidence about language models."""

    what: ClassVar[str] = (
        "a rule-based solver of arithmetic, which is no evidence about what a language model would write"
    )
    calls_cost: ClassVar[bool] = False

    def build(self, desk: Desk) -> RationaleTeacher:
        """The solver; its choices depend on the run's seed."""
        from limbeck.blackbox.solver import solver_teacher

        return solver_teacher(seed=desk.seed)


@settings(frozen=True, config=_FORBID)
class FactsWriter:
    """The facts that the data come with, put together by rules: no language model."""

    what: ClassVar[str] = "rules over facts of the data, which is no evidence about what a language model would write"
    calls_cost: ClassVar[bool] = False

    def build(self, desk: Desk) -> RationaleTeacher:
        """The teacher of facts; its choices depend on the run's seed."""
        from limbeck.blackbox.facts import facts_teacher

        return facts_teacher(seed=desk.seed)


WRITERS: Registry[Any] = Registry(
    "teacher of UNDO", {"http": HttpWriter, "local": LocalWriter, "solver": SolverWriter, "facts": FactsWriter}
)


def writer_of(stated: Mapping[str, Any], *, allow_import: bool = True) -> Writer:
    """The teacher that a recipe's `teacher` section states: `kind` and its fields.

    `kind: module:Class` names one of your own, with `allow_import`. Raises `UnknownName`, `ConfigError`.

    >>> writer_of({"kind": "http", "url": "http://127.0.0.1:8000/v1", "model": "m"}).temperature
    0.7
    """
    kind = stated.get("kind")
    if not isinstance(kind, str):
        raise ConfigError(f"teacher.kind is {kind!r}; name a teacher\n  known: {', '.join(sorted(WRITERS))}")
    entry = _imported(kind, allow_import) if ":" in kind and kind not in WRITERS else WRITERS[kind]
    known = [field.name for field in dataclasses.fields(entry)]
    values = {key: value for key, value in stated.items() if key != "kind"}
    for key in values:
        if key not in known:
            raise UnknownName.among(f"field of the teacher '{kind}'", key, [*known, "kind"], f"teacher.{key}")
    try:
        made: Writer = entry(**values)
    except (TypeError, ValueError) as error:
        found = getattr(error, "errors", None)
        said = "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in found()) if found else str(error)
        raise ConfigError(f"teacher ('{kind}') does not take these values: {said}") from error
    return made


def check_limits(writer: Writer, limits: Budget, where: Callable[[str], str] = lambda key: "") -> None:
    """Raise `ConfigError` for a limit that no call of this teacher would ever reach.

    `where` gives the line of an error message about a key.
    """
    void: dict[str, str] = {}
    if not writer.calls_cost:
        void = dict.fromkeys(
            ("calls", "tokens", "money"), "its calls are not counted; delete it (budget.minutes is the loop's own)"
        )
    elif isinstance(writer, LocalWriter):
        void = {"money": "a model on this machine costs none; delete it, or set budget.calls or budget.tokens"}
    elif isinstance(writer, HttpWriter) and writer.prices() == Prices():
        void = {
            "money": "no price is set, so that nothing would be spent; set teacher.price_prompt and "
            "teacher.price_completion, money a million tokens, or budget.money to null"
        }
    for name, reason in void.items():
        limit = getattr(limits, name)
        if limit is not None:
            said = f"budget.{name} is {limit}, but the teacher is {writer.what}: {reason}"
            raise ConfigError("\n  ".join(each for each in (said, where(f"budget.{name}")) if each))


def _imported(kind: str, allow_import: bool) -> Any:
    if not allow_import:
        raise ConfigError(f"teacher.kind is '{kind}', code outside Limbeck; it is taken from hand-written recipes only")
    module, _, name = kind.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"teacher.kind is '{kind}', which cannot be imported: {error}") from error
