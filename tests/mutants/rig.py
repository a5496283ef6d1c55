"""One optimizer step without a run around it: what the invariants put in and take out. No check lives here."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch

from limbeck.config import Recipe
from limbeck.data.templates import choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.losses.objective import Objective
from limbeck.models.decoders import CausalDecoder
from limbeck.models.pair import Pair
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.records import EncodedRow
from limbeck.seeds import Seeds
from limbeck.sequences.source import Rollouts
from limbeck.testing import byte_tokenizer, tiny_model, toy_examples
from limbeck.training.distiller import Distiller
from limbeck.training.session import Session
from limbeck.training.step import take_step
from limbeck.types import RowKey, Sequences, pack_rows

EOS, END, PAD = 258, 260, 256
Item = tuple[RowKey, EncodedRow]


@cache
def exact_pair(architecture: str = "llama", *, twins: bool = False) -> Pair:
    """A pair in float64 whose logits have no column beyond the tokenizer's 261. `twins`: teacher equal to student."""
    student = tiny_model(architecture, vocab_size=261, width=16)
    teacher = copy.deepcopy(student) if twins else tiny_model(architecture, vocab_size=261, seed=1, width=24)
    tokenizer = byte_tokenizer()
    pair = Pair.load(
        teacher=teacher.double(),
        student=student.double(),
        tokenizer=tokenizer,
        teacher_tokenizer=tokenizer,
        device="cpu",
        teacher_device="cpu",
    )
    assert pair.vocabulary.size == 261
    return pair


def encoder_of(tokenizer: Any, **settings: Any) -> Encoder:
    return Encoder(tokenizer, choose_template("auto", tokenizer), **settings)


@cache
def toy_items(count: int = 5) -> tuple[Item, ...]:
    """Rows of the toy corpus, of different lengths."""
    rows = encoder_of(byte_tokenizer()).rows(toy_examples(count))
    return tuple(((0, index), row) for index, row in enumerate(rows))


def ragged(*, pad_id: int = PAD, origin: str = "reference") -> Sequences:
    """Four rows of very different lengths, one answered twice, one with `<eos>` in the middle of its response."""
    rows = [
        [257, 72, 73, 74, 75, EOS],
        [257, 80, 81],
        [257, 65, 66, EOS, 67, 68, 69, EOS],
        [257, *range(90, 112), EOS],
    ]
    spans = [[(2, 6)], [(2, 3)], [(1, 4), (5, 8)], [(8, 24)]]
    flags = [
        [any(first <= i < end for first, end in own) for i in range(len(row))]
        for row, own in zip(rows, spans, strict=True)
    ]
    keys = [(0, index) for index in range(len(rows))]
    return pack_rows(rows, flags, origin=[origin] * len(rows), keys=keys, pad_id=pad_id)


@dataclass(frozen=True)
class Stepped:
    """The sum of each term over the step, and the gradient of every parameter in one vector."""

    totals: dict[str, float]
    gradient: torch.Tensor


def one_step(
    pair: Pair,
    objective: Objective,
    *,
    drawn: Sequences,
    micro_rows: int,
    items: Sequence[Item] = (),
    rank: Any = None,
    revision: Any = None,
    finder: Any = None,
    texts: Any = None,
) -> Stepped:
    """`take_step` on these rows instead of drawn ones; the student is a copy, the pair stays as it is."""
    student = copy.deepcopy(pair.student).train()
    distiller = Distiller(Scorer.of(student, vocabulary=pair.vocabulary), objective, chunk=3)
    session: Any = object.__new__(Session)
    session.recipe, session.pair = _recipe(), pair
    session.auto = {"micro_rows": micro_rows, "steps": 9}
    session.seeds = Seeds(0)
    session.world = rank or Rank(0, lambda rank, value: [value], size=1)
    session.distiller = session.wrapped = distiller
    session.optimizer = torch.optim.SGD(distiller.parameters(), lr=0.0)
    session.teacher = None if pair.teacher is None else Scorer.of(pair.teacher, vocabulary=pair.vocabulary)
    session.reader = session.teacher
    session.rollouts = Rollouts(
        decoder=CausalDecoder(distiller.scorer),
        sampling=Sampling(),
        max_new_tokens=8,
        max_length=64,
        group_rows=4,
        pad_id=pair.pad_id,
        seeds=Seeds(0),
        device=torch.device("cpu"),
    )
    source = _Given(drawn)
    session.method = SimpleNamespace(sequences=source, revision=revision)
    session.finder, session.texts = finder, texts
    result = take_step(session, 3, items=tuple(items))
    gradient = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
    return Stepped(result.row["terms"], gradient)


def two_ranks(pair: Pair, objective: Objective, *, drawn: Sequences, micro_rows: int) -> list[Stepped]:
    """The same step on two ranks that share the rows; each rank's gradient before a wrapper averages it."""
    barrier = threading.Barrier(2, timeout=20)
    given: dict[int, Any] = {}

    def exchange(rank: int, value: Any) -> list[Any]:
        given[rank] = value
        barrier.wait()
        both = [given[0], given[1]]
        barrier.wait()
        return both

    def run(rank: int) -> Stepped:
        part = drawn.rows(range(rank, len(drawn), 2))
        return one_step(pair, objective, drawn=part, micro_rows=micro_rows, rank=Rank(rank, exchange, size=2))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, [0, 1]))


class _Given:
    """A source that gives these rows."""

    def __init__(self, rows: Sequences) -> None:
        self._rows = rows

    def prompts(self, step: int, *, batch_rows: int, seeds: Seeds) -> int:
        return batch_rows

    def draw(self, items: Sequence[Item], *, rollouts: Rollouts, step: int) -> Sequences:
        return self._rows

    def keep(self, drawn: Sequences, *, step: int, seeds: Seeds) -> None:
        pass

    def observe(self, validation_loss: float) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Any) -> None:
        pass


class Rank:
    """One rank of a world of threads, as far as a step asks for it."""

    def __init__(self, rank: int, exchange: Callable[[int, Any], list[Any]], *, size: int) -> None:
        self.rank, self.size = rank, size
        self.device = torch.device("cpu")
        self._exchange = exchange

    def sum(self, numbers: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._exchange(self.rank, numbers.clone())).sum(0)

    def gather(self, rows: list[Any]) -> list[Any]:
        return [row for part in self._exchange(self.rank, rows) for row in part]

    def accumulate(self, module: Any, *, is_last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def decoding(self, decoder: Any) -> AbstractContextManager[None]:
        return nullcontext()


@cache
def _recipe() -> Recipe:
    models = {"teacher": "a teacher", "student": "a student"}
    recipe = {"method": {"base": "kd"}, "models": models, "data": {"corpus": "starter"}}
    return Recipe.load(recipe, ["train.clip_norm=null", "train.warmup=0.1"])
