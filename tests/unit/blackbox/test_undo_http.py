"""The loop with a language model's place taken by a server on loopback that adds: calls, costs, budgets, outages."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.blackbox.artefacts import read_json, read_rows
from limbeck.blackbox.ledger import Ledger
from limbeck.blackbox.loop import run_undo
from limbeck.blackbox.planning import plan
from limbeck.blackbox.replaying import replay
from limbeck.errors import ConfigError, LimbeckError, Stopped
from undo_kit import undo_values


class Adder:
    """Solves the last sum of a prompt; in rounds with another word. `fails` takes calls away: a status and a body."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[str] = []
        self.fails: list[tuple[int, str]] = []
        adder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                adder.asked.append("\n".join(turn["content"] for turn in body["messages"]))
                status, text = adder.fails.pop(0) if adder.fails else (200, adder.answer(body["messages"]))
                self.send_response(status)
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, turns: list[dict[str, str]]) -> str:
        left, right = map(int, re.findall(r"^(\d+)\+(\d+)\?$", turns[-1]["content"], re.MULTILINE)[-1])
        word = "so" if len(turns) == 1 else "thus"
        said = f"{left} + {right} = {left + right}, {word} it is {left + right}\n#### {left + right}"
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        return json.dumps({"choices": [{"message": {"content": said}, "finish_reason": "stop"}], "usage": usage})

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def adder() -> Iterator[Adder]:
    running = Adder()
    yield running
    running.close()


def quiet(line: str) -> None:
    pass


def values(adder: Adder, folder: Path, **changes: Any) -> dict[str, Any]:
    made = undo_values(folder, **changes)
    made["teacher"] = {"kind": "http", "url": adder.url, "model": "adder", "attempts": 2, "first_wait": 0.0}
    made["teacher"] |= {"price_prompt": 1.0, "price_completion": 10.0}
    return made


def test_a_budget_ends_the_loop_with_its_best_round_and_more_goes_on(adder: Adder, tmp_path: Path) -> None:
    recipe = values(adder, tmp_path)
    assert plan(recipe).calls == 52
    with pytest.raises(Stopped, match=r"20 calls of 20[\s\S]*undo resume"):
        run_undo(recipe, "budget.calls=20", "teacher.concurrency=1", say=quiet)
    assert len(adder.asked) == 20
    run = run_undo(recipe, "budget.calls=30", "teacher.concurrency=1", resume=True, say=quiet)
    assert len(adder.asked) == 30
    assert run.arms["undo-v1"]["reason"] == "the budget is used up: calls"
    assert run.arms["undo-v1"]["rounds"] == ["iter_00"]
    assert not (run.directory / "arms" / "undo-v1" / "iter_01" / "train.jsonl").exists()
    run = run_undo(recipe, resume=True, say=quiet)
    assert len(adder.asked) == 52
    assert run.arms["undo-v1"]["reason"] == "all 1 rounds are done"
    cost = read_json(run.directory / "arms" / "undo-v1" / "iter_01" / "metrics.json")["cost"]
    assert cost == {"calls": 26, "prompt_tokens": 2600, "completion_tokens": 260, "money": 0.0052}
    splits = read_rows(run.directory / "items.jsonl")
    held = [f"\n{row['question']}\n" for row in splits if row["part"] in ("stop", "test")]
    assert not [text for text in adder.asked if any(question in text for question in held)]
    adder.close()
    _, compared = replay(run.directory, out=tmp_path / "again", say=quiet)
    assert len(compared) > 30
    adder.__init__()  # type: ignore[misc]


def test_all_that_was_paid_is_counted_once(adder: Adder, tmp_path: Path) -> None:
    recipe = values(adder, tmp_path, budget={"calls": 36}, controls=["one-shot-long", "format-only", "union", "blind"])
    run = run_undo(recipe, "teacher.concurrency=1", say=quiet).directory
    lines = [line.split(",") for line in (run / "cost.csv").read_text().splitlines()[1:]]
    told = {(arm, number): int(calls) for arm, number, calls, *_ in lines}
    twice = {(arm, "0"): 0 for arm in ("one-shot-long", "format-only", "union")}
    assert told == {("start", "0"): 26, ("undo-v1", "1"): 10, **twice}
    assert sum(float(line[-1]) for line in lines) == pytest.approx(36 * 200e-6)
    page = (run / "report.html").read_text()
    assert "36 calls of the teacher, 3,600 prompt and 360 answer tokens, 0.0072 in the price" in page
    assert "not finished, or of an arm that is not shown" in page
    assert (
        "Against blind: nothing can be told, it came to no round of its own."
        in read_json(run / "report.json")["summary"]
    )


