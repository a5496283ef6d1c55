"""Checkpoints: whichever moment the process dies at, `latest` names a whole one; and no pickle anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from limbeck.errors import CheckpointError
from limbeck.training import checkpoint


class Killed(BaseException):
    """Stands for SIGKILL."""


def _write(folder: Path, step: int, *, value: float | None = None) -> Path:
    tensor = torch.full((3,), float(step) if value is None else value)
    return checkpoint.write(
        folder,
        step=step,
        recipe=f"# step {step}\n",
        weights={"w": tensor},
        optimizer={"exp_avg/w": tensor + 0.5},
        state={"position": {"step": step}, "pairs": (1, 2)},
    )


def _calls(patch: pytest.MonkeyPatch, die_at: int) -> Iterator[int]:
    """Count everything that `write` asks of the disk; the call number `die_at` is never made."""
    count = iter(range(1, 10**6))
    made: list[int] = []

    def wrap(owner: Any, name: str) -> None:
        whole = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            number = next(count)
            if number == die_at:
                raise Killed
            made.append(number)
            return whole(*args, **kwargs)

        patch.setattr(owner, name, counted)

    for owner, name in [
        (checkpoint, "save_file"),
        (checkpoint, "_sum"),
        (checkpoint, "_flush"),
        (checkpoint.shutil, "rmtree"),
        (os, "replace"),
        (Path, "write_text"),
    ]:
        wrap(owner, name)
    return iter(made)


@pytest.mark.parametrize("before", [[], [2], [1, 2]], ids=["first", "second", "third"])
def test_killed_at_every_call_a_whole_checkpoint_is_there(before: list[int], tmp_path: Path) -> None:
    moments = 0
    for die_at in range(1, 100):
        folder = tmp_path / f"{die_at}"
        for step in before:
            _write(folder, step)
        with pytest.MonkeyPatch.context() as patch:
            _calls(patch, die_at)
            try:
                _write(folder, 3)
                finished = True
            except Killed:
                finished = False
        found = checkpoint.latest(folder)
        step = 0 if found is None else int(found.state["position"]["step"])
        assert step in ({3} if finished else {3, before[-1] if before else 0})
        if found is not None:
            assert found.weights["w"].tolist() == [step] * 3
            assert found.optimizer["exp_avg/w"].tolist() == [step + 0.5] * 3
            assert (found.path / "recipe.yaml").read_text() == f"# step {step}\n"
        if finished:
            break
        moments += 1
        # And it can go on from there.
        checkpoint.tidy(folder, after=step)
        assert not list(folder.glob(".*"))
        _write(folder, 4)
        after = checkpoint.latest(folder)
        assert after is not None
        assert after.state["position"]["step"] == 4
    assert moments > 12
    assert finished


def test_the_files_are_flushed_before_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    flush, replace = checkpoint._flush, os.replace
    monkeypatch.setattr(checkpoint, "_flush", lambda path: (happened.append(path.name), flush(path))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append(f"-> {Path(b).name}"), replace(a, b))[1])
    _write(tmp_path / "checkpoints", 1)
    order = [happened.index(name) for name in (".step-000001.draft", "-> step-000001", ".latest.draft", "-> latest")]
    assert order == sorted(order)
    files = {"trainable.safetensors", "optimizer.safetensors", "state.json", "recipe.yaml"}
    assert files <= set(happened[: happened.index("-> step-000001")])


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    _write(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        _write(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001"]


def test_the_named_step_is_not_written_twice(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    _write(tmp_path, 1, value=9.0)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.weights["w"].tolist() == [1.0] * 3


def test_the_last_two_stay_and_the_order_is_that_of_numbers(tmp_path: Path) -> None:
    for step in (999_998, 999_999, 1_000_000):
        _write(tmp_path, step)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-1000000", "step-999999"]
    checkpoint.keep(tmp_path, last=1)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-1000000"]
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.state["position"]["step"] == 1_000_000


def test_a_format_of_the_future_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 7)
        _write(tmp_path, 1)
    with pytest.raises(CheckpointError, match="has format 7, this Limbeck reads 2"):
        checkpoint.latest(tmp_path)


def test_no_pickle(tmp_path: Path) -> None:
    path = _write(tmp_path, 1)
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json", ".yaml"}


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight


def _trained(seed: int) -> tuple[_Tied, torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(seed)
    module = _Tied()
    with torch.no_grad():
        module.embedding.weight.copy_(torch.randn(5, 4, generator=generator))
    optimizer = torch.optim.AdamW([module.embedding.weight], lr=0.1)
    for _ in range(2):
        module.embedding.weight.grad = torch.randn(5, 4, generator=generator)
        optimizer.step()
    return module, optimizer


def test_what_is_collected_is_installed(tmp_path: Path) -> None:
    module, optimizer = _trained(0)
    weights, moments = checkpoint.collect(module, optimizer)
    assert list(weights) == ["embedding.weight"], "trainable parameters only, tied ones once"
    path = checkpoint.write(tmp_path, step=2, recipe="", weights=weights, optimizer=moments, state={})
    other, other_optimizer = _trained(1)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    checkpoint.install(other, other_optimizer, found)
    assert other.head.weight is other.embedding.weight
    for each, each_optimizer in ((module, optimizer), (other, other_optimizer)):
        each.embedding.weight.grad = torch.ones(5, 4)
        each_optimizer.step()
    assert torch.equal(module.embedding.weight, other.embedding.weight)
    # The file is the checkpoint's, not the optimizer's memory.
    assert torch.equal(
        load_file(path / "optimizer.safetensors")["exp_avg/embedding.weight"],
        found.optimizer["exp_avg/embedding.weight"],
    )


def test_another_model_is_refused(tmp_path: Path) -> None:
    module, optimizer = _trained(0)
    _, moments = checkpoint.collect(module, optimizer)
    before = module.embedding.weight.detach().clone()
    for other, says in (
        ({"other": torch.ones(2)}, "for instance embedding.weight, other"),
        ({"embedding.weight": torch.ones(5, 3)}, r"\[5, 3\] there, \[5, 4\] here"),
    ):
        found = checkpoint.Checkpoint(path=tmp_path, weights=other, optimizer=moments, state={})
        with pytest.raises(CheckpointError, match=says):
            checkpoint.install(module, optimizer, found)
    assert torch.equal(module.embedding.weight, before)


def test_what_a_source_remembers_is_a_file_of_its_own(tmp_path: Path) -> None:
    given = {"tokens": torch.arange(6).view(2, 3), "attended": torch.tensor([True, False]), "logp": torch.tensor([0.5])}
    written = checkpoint.write(
        tmp_path, step=1, recipe="# 1\n", weights={"w": torch.ones(1)}, optimizer={"m/w": torch.ones(1)},
        state={"source": {"first": 1, "of": given}, "logs": {}},
    )  # fmt: skip
    found = checkpoint.latest(tmp_path)
    assert found is not None
    held = found.state["source"]["of"]
    assert (found.state["source"]["first"], found.state["logs"], held.keys()) == (1, {}, given.keys())
    for name, tensor in given.items():
        assert held[name].dtype == tensor.dtype
        assert torch.equal(held[name], tensor)
    file = written / "source.safetensors"
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)
    with pytest.raises(CheckpointError, match=r"corrupt: source\.safetensors"):
        checkpoint.latest(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.latest(tmp_path)


def test_a_source_without_tensors_leaves_no_file(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    assert checkpoint.latest(tmp_path) is not None
    assert not list(tmp_path.glob("*/source.safetensors"))
