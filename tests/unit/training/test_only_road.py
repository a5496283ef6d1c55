"""The student's body is called inside `Distiller.forward` and nowhere else while gradients are wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.models.scoring import Scorer, causal
from limbeck.training import Distiller, loop
from limbeck.training.session import Session
from training_kit import Models, recipe, start

METHODS = {
    "sft": {},
    "kd": {"models": {"gradient_checkpointing": True}},
    "imitkd": {},
    "gkd": {"method": {"weights": {"supervised": 1}}},
    "mgsr": {},
    "lora": {"models": {"lora": {"rank": 2}}},
}


class Road:
    """Counts the calls of the student's body and head by whether gradients were on, and whether it was on the road."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.inside = 0
        self.on_the_road = 0
        self.without_gradient = 0
        forward, opened = Distiller.forward, loop.open_session

        def marked(distiller: Distiller, *args: Any, **kwargs: Any) -> Any:
            self.inside += 1
            try:
                return forward(distiller, *args, **kwargs)
            finally:
                self.inside -= 1

        def hooked(*args: Any, **kwargs: Any) -> Session:
            session = opened(*args, **kwargs)
            body = causal(session.pair.student).base_model
            body.register_forward_pre_hook(self._called)
            causal(session.pair.student).get_output_embeddings().register_forward_pre_hook(self._called)
            return session

        patch.setattr(Distiller, "forward", marked)
        patch.setattr(loop, "open_session", hooked)

    def _called(self, module: Any, inputs: Any) -> None:
        if not torch.is_grad_enabled():
            self.without_gradient += 1
            return
        assert self.inside, f"{type(module).__name__} was called for gradients outside Distiller.forward"
        self.on_the_road += 1


@pytest.mark.parametrize("name", sorted(METHODS))
def test_nobody_else_calls_the_body(name: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = "sft" if name == "lora" else name
    settings = recipe(models, base, train={"steps": 2}, validate={"every": 2}, **METHODS[name])
    road = Road(monkeypatch)
    start(settings, tmp_path / "run")
    assert road.on_the_road >= 4, "two steps of two micro-batches"
    assert road.without_gradient > 0, "validation and drawing"


def test_the_test_would_see_it(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    road, take_step = Road(monkeypatch), loop.take_step

    def astray(session: Session, step: int, *, items: Any) -> Any:
        Scorer.states(session.student, session.rollouts.reference(items))
        return take_step(session, step, items=items)

    monkeypatch.setattr(loop, "take_step", astray)
    with pytest.raises(AssertionError, match=r"outside Distiller\.forward"):
        start(recipe(models, "sft"), tmp_path / "run")
    assert road.on_the_road == 0
