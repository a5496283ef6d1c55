"""A student that Limbeck saved answers in lm-evaluation-harness and behind transformers serve, without a network."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from friends_kit import TEXT, logits, train_student
from limbeck.blackbox.asking import Completion, Request, Turn
from limbeck.blackbox.endpoints import Endpoint
from limbeck.blackbox.http_teacher import HttpTeacher
from limbeck.blackbox.ledger import Ledger

_LOOPBACK = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_student(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def with_lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_student(tmp_path_factory.mktemp("lora"), lora=True)


# lm-evaluation-harness

_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
{rest}
metadata: {{version: 1}}
"""
_HARNESS = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager

student, tasks = sys.argv[1:]
found = lm_eval.simple_evaluate(
    model="hf",
    model_args={"pretrained": student, "dtype": "float32"},
    tasks=["limbeck_likely", "limbeck_drawn"],
    task_manager=TaskManager(include_path=tasks, include_defaults=False),
    device="cpu",
    batch_size=2,
    bootstrap_iters=0,
)
rows = {name: [[row["doc"], row["filtered_resps"]] for row in rows] for name, rows in found["samples"].items()}
print(json.dumps({"results": found["results"], "samples": rows}, default=str))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install limbeck[eval]"
)
def test_the_harness_answers_a_local_task(with_lora: Path, tmp_path: Path) -> None:
    student = with_lora / "student"
    pairs = [("3+4=", "seven"), ("Say ab.", "ab"), ("Reverse it: abc", "cba")]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": one, "answer": other}) + "\n" for one, other in pairs))
    drawing = "generation_kwargs: {until: ['\\n\\n'], max_gen_toks: 5, do_sample: false}"
    for task, kind, rest in (
        ("limbeck_likely", "loglikelihood", "metric_list: [{metric: acc}]"),
        ("limbeck_drawn", "generate_until", f"{drawing}\nmetric_list: [{{metric: exact_match}}]"),
    ):
        text = _TASK.format(name=task, file=rows, kind=kind, rest=rest)
        (tmp_path / f"{task}.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", _HARNESS, str(student), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **_LOOPBACK, "HF_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    likely = {doc["question"]: _numbers(resps) for doc, resps in found["samples"]["limbeck_likely"]}
    drawn = {doc["question"]: resps for doc, resps in found["samples"]["limbeck_drawn"]}
    assert set(likely) == set(drawn) == {question for question, _ in pairs}
    for question, answer in pairs:
        assert likely[question] == pytest.approx([_log_likelihood(model, question, answer)], abs=1e-3)
        ids = tokenizer(question, return_tensors="pt")
        said = model.generate(**ids, max_new_tokens=5, do_sample=False)[0, ids["input_ids"].shape[1] :]
        text = tokenizer.decode(said, skip_special_tokens=True).split("\n\n")[0]
        assert str(drawn[question][0]).startswith(text), (question, drawn[question], text)
    assert "acc,none" in found["results"]["limbeck_likely"]


def _numbers(nested: Any) -> list[float]:
    """The log-likelihoods in what the harness keeps of an answer: [[number, is greedy], ...], nested somehow."""
    if isinstance(nested, float):
        return [nested]
    return [number for each in nested for number in _numbers(each)] if isinstance(nested, list) else []


def _log_likelihood(model: Any, question: str, answer: str) -> float:
    """Σ log p of the answer's bytes behind the question's."""
    ids = [*question.encode(), *answer.encode()]
    logp = logits(model, question + answer).log_softmax(-1)
    return sum(float(logp[place - 1, ids[place]]) for place in range(len(question.encode()), len(ids)))


# transformers serve

_SERVING = ("fastapi", "uvicorn", "openai")
_MISSING = [name for name in _SERVING if importlib.util.find_spec(name) is None]


@pytest.fixture
def served(plain: Path, tmp_path: Path) -> Iterator[str]:
    """The address of `transformers serve` with the student in it, on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(plain / "student")]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            stdout=log,
            stderr=log,
            env={**os.environ, **_LOOPBACK},
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, tmp_path / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(address, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError(f"the server is not up after two minutes: {log.read_text()[-3000:]}")


@pytest.mark.slow
@pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}: pip install limbeck[serve]")
def test_it_answers_behind_transformers_serve(plain: Path, served: str, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        endpoint = Endpoint(url=served, model=str(plain / "student"), attempts=2, concurrency=1)
        teacher = HttpTeacher(endpoint, ledger=ledger, stage="test")
        (answer,) = teacher.complete([Request(turns=(Turn(role="user", content=TEXT),), max_tokens=6)])
    assert isinstance(answer, Completion), answer
    local = pipeline("text-generation", model=str(plain / "student"), device="cpu")
    messages = [{"role": "user", "content": TEXT}]
    expected = local(messages, max_new_tokens=6, do_sample=False)[0]["generated_text"][-1]["content"]
    assert answer.text.strip() == expected.strip()
    assert 0 < answer.completion_tokens <= 6
