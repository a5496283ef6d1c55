"""Tiny runs for the tests of training: models on disk, recipes, an injected kill, and what must be equal afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limbeck.config import Recipe
from limbeck.losses.objective import Objective
from limbeck.models import Pair
from limbeck.testing import save_tiny
from limbeck.training import Run, checkpoint, loop, train
from limbeck.training.rundir import CLIP_NETWORK
from limbeck.training.session import Session, open_session
from limbeck.training.world import World

torch.set_num_threads(1)

ROWS = [
    {"prompt": f"say {'la' * (i % 5 + 1)} {i}", "completion": "la" * (i % 5 + 1) + f" {i}" * (i % 3)} for i in range(24)
]


class Killed(BaseException):
    """Stands for SIGKILL: nothing that a program catches may catch it."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """Folders of tiny models."""

    teacher: str
    student: str
    with_dropout: str

    @classmethod
    def save(cls, folder: Path) -> Models:
        save_tiny(folder / "teacher", seed=1, layers=3, vocab_size=272)
        save_tiny(folder / "student", seed=2)
        save_tiny(folder / "gpt2", architecture="gpt2", seed=3)
        return cls(teacher=str(folder / "teacher"), student=str(folder / "student"), with_dropout=str(folder / "gpt2"))


def recipe(folders: Models, base: str, /, **sections: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of six steps with a validation, and so a checkpoint, at steps 3 and 6; sections are laid over it."""
    named = {"student": folders.student, "device": "cpu", **({} if base == "sft" else {"teacher": folders.teacher})}
    standard: dict[str, dict[str, Any]] = {
        "method": {"base": base},
        "models": named,
        "data": {"max_prompt": 48, "max_length": 64, "valid": 4},
        "sampling": {"max_new_tokens": 5},
        "train": {"steps": 6, "batch_rows": 6, "micro_rows": 4, "learning_rate": 2e-3},
        "validate": {"every": 3, "rows": 4},
    }
    return {name: {**values, **sections.get(name, {})} for name, values in standard.items()} | {
        name: dict(values) for name, values in sections.items() if name not in standard
    }


def start(settings: Mapping[str, Any], run: Path, *overrides: str, resume: bool = False, rows: Any = ROWS) -> Run:
    """Train into a folder."""
    return train({**settings, "run": str(run)}, *overrides, rows=rows, resume=resume)


def kill_before(patch: pytest.MonkeyPatch, name: str, *, call: int, module: Any = loop) -> None:
    """Raise `Killed` instead of the `call`-th call (from 1) of a function that a module uses."""
    whole, calls = getattr(module, name), iter(range(1, 10**9))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return whole(*args, **kwargs)

    patch.setattr(module, name, counted)


def start_and_kill(
    settings: Mapping[str, Any],
    run: Path,
    *overrides: str,
    before: str = "take_step",
    call: int,
    module: Any = loop,
    resume: bool = False,
    rows: Any = ROWS,
) -> None:
    """Train into a folder until `kill_before` strikes."""
    with pytest.MonkeyPatch.context() as patch:
        kill_before(patch, before, call=call, module=module)
        with pytest.raises(Killed):
            start(settings, run, *overrides, resume=resume, rows=rows)


def metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without their times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the last checkpoint: weights, optimizer, and what the source remembers."""
    folder = run / "checkpoints" / (run / "checkpoints" / "latest").read_text()
    weights, moments = (load_file(folder / f"{name}.safetensors") for name in ("trainable", "optimizer"))
    assert weights
    assert moments
    source = load_file(folder / "source.safetensors") if (folder / "source.safetensors").exists() else {}
    return {**{f"weight {name}": value for name, value in weights.items()}, **moments, **source}


def listing(run: Path) -> list[str]:
    """The names of all files of a run."""
    return sorted(str(path.relative_to(run)) for path in run.rglob("*"))


def contents(run: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder with the time that it was written: equal only if nothing touched it."""
    files = [path for path in run.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, logs, answers and the student are equal bit for bit, and so are the names of all files."""
    assert listing(one) == listing(other)
    assert metrics(one) == metrics(other)
    left, right = tensors(one), tensors(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name
    for name in listing(one):
        is_log = name in ("samples.jsonl", "tokens.jsonl") or name.startswith("validation/")
        if is_log or name.endswith(("model.safetensors", CLIP_NETWORK)):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    left_state, right_state = state(one), state(other)
    # Times have different lengths in the logs.
    assert left_state.pop("logs").keys() == right_state.pop("logs").keys()
    assert left_state == right_state


def state(run: Path) -> dict[str, Any]:
    """What the last checkpoint holds beside tensors."""
    folder = run / "checkpoints" / (run / "checkpoints" / "latest").read_text()
    found: dict[str, Any] = json.loads((folder / "state.json").read_text())["state"]
    return found


def in_float64(patch: pytest.MonkeyPatch) -> None:
    """Every run from here on is computed in float64, clip networks too, so that only mathematics can differ."""
    whole = Pair.load.__func__  # type: ignore[attr-defined]

    def doubled(cls: type[Pair], **settings: Any) -> Pair:
        pair: Pair = whole(cls, **settings)
        pair.student.double()
        if pair.teacher is not None:
            pair.teacher.double()
        return pair

    built = Objective.built

    def doubled_terms(objective: Objective, **settings: Any) -> Objective:
        found = built(objective, **settings)
        for term in found.terms.values():
            if isinstance(term, torch.nn.Module):
                term.double()
        return found

    patch.setattr(Pair, "load", classmethod(doubled))
    patch.setattr(Objective, "built", doubled_terms)


def opened(settings: Mapping[str, Any], run: Path, *overrides: str) -> Session:
    """A session that is ready to take steps, without a run directory."""
    whole = Recipe.load({**settings, "run": str(run)}, list(overrides))
    world = World.start(device="cpu", strategy="auto")
    return open_session(whole, world=world, rows=ROWS, recorded={})


def gradients(session: Session) -> dict[str, torch.Tensor]:
    """The gradient of every trained parameter that has one."""
    found = checkpoint.trainable(session.distiller)
    return {name: p.grad for name, p in found.items() if p.grad is not None}
