"""What must hold of plain text beside a method's rows, and of errors put in on purpose; see `invariants.py`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from limbeck.data.loader import Loader, batch
from limbeck.errors import NothingToLearn
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.match import Match
from limbeck.losses.objective import Batch, Objective, one_process
from limbeck.records import EncodedRow
from limbeck.revision import KLDArgmax
from limbeck.seeds import Seeds
from limbeck.studies.detecting import Bench, Case, Clean, judged
from limbeck.studies.injecting import Injection, changed_tokens
from limbeck.testing import ScriptedModel, peaked, scripted_rollouts
from limbeck.training.batching import text_items
from limbeck.training.session import Session
from limbeck.types import pack_rows
from mutants.invariants import _close
from mutants.rig import PAD, exact_pair, one_step, toy_items

_SCALES = {"token": 1.0, "supervised": 0.5, "plain_text": 0.5}


def _texts() -> Loader:
    texts = ([257, *range(97, 110), 258], [257, 100, 101, 258], [257, 65])
    rows = [
        EncodedRow(id=f"plain-{place}", prompt=(), tokens=tuple(text), is_response=(True,) * len(text))
        for place, text in enumerate(texts)
    ]
    return Loader(rows, seeds=Seeds(0).child("plain-text"), pad_id=PAD)


def plain_text_has_a_mean_of_its_own() -> None:
    """Cross-entropy of the texts by plain transformers; every other term as it would be without them."""
    pair, items, texts = exact_pair(), toy_items(), _texts()
    drawn = batch(items, pad_id=PAD)
    objective = Objective.of(Match(ForwardKL()), scales=_SCALES)
    alone = Objective.of(Match(ForwardKL()), scales={**_SCALES, "plain_text": 0.0})
    found = one_step(pair, objective, drawn=drawn, micro_rows=2, items=items, texts=texts)
    without = one_step(pair, alone, drawn=drawn, micro_rows=2, items=items)
    for name in ("token", "supervised"):
        _close(found.totals[name], without.totals[name], what=f"{name} beside plain text")
    total, count = 0.0, 0
    for _, row in texts.take(64, 32):
        with torch.no_grad():
            logp = pair.student(torch.tensor([row.tokens])).logits[0].log_softmax(-1)
        total -= sum(float(logp[at, token]) for at, token in enumerate(row.tokens[1:]))
        count += len(row.tokens) - 1
    _close(found.totals["plain_text"], total / count, what="plain text", tolerance=1e-6)


def every_step_reads_texts_of_its_own() -> None:
    """One after the other from the seeded order, whatever step a run begins with, shared out over the ranks."""
    texts = _texts()
    recipe = SimpleNamespace(train=SimpleNamespace(batch_rows=2))
    whole = [row.id for _, row in texts.take(0, 8)]
    found = list[str]()
    for step in (1, 2, 3, 4):
        parts = []
        for rank in (0, 1):
            session: Any = object.__new__(Session)
            session.texts, session.recipe, session.world = texts, recipe, SimpleNamespace(rank=rank, size=2)
            parts.append([row.id for _, row in text_items(session, step)])
        found += [id for pair in zip(*parts, strict=True) for id in pair]
    assert found == whole


def plain_text_does_not_hide_that_there_is_nothing_to_learn() -> None:
    """A step whose rows have no response is refused, however much text lies beside it."""
    prompts = pack_rows([[257, 72]], [[False, False]], origin=["reference"], keys=[(0,)], pad_id=PAD)
    text = pack_rows([[257, 72]], [[True, True]], origin=["reference"], keys=[(1,)], pad_id=PAD)
    objective = Objective.of(Match(ForwardKL()), scales=_SCALES)
    batches = [
        Batch(sequences=prompts, terms=frozenset({"token"})),
        Batch(sequences=text, terms=frozenset({"plain_text"})),
    ]
    try:
        objective.weights(batches, total=one_process)
    except NothingToLearn:
        return
    raise AssertionError("a step without a response was learned from")


def a_hit_is_a_hit_of_the_first_wrong_token() -> None:
    """A detector that names the second wrong token is inside, and wrong; the tokens before the error stay the same."""
    said = {2: 1, 3: 6, 4: 2, 5: 3, 6: 7}
    student = ScriptedModel(lambda prefix: peaked({**said, 4: 6}.get(len(prefix), 7), 0.9, vocab_size=8), vocab_size=8)
    teacher = ScriptedModel(lambda prefix: peaked(said.get(len(prefix), 7), 0.9, vocab_size=8), vocab_size=8)
    rollouts = scripted_rollouts(student, max_new_tokens=6, stop_ids=frozenset({7}), temperature=0.0)
    clean, changed = (1, 2, 3, 7), (1, 6, 6, 3, 7)
    place, end = changed_tokens(clean, changed)
    assert (place, end) == (1, 3)
    case = Case(
        clean=Clean(source="student", id="a", prompt=(0, 0), response=clean, references=("a",)),
        injection=Injection(kind="name", tokens=changed, place=place, end=end),
    )
    bench = Bench(student=student, teacher=teacher, rollouts=rollouts, chunk=3, decode=str, greedy=True)
    (row,) = judged([case], detectors={"kld-argmax": KLDArgmax()}, bench=bench)
    assert row["guesses"] == [2]
    assert (row["right"], row["inside"], row["among_three"], row["distance"]) == (False, True, False, 1)


CHECKS = (
    plain_text_has_a_mean_of_its_own,
    every_step_reads_texts_of_its_own,
    plain_text_does_not_hide_that_there_is_nothing_to_learn,
    a_hit_is_a_hit_of_the_first_wrong_token,
)
