"""What is stopped, killed or out of memory on one of several processes goes on bit for bit, and nobody hangs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from rank_kit import RESUMED, Launch, Place, environment

import limbeck
from limbeck.errors import ConfigError

pytestmark = pytest.mark.distributed


def test_a_stopped_run_goes_on_bit_for_bit(place: Place, ranks: Launch, strategy: str) -> None:
    for each in ranks.of("stopped"):
        assert (each["code"], each["error"]) == (75, "Stopped"), each
        assert "stopped after step 3 of 6" in each["message"]
    assert [each["code"] for each in ranks.of("resumed")] == [0, 0]
    place.assert_same(f"{strategy}-stopped", f"{strategy}-gkd")


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED)
def test_clip_networks_learned_spans_and_plain_text_go_on_bit_for_bit(
    place: Place, ranks: Launch, strategy: str, case: str
) -> None:
    assert [each["code"] for each in ranks.of(f"stopped-{case}")] == [75, 75]
    assert [each["code"] for each in ranks.of(f"resumed-{case}")] == [0, 0]
    place.assert_same(f"{strategy}-stopped-{case}", f"{strategy}-{case}")


@pytest.mark.usefixtures("fsdp")
def test_a_killed_run_goes_on_bit_for_bit_under_torchrun(place: Place) -> None:
    run = place.path / "fsdp-killed"
    assert not (run / "student").exists()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "limbeck", "train", str(run), "--resume"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"run: {run}", "best: step 6"]
    place.assert_same("fsdp-killed", "fsdp-gkd")


def test_the_others_stop_where_one_is_lost(place: Place, ddp: Launch, fsdp: Launch) -> None:
    first, second = ddp.of("memory")
    assert "out of memory at step 4 on rank 1" in second["message"]
    (killed,) = fsdp.of("killed")
    for each, run in ((first, "ddp-memory"), (killed, "fsdp-killed")):
        assert (each["code"], each["error"]) == (75, "LostRank"), each
        assert "another process of this run has ended" in each["message"]
        assert f"torchrun --nproc-per-node 2 -m limbeck train {place.path / run} --resume" in each["message"]


@pytest.mark.usefixtures("ranks")
def test_one_process_refuses_the_run_of_two(place: Place, strategy: str) -> None:
    wanted = "only one process runs" if strategy == "fsdp" else "started on 2 processes"
    with pytest.raises(ConfigError, match=wanted):
        limbeck.train(place.path / f"{strategy}-gkd", resume=True)


@pytest.mark.slow
def test_three_ranks_add_in_the_same_order_after_a_stop(place: Place) -> None:
    """DDP sorts its buckets after the first backward of a process, and a sum of three numbers depends on the order."""
    case = {"kind": "train", "recipe": place.recipe_of("sft", run="three", batch_rows=6, strategy="ddp")}
    stopped = {"kind": "train", "recipe": place.recipe_of("sft", run="three-stopped", batch_rows=6, strategy="ddp")}
    plan = {"whole": case, "stopped": {**stopped, "happens": {"sigterm": 3}}, "resumed": {**stopped, "resume": True}}
    place.launch(plan, name="launch-three", codes=(0, 0, 0))
    place.assert_same("three-stopped", "three")
