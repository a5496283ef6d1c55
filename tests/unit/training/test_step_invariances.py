"""A step's loss and weights are mathematics: how the rows are cut up for the machine does not enter them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.models.scoring import scored_tokens
from limbeck.records import EncodedRow
from limbeck.training import loop
from limbeck.training.batching import micro_batches
from limbeck.training.session import Session
from limbeck.training.step import move_weights, take_items, take_step
from reference import equations
from training_kit import Models, gradients, in_float64, metrics, opened, recipe, start, tensors

KINDS = ("token", "sequence", "mgsr", "minillm")
MIXED = {"base": "gkd", "weights": {"supervised": 0.7}, "sequences": {"kind": "mixture", "share": 0.7}}
THREE_STEPS = {"steps": 3, "learning_rate": 2e-3}


MGSR = {
    "base": "mgsr",
    "weights": {"supervised": 0.7, "span": 3.0},
    "sequences": {"share": 0.7},
    "token": {"top": 40, "clip": {"learning_rate": 0.05}},
}

MINILLM = {"base": "minillm", "sequences": {"rows": 12, "epochs": 2}}


def _settings(models: Models, kind: str, **train: Any) -> dict[str, Any]:
    method = {"mgsr": MGSR, "minillm": MINILLM}.get(kind, {**MIXED, "reduction": kind})
    base = str(method["base"])
    return recipe(models, base, method=method, train={**THREE_STEPS, **train}, validate={"every": None})


@pytest.fixture(scope="module")
def plain(models: Models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three steps in float64 with micro-batches of four rows: GKD in each reduction, and MGSR."""
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        in_float64(patch)
        for kind in KINDS:
            start(_settings(models, kind), folder / kind)
    return {kind: folder / kind for kind in KINDS}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("train.micro_rows=1", "token"),
        ("train.micro_rows=6", "token"),
        ("train.chunk=3", "token"),
        ("models.gradient_checkpointing=true", "token"),
        ("row order", "token"),
        ("train.micro_rows=1", "sequence"),
        ("train.micro_rows=1", "mgsr"),
        ("train.chunk=3", "mgsr"),
        ("models.gradient_checkpointing=true", "mgsr"),
        ("row order", "mgsr"),
        ("train.micro_rows=1", "minillm"),
        ("train.micro_rows=6", "minillm"),
        ("train.chunk=3", "minillm"),
    ],
)
def test_cutting_up_changes_nothing(
    change: str, kind: str, models: Models, plain: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_float64(monkeypatch)
    if change == "row order":
        whole = loop.take_items
        monkeypatch.setattr(loop, "take_items", lambda *args: (whole(*args)[0][::-1], whole(*args)[1]))
    start(_settings(models, kind), tmp_path / "run", *([] if change == "row order" else [change]))
    left, right = tensors(plain[kind]), tensors(tmp_path / "run")
    assert left["weight student.lm_head.weight"].dtype == torch.float64
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=0, atol=1e-9, msg=name)
    pairs = list(zip(metrics(plain[kind]), metrics(tmp_path / "run"), strict=True))
    drawn = {"mgsr": {"revised", "reference"}, "minillm": {"mixed"}}.get(kind, {"student", "reference"})
    assert {origin for row, _ in pairs for origin in row["origin"]} >= drawn
    for one, other in pairs:
        # Weights of tokens are float32; what differs is the order of sums.
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-9)
        assert one["tokens"] == other["tokens"]


def test_the_reductions_differ(plain: dict[str, Path]) -> None:
    token, sequence = (metrics(plain[name])[0]["loss"] for name in ("token", "sequence"))
    assert abs(token - sequence) > 1e-3


def _dense_logp(model: Any, row: EncodedRow, width: int) -> list[list[float]]:
    """The distributions that predict a row's response tokens, from the whole model's own logits."""
    with torch.no_grad():
        logits = model(torch.tensor([row.tokens])).logits[0]
    places = [place for place, flag in enumerate(row.is_response) if flag]
    probabilities: list[list[float]] = logits[[place - 1 for place in places], :width].double().softmax(-1).tolist()
    return probabilities


