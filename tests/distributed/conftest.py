"""The folder that all tests with several processes share, and the launches that most of them look at."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rank_kit import CASES, RESUMED, Launch, Place

import limbeck
from limbeck.testing import save_tiny, save_toy, toy_examples


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("ranks")
    save_tiny(folder / "student")
    save_tiny(folder / "tied", architecture="gemma3")
    save_tiny(folder / "teacher", seed=1, layers=3)
    save_toy(folder / "train.jsonl", 48)
    save_toy(folder / "valid.jsonl", 33, seed=5)
    texts = [example.references[0] + " " + example.messages[0].content for example in toy_examples(13, seed=7)]
    (folder / "plain.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Place(folder)


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Those that a test of this session looks at: slow ones are not run where their tests are not."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = {"sft", "gkd", *(str(given["case"]) for given in params if "case" in given)}
    return tuple(case for case in CASES if case in wanted)


@pytest.fixture(scope="session")
def alone(place: Place, cases: tuple[str, ...]) -> None:
    """Every case on one process; its micro-batches and chunks are others than those of the ranks."""
    for case in cases:
        whole = place.recipe_of(case, run=f"alone-{case}", micro_rows=8, chunk="auto")
        limbeck.train({**whole, "models": {**whole["models"], "gradient_checkpointing": False}})


@pytest.fixture(scope="session")
def ddp(place: Place, cases: tuple[str, ...]) -> Launch:
    """At its end the second rank runs out of memory."""
    plan = _plan(place, "ddp", cases)
    last = {"kind": "train", "recipe": place.recipe_of("gkd", run="ddp-memory", strategy="ddp")}
    plan["memory"] = {**last, "happens": {"no memory": 4}, "exits": True}
    return place.launch(plan, name="launch-ddp", codes=(75, 75))


@pytest.fixture(scope="session")
def fsdp(place: Place, cases: tuple[str, ...]) -> Launch:
    """At its end the second rank is killed."""
    plan = _plan(place, "fsdp", cases)
    last = {"kind": "train", "recipe": place.recipe_of("gkd", run="fsdp-killed", strategy="fsdp", checkpoint_minutes=0)}
    plan["killed"] = {**last, "happens": {"sigkill": 4}, "exits": True}
    return place.launch(plan, name="launch-fsdp", codes=(75, -9))


@pytest.fixture(params=["ddp", "fsdp"])
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ranks(request: pytest.FixtureRequest, strategy: str) -> Launch:
    launch = request.getfixturevalue(strategy)
    assert isinstance(launch, Launch)
    return launch


def _plan(place: Place, strategy: str, cases: tuple[str, ...]) -> dict[str, Any]:
    def training(case: str, run: str, **train: Any) -> dict[str, Any]:
        return {"kind": "train", "recipe": place.recipe_of(case, run=f"{strategy}-{run}", strategy=strategy, **train)}

    looked_at = training("gkd", "inspected")["recipe"]
    return {
        "inspect": {"kind": "inspect", "recipe": {**looked_at, "models": {**looked_at["models"], "device": "auto"}}},
        **{case: training(case, case) for case in cases},
        "stopped": {**training("gkd", "stopped"), "happens": {"sigterm": 3}},
        "resumed": {**training("gkd", "stopped"), "resume": True},
        **{
            f"{what}-{case}": {**training(case, f"stopped-{case}"), **changed}
            for case in cases
            if case in RESUMED
            for what, changed in (("stopped", {"happens": {"sigterm": 3}}), ("resumed", {"resume": True}))
        },
        "taken": training("sft", "sft"),
        "uneven": training("sft", "uneven", batch_rows=7),
    }