def test_a_run_that_its_budget_ended_is_the_same_when_it_is_resumed_and_replayed(adder: Adder, tmp_path: Path) -> None:
    recipe = values(adder, tmp_path, method={"rounds": 2}, budget={"calls": 60})
    run = run_undo(recipe, "teacher.concurrency=1", say=quiet)
    ended = run.arms["undo-v1"]
    assert (ended["reason"], ended["rounds"]) == (
        "the budget is used up: calls", ["iter_00", "arms/undo-v1/iter_01"],
    )  # fmt: skip
    for calls in (60, 50):
        again = run_undo(recipe, f"budget.calls={calls}", "teacher.concurrency=1", resume=True, say=quiet)
        assert again.arms["undo-v1"] == ended
    assert len(adder.asked) == 60
    _, compared = replay(run.directory, out=tmp_path / "again", recipe=_budget(run.directory, 60), say=quiet)
    assert "arms/undo-v1/iter_01/student.json" in compared


def _budget(run: Path, calls: int) -> Any:
    from limbeck.blackbox.recipes import UndoRecipe

    return UndoRecipe.load(run, [f"budget.calls={calls}"])


def test_an_outage_is_resumable_and_a_server_that_never_was_is_bad_input(adder: Adder, tmp_path: Path) -> None:
    recipe = values(adder, tmp_path)
    adder.fails = [(429, "slow"), (503, "busy")]
    with pytest.raises(Stopped, match=r"gave no answer in 2 attempts: 503[\s\S]*limbeck undo resume"):
        run_undo(recipe, "teacher.concurrency=1", say=quiet)
    nowhere = {**recipe["teacher"], "url": "http://127.0.0.1:9/v1"}
    with pytest.raises(ConfigError, match="does the server run"):
        run_undo({**recipe, "teacher": nowhere, "run": str(tmp_path / "nowhere")}, say=quiet)
    adder.fails = [(401, "who")]
    with pytest.raises(ConfigError, match=r"refuses the key \(401\)"):
        run_undo(recipe, "teacher.concurrency=1", resume=True, say=quiet)


def test_a_server_that_goes_away_or_a_credit_that_ends_in_a_later_round_is_resumable(
    adder: Adder, tmp_path: Path
) -> None:
    recipe = values(adder, tmp_path)
    answered = adder.answer

    def credit_for_the_first_round(turns: list[dict[str, str]]) -> str:
        if len(adder.asked) == 26:
            adder.fails = [(402, "Insufficient Balance")]
        return answered(turns)

    adder.answer = credit_for_the_first_round  # type: ignore[method-assign]
    with pytest.raises(Stopped, match=r"credit or quota is used up[\s\S]*limbeck undo resume"):
        run_undo(recipe, "teacher.concurrency=1", say=quiet)
    assert len(adder.asked) == 27
    adder.close()
    with pytest.raises(Stopped, match=r"gave no answer in 2 attempts[\s\S]*limbeck undo resume"):
        run_undo(recipe, "teacher.concurrency=1", resume=True, say=quiet)
    adder.__init__(adder.port)  # type: ignore[misc]
    run = run_undo(recipe, "teacher.concurrency=1", resume=True, say=quiet)
    assert len(adder.asked) == 26
    assert run.arms["undo-v1"]["reason"] == "all 1 rounds are done"
    assert not read_rows(run.directory / "arms" / "undo-v1" / "iter_01" / "rejected.jsonl")


@pytest.mark.parametrize(
    ("method", "policy", "calls"),
    [
        ({"feedback": "hybrid", "candidates": 2}, "resample", {"start": 52, "undo-v1": 29, "blind": 28}),
        ({"feedback": "summary", "scope": "none"}, "fixed", {"start": 26, "undo-v1": 1}),
    ],
)
def test_a_plan_counts_the_calls_of_a_run(
    method: dict[str, Any], policy: str, calls: dict[str, int], adder: Adder, tmp_path: Path
) -> None:
    recipe = values(adder, tmp_path, method=method, task={"probe_policy": policy})
    recipe["controls"] = [name for name in calls if name == "blind"]
    planned = plan(recipe)
    run = run_undo(recipe, say=quiet)
    with Ledger.open(run.directory / "calls.sqlite") as ledger:
        asked = {
            each.arm: ledger.spent(stage="start" if each.round == 0 else f"{each.arm}/{each.round}").calls
            for each in planned.stages
        }
        assert planned.calls == ledger.spent().calls == len(adder.asked)
    assert {each.arm: each.calls for each in planned.stages} == asked
    assert asked == calls