@pytest.mark.parametrize("reduction", ["token", "sequence"])
@pytest.mark.parametrize("base", ["sft", "kd", "gkd"])
def test_the_loss_is_that_of_plain_python(base: str, reduction: str, models: Models, tmp_path: Path) -> None:
    method: dict[str, Any] = {"reduction": reduction}
    if base == "gkd":
        method |= {
            "sequences": {"kind": "fixed"},
            "token": {"divergence": {"beta": 0.3}},
            "weights": {"supervised": 0.5},
        }
    session = opened(recipe(models, base, method=method, data={"max_prompt": 30}), tmp_path / "run")
    items, _ = take_items(session, 1, 0)
    row = take_step(session, 1, items=items).row
    width = session.pair.vocabulary.size
    rows = [encoded for _, encoded in items]
    student = [_dense_logp(session.pair.student, each, width) for each in rows]
    tokens = [[t for t, flag in zip(each.tokens, each.is_response, strict=True) if flag] for each in rows]
    likelihood = equations.likelihood_loss(student, tokens, reduction=reduction)
    if base == "sft":
        expected = likelihood
    else:
        teacher = [_dense_logp(session.pair.teacher, each, width) for each in rows]
        expected = equations.distillation_loss(teacher, student, reduction=reduction)
    if base == "gkd":
        losses = [
            [equations.jsd(p, q, 0.3) for p, q in zip(ps, qs, strict=True)]
            for ps, qs in zip(teacher, student, strict=True)
        ]
        expected = equations.reduced(losses, reduction=reduction) + 0.5 * likelihood
        assert row["terms"]["supervised"] == pytest.approx(likelihood, rel=1e-5)
    assert row["loss"] == pytest.approx(expected, rel=1e-5)
    assert row["tokens"]["token"] == sum(map(len, tokens))


def test_weights_of_a_step_add_up_to_one(models: Models, tmp_path: Path) -> None:
    session = opened(recipe(models, "gkd", method=MIXED, train={"micro_rows": 2}), tmp_path / "run")
    items, _ = take_items(session, 1, 0)
    drawn = session.rollouts.student(items)
    batches = micro_batches(session, items=items, drawn=drawn)
    assert [sorted(batch.terms) for batch in batches] == [["token"]] * 3 + [["supervised"]] * 3
    weights, counts = session.distiller.objective.weights(batches, total=session.world.sum)
    for name in ("token", "supervised"):
        total = sum(float(weight[name].sum()) for weight in weights if name in weight)
        assert total == pytest.approx(1.0, abs=1e-6)
    assert counts.tokens["supervised"] == session.rollouts.reference(items).num_scored


def _as_references(session: Session) -> list[Any]:
    """The student's own answers of a step, as rows of a corpus."""
    items, _ = take_items(session, 1, 0)
    drawn = session.rollouts.student(items)
    rows = []
    for place, (key, row) in enumerate(items):
        length = int(drawn.lengths[place])
        tokens, flags = (field[place, :length].tolist() for field in (drawn.tokens, drawn.is_response))
        answer = EncodedRow(id=row.id, prompt=row.prompt, tokens=tuple(tokens), is_response=tuple(flags))
        rows.append((key, answer))
    return rows


def test_drawn_and_fixed_rows_of_the_same_tokens_are_one(models: Models, tmp_path: Path) -> None:
    """(x, y) learned as the student's draw and as the corpus's row: one loss, one gradient, bit for bit."""
    on_policy = opened(recipe(models, "imitkd"), tmp_path / "drawn")
    items, _ = take_items(on_policy, 1, 0)
    drawn = take_step(on_policy, 1, items=items)
    assert set(drawn.drawn.origin) == {"student"}
    off_policy = opened(recipe(models, "kd"), tmp_path / "fixed")
    fixed = take_step(off_policy, 1, items=tuple(_as_references(on_policy)))
    assert set(fixed.drawn.origin) == {"reference"}
    assert drawn.row["loss"] == fixed.row["loss"]
    assert drawn.row["tokens"] == fixed.row["tokens"]
    left, right = gradients(on_policy), gradients(off_policy)
    assert left.keys() == right.keys()
    assert len(left) > 10
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_a_step_may_be_taken_again_until_the_weights_move(models: Models, tmp_path: Path) -> None:
    session = opened(recipe(models, "gkd", method=MIXED), tmp_path / "run")
    items, _ = take_items(session, 1, 0)
    before = {name: value.detach().clone() for name, value in session.pair.student.named_parameters()}
    first = take_step(session, 1, items=items)
    again = take_step(session, 1, items=items)
    assert first.row["loss"] == again.row["loss"]
    assert all(torch.equal(value, before[name]) for name, value in session.pair.student.named_parameters())
    moved = move_weights(session, again)
    assert moved.row["time"]["seconds"] > again.row["time"]["seconds"]
    assert not torch.equal(session.pair.student.lm_head.weight, before["lm_head.weight"])


def test_what_is_scored_is_the_response_and_nothing_else(models: Models, tmp_path: Path) -> None:
    session = opened(recipe(models, "sft"), tmp_path / "run")
    items, _ = take_items(session, 1, 0)
    sequences = session.rollouts.reference(items)
    where = scored_tokens(sequences)
    stop = max(session.pair.stop_ids)
    ends = [int(where.tokens[where.rows == row][-1]) for row in range(len(items))]
    assert ends == [stop] * len(items), "the end-of-turn token is learned"
    for row, (_, encoded) in enumerate(items):
        assert where.tokens[where.rows == row].tolist() == list(encoded.tokens[len(encoded.prompt) :])
