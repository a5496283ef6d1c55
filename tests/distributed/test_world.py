"""What a process takes itself for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType

from limbeck.errors import ConfigError, LostRank
from limbeck.training import world
from limbeck.training.world import World, lost_rank_stops


def test_one_process_needs_no_launcher_and_nothing_of_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "Accelerator", None)
    alone = World.start(device="cpu")
    assert (alone.rank, alone.size, alone.strategy, alone.device) == (0, 1, "none", torch.device("cpu"))
    assert alone.gather([3]) == [3]
    assert alone.any(True)
    assert not alone.any(False)


def test_one_process_cannot_share_weights() -> None:
    with pytest.raises(ConfigError, match="only one process runs"):
        World.start(device="cpu", strategy="fsdp")


@pytest.mark.parametrize(
    ("variable", "found", "kind"),
    [
        # Two processes that each believed to be alone would write one run.
        ("WORLD_SIZE", 1, DistributedType.NO),
        ("OMPI_COMM_WORLD_SIZE", 1, DistributedType.NO),
        # Weights that something else shards as well.
        ("WORLD_SIZE", 2, DistributedType.FSDP),
        ("WORLD_SIZE", 2, DistributedType.DEEPSPEED),
    ],
)
def test_another_world_than_was_launched_is_refused(
    variable: str, found: int, kind: DistributedType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = SimpleNamespace(num_processes=found, distributed_type=kind)
    monkeypatch.setattr(world, "Accelerator", lambda **settings: seen)
    monkeypatch.setenv(variable, "2")
    with pytest.raises(ConfigError, match="2 processes were started"):
        World.start(device="cpu")


def test_a_lost_connection_is_a_stop_and_nothing_else_is(tmp_path: Path) -> None:
    with pytest.raises(LostRank, match="go on from the last checkpoint"), lost_rank_stops(tmp_path):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:11166")
    with pytest.raises(RuntimeError, match="shapes"), lost_rank_stops(tmp_path):
        raise RuntimeError("shapes cannot be multiplied")
    with pytest.raises(ConfigError, match="by peer"), lost_rank_stops(tmp_path):
        raise ConfigError("said by peer")
