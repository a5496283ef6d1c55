"""A student spread over two ranks is revised as a whole one is, however unlike the rows of the ranks are."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECONDS = 300
ARCHITECTURES = ("llama", "gemma3")
# Rows of each rank: many and one; none on one side; only rows that nobody looks at.
SHARES = ([[0, 1, 2, 3, 4], [5]], [[], [0, 3]], [[5, 2, 1], [6, 7]])
# The detector of each share: whatever it needs, ranks stay in step.
DETECTORS = ("attention", "kld-argmax", "random")

# In one worker, so that the processes are started once.
pytestmark = pytest.mark.distributed


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("sharded")
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    shared |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [each.communicate(timeout=SECONDS)[0] for each in ranks]
    finally:
        for each in ranks:
            each.kill()
    assert [each.returncode for each in ranks] == [0, 0], "\n".join(outputs)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("share", range(len(SHARES)))
def test_each_rank_revises_its_rows_as_one_process_does(found, architecture: str, share: int) -> None:
    for rank, each in enumerate(found):
        case = each[f"{architecture}-{share}"]
        assert case["sharded"] == case["whole"]
        assert len(case["whole"]["rows"]) == len(SHARES[share][rank])
    assert any(each[f"{architecture}-{share}"]["whole"]["corrections"] for each in found)


def test_weights_are_shards_again_afterwards_and_the_views_head_is_whole(found) -> None:
    for each in found:
        assert each["is_sharded_afterwards"] == [True] * len(ARCHITECTURES)
        assert max(each["differences"]) < 1e-9


def _main(folder: Path) -> None:
    from limbeck.testing import tiny_pair
    from limbeck.training.world import World

    world = World.start(device="cpu", strategy="fsdp")
    results: dict[str, Any] = {"is_sharded_afterwards": [], "differences": []}
    for architecture in ARCHITECTURES:
        pair = tiny_pair(architecture, teacher_architecture="qwen3")
        pair.student.double()
        pair.teacher.double()
        _compare(architecture, pair, world, results)
    (folder / f"{world.rank}.json").write_text(json.dumps(results))


def _compare(architecture: str, pair: Any, world: Any, results: dict[str, Any]) -> None:
    from torch.distributed.tensor import DTensor

    from limbeck.losses.match import Likelihood
    from limbeck.losses.objective import Objective
    from limbeck.models.decoders import CausalDecoder
    from limbeck.models.scoring import Scorer, scored_tokens
    from limbeck.training.distiller import Distiller

    teacher = Scorer.of(pair.teacher, vocabulary=pair.vocabulary)
    whole = CausalDecoder(Scorer.of(copy.deepcopy(pair.student), vocabulary=pair.vocabulary))
    scorer = Scorer.of(pair.student, vocabulary=pair.vocabulary)
    distiller = Distiller(scorer, Objective.of(Likelihood(), scales={"token": 1.0}, reduction="token"), chunk=7)
    world.wrap(distiller)
    sharded = world.decoder(distiller)
    for number, share in enumerate(SHARES):
        drawn = _drawn(pair).rows(share[world.rank])
        with world.decoding(sharded):
            revised = _revised(drawn, sharded, teacher, pair, kind=DETECTORS[number])
        alone = _revised(drawn, whole, teacher, pair, kind=DETECTORS[number])
        results[f"{architecture}-{number}"] = {"sharded": revised, "whole": alone}
    rows = _drawn(pair).rows([world.rank])
    with world.decoding(sharded):
        views = [decoder.view(rows, scored_tokens(rows)) for decoder in (sharded, whole)]
    first, second = (view.log_probabilities(slice(0, 4)).exp() for view in views)
    results["differences"].append(float((first - second).abs().max()))
    results["is_sharded_afterwards"].append(all(isinstance(each, DTensor) for each in distiller.parameters()))


def _drawn(pair: Any) -> Any:
    from limbeck.types import pack_rows

    responses = [[80 + (7 * row * i) % 11 for i in range(3 + row % 4)] for row in range(8)]
    return pack_rows(
        [[257, 65 + row, *response] for row, response in enumerate(responses)],
        [[False, False, *[True] * len(response)] for response in responses],
        origin=["student"] * 6 + ["reference"] * 2,
        keys=[(0, row) for row in range(8)],
        pad_id=pair.pad_id,
        limits=[10] * 8,
    )


def _revised(drawn: Any, decoder: Any, teacher: Any, pair: Any, *, kind: str) -> dict[str, Any]:
    import torch

    from limbeck.models.sampling import Sampling
    from limbeck.revision import DETECTORS, SCRG
    from limbeck.seeds import Seeds
    from limbeck.sequences import Rollouts

    rollouts = Rollouts(
        decoder=decoder,
        sampling=Sampling(stop_ids=pair.stop_ids, banned_ids=frozenset(pair.vocabulary.dropped_student)),
        max_new_tokens=8,
        max_length=64,
        group_rows=2,
        pad_id=pair.pad_id,
        seeds=Seeds(5),
        device=torch.device("cpu"),
    )
    scrg = SCRG(detector=DETECTORS[kind](), rounds=2)
    revision = scrg.revise(drawn, rollouts=rollouts, student=decoder, teacher=teacher, chunk=3)
    lengths = revision.sequences.lengths.tolist()
    rows = [row[:length] for row, length in zip(revision.sequences.tokens.tolist(), lengths, strict=True)]
    return {"rows": rows, "corrections": [[each.row, each.position, each.round] for each in revision.corrections]}


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
