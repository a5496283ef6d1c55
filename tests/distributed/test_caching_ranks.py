"""Two processes keep the teacher's work each for itself: one process's losses, and the same bits after a stop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rank_kit import Place
from safetensors.torch import load_file

pytestmark = pytest.mark.distributed


def _recipe(place: Place, run: str, *, kind: str) -> dict[str, Any]:
    """Two epochs of three steps."""
    recipe = place.recipe(run, method="kd", train={"strategy": "ddp"})
    recipe["data"]["max_rows"] = 24
    return {**recipe, "cache": {"kind": kind}}


@pytest.mark.slow
def test_two_ranks_keep_their_own_rows_and_resume_bit_for_bit(place: Place) -> None:
    recipes = {name: _recipe(place, f"cached-{name}", kind="disk") for name in ("whole", "cut")}
    plan = {
        "plain": {"kind": "train", "recipe": _recipe(place, "cached-plain", kind="off")},
        "whole": {"kind": "train", "recipe": recipes["whole"]},
        "cut": {"kind": "train", "recipe": recipes["cut"], "happens": {"sigterm": 5}},
        "resumed": {"kind": "train", "recipe": recipes["cut"], "resume": True},
    }
    launch = place.launch(plan, name="launch-cached")
    assert [each["code"] for each in launch.of("cut")] == [75, 75]
    assert "each process keeps the rows that it has read itself" in launch.outputs[0]
    place.assert_same("cached-whole", "cached-cut")
    for kept, plain in zip(place.metrics("cached-whole"), place.metrics("cached-plain"), strict=True):
        for key in {"loss", "cross_entropy", "teacher_cross_entropy"} & plain.keys():
            assert kept[key] == pytest.approx(plain[key], abs=1e-6), key
    held = load_file(place.path / "cached-whole" / "checkpoints" / "step-000006" / "source.safetensors")
    for rank in ("0", "1"):
        # 12 rows of the first epoch, some of the other's from the second on, and half of the validation rows.
        assert int(held[f"teacher_cache/{rank}/kept"].sum()) > 12 + 16
        assert not torch.equal(held["teacher_cache/0/tokens"], held["teacher_cache/1/tokens"])