class Killed(BaseException):
    """What a test raises in the place of SIGKILL: nothing in the library catches it."""


def test_a_kill_between_any_two_calls_pays_nothing_twice(
    adder: Adder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after 1, 2, 3, … further answers were recorded; what the server was asked in all is every call once."""
    recipe = values(adder, tmp_path, method={"base": "one-shot", "rounds": 0})
    real, kills = Ledger.record, 0
    for more in range(1, 20):
        left = more

        def record(ledger: Ledger, *given: Any, **named: Any) -> None:
            nonlocal left
            real(ledger, *given, **named)
            left -= 1
            if not left:
                raise Killed

        monkeypatch.setattr(Ledger, "record", record)
        try:
            run_undo(recipe, "teacher.concurrency=1", resume=bool(kills), say=quiet)
            break
        except Killed:
            kills += 1
    assert kills > 5
    assert len(adder.asked) == len(set(adder.asked)) == 26


def test_nothing_but_refusals_teaches_nothing(adder: Adder, tmp_path: Path) -> None:
    from limbeck.errors import NothingToLearn

    recipe = values(adder, tmp_path, student={"scratch": None, "model": str(_tiny(tmp_path)), "max_new_tokens": 100})
    adder.fails = [(422, "no"), (400, "maximum context length is 5"), *[(200, '{"choices": [{"message": {}}]}')] * 200]
    with pytest.raises(NothingToLearn, match=r"rejected.jsonl"):
        run_undo(recipe, "teacher.concurrency=1", say=quiet)
    reasons = {row["reason"] for row in read_rows(tmp_path / "run" / "iter_00" / "rejected.jsonl")}
    assert reasons == {"rejected", "context", "empty"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"student": {"max_new_tokens": 250}},
            r"max_prompt 24 and student.max_new_tokens 250 are 274 tokens, but .*256",
        ),
        ({"student": {"device": "cudda"}}, "no device is called 'cudda'"),
        ({"student": {"lora": {"rank": 2, "targets": ["nowhere"]}}}, "LoRA cannot be added"),
        ({"train": {"token_match": {"teacher": "TINY", "divergence": "kl"}}}, "no divergence is called 'kl'"),
        ({"train": {"token_match": {"teacher": "nowhere"}}}, "'nowhere' is no folder"),
    ],
)
def test_a_student_that_cannot_be_trained_is_told_before_the_teacher_is_paid(
    changes: dict[str, Any], message: str, adder: Adder, tmp_path: Path
) -> None:
    tiny = str(_tiny(tmp_path))
    student = {"scratch": None, "model": tiny, "max_new_tokens": 100, **changes.get("student", {})}
    recipe = values(adder, tmp_path, **{**changes, "student": student})
    with pytest.raises(LimbeckError, match=message):
        run_undo(json.loads(json.dumps(recipe).replace("TINY", tiny)), say=quiet)
    assert not adder.asked
    assert not (tmp_path / "run").exists()


def test_a_round_of_few_rows_and_steps_keeps_what_the_recipe_asks_of_a_step(adder: Adder, tmp_path: Path) -> None:
    answered = adder.answer

    def wrong_for_most(turns: list[dict[str, str]]) -> str:
        left, right = map(int, re.findall(r"^(\d+)\+(\d+)\?$", turns[-1]["content"], re.MULTILINE)[-1])
        said = answered(turns)
        return said if left == right else said.replace(str(left + right), "99")

    adder.answer = wrong_for_most  # type: ignore[method-assign]
    train = {"batch_rows": 16, "micro_rows": 16, "warmup": 2, "epochs": 1}
    recipe = values(adder, tmp_path, method={"base": "one-shot", "rounds": None, "retries": 0}, train=train)
    run = run_undo(recipe, say=quiet)
    made = yaml.safe_load((run.directory / "iter_00" / "training" / "recipe.yaml").read_text())["train"]
    num_rows = len(read_rows(run.directory / "iter_00" / "train.jsonl"))
    assert num_rows < 5
    assert (made["steps"], made["batch_rows"], made["micro_rows"], made["warmup"]) == (1, num_rows, num_rows, 0)


def _tiny(folder: Path) -> Path:
    from limbeck.testing import save_tiny

    return save_tiny(folder / "tiny", seed=1)
