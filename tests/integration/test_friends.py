"""A student that Limbeck saved, in the hands of other programs: transformers, peft, lm-evaluation-harness, transformers
serve, and the package that llama.cpp's conversion is built on."""

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

import gguf
import httpx
import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import limbeck
from limbeck.blackbox.asking import Completion, Request, Turn
from limbeck.blackbox.http_teacher import Endpoint, HttpTeacher
from limbeck.blackbox.ledger import Ledger
from limbeck.publishing import export
from limbeck.testing import byte_tokenizer, save_tiny, save_toy
from training_kit import tensors

_TEXT = "Say abc."
_LOOPBACK = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}


def _train(folder: Path, *, lora: bool = False, chat: bool = True) -> Path:
    """The folder of a run of two steps."""
    tokenizer = byte_tokenizer(chat=chat)
    models = {
        "teacher": str(save_tiny(folder / "teacher", seed=1, layers=3, tokenizer=tokenizer)),
        "student": str(save_tiny(folder / "start", seed=2, tokenizer=tokenizer)),
        "device": "cpu",
        "lora": {"rank": 2} if lora else None,
    }
    recipe = {
        "method": {"base": "kd"},
        "models": models,
        # Without a chat template the prompt is the papers' layout, some 200 bytes.
        "data": {"corpus": str(save_toy(folder / "toy.jsonl", 12)), "max_prompt": 230, "max_length": 250},
        "sampling": {"max_new_tokens": 4},
        "train": {"steps": 2, "batch_rows": 4, "learning_rate": 1e-2},
        "validate": {"every": None},
        "watch": {"rows": 0},
        "run": str(folder / "run"),
    }
    return limbeck.train(recipe).directory


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def untemplated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(tmp_path_factory.mktemp("untemplated"), chat=False)


@pytest.fixture(scope="module")
def with_lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(tmp_path_factory.mktemp("lora"), lora=True)


@torch.no_grad()
def _logits(model: Any, text: str = _TEXT) -> torch.Tensor:
    ids = torch.tensor([list(text.encode())])
    return model.eval()(input_ids=ids).logits[0].float()


# transformers


@pytest.mark.parametrize("name", ["plain", "untemplated", "with_lora"])
def test_transformers_loads_what_was_trained(name: str, request: pytest.FixtureRequest) -> None:
    run: Path = request.getfixturevalue(name)
    model = AutoModelForCausalLM.from_pretrained(run / "student")
    before = AutoModelForCausalLM.from_pretrained(run.parent / "start")
    assert type(model) is type(before)
    assert not torch.equal(_logits(model), _logits(before))
    if name != "with_lora":
        # The last checkpoint holds what the optimizer left; its names end in those of the model.
        trained = {each.removeprefix("weight "): value for each, value in tensors(run).items() if "weight " in each}
        found = model.state_dict()
        for key, value in trained.items():
            assert torch.equal(found[next(each for each in found if key.endswith(each))], value), key
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    assert tokenizer(_TEXT)["input_ids"] == list(_TEXT.encode())
    assert tokenizer.decode(tokenizer(_TEXT)["input_ids"]) == _TEXT
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(run.parent / "start").chat_template
    assert (tokenizer.chat_template is None) is (name == "untemplated")


def test_generation_ends_as_in_training(plain: Path) -> None:
    config = AutoModelForCausalLM.from_pretrained(plain / "student").generation_config
    tokenizer = AutoTokenizer.from_pretrained(plain / "student")
    ends = {tokenizer.convert_tokens_to_ids(token) for token in ("<eos>", "<end>")}
    assert set(config.eos_token_id) == ends
    assert config.pad_token_id == tokenizer.pad_token_id
    # Rows of the embedding that no token has can never be drawn.
    assert set(config.suppress_tokens) == set(range(len(tokenizer), 264))


def test_a_pipeline_answers_a_chat(plain: Path) -> None:
    answer = pipeline("text-generation", model=str(plain / "student"), device="cpu")
    messages = [{"role": "user", "content": _TEXT}]
    found = answer(messages, max_new_tokens=6, do_sample=False)[0]["generated_text"]
    assert found[:-1] == messages
    assert found[-1]["role"] == "assistant"
    tokenizer = AutoTokenizer.from_pretrained(plain / "student")
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(plain / "student")
    drawn = model.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert found[-1]["content"] == tokenizer.decode(drawn, skip_special_tokens=True)


def test_a_pipeline_goes_on_with_a_text(untemplated: Path) -> None:
    answer = pipeline("text-generation", model=str(untemplated / "student"), device="cpu")
    found = answer(_TEXT, max_new_tokens=6, do_sample=False)[0]["generated_text"]
    assert found.startswith(_TEXT)


# peft

# Of peft's own code, about a name in transformers.
_quietly = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@_quietly
def test_the_adapter_on_its_base_is_the_merged_student(with_lora: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(with_lora.parent / "start")
    before = _logits(base)
    adapted = PeftModel.from_pretrained(base, with_lora / "student" / "adapter")
    merged = _logits(AutoModelForCausalLM.from_pretrained(with_lora / "student"))
    assert not torch.allclose(before, merged, atol=1e-3)
    torch.testing.assert_close(_logits(adapted), merged, atol=1e-4, rtol=1e-4)


@_quietly
def test_an_exported_adapter_finds_its_base(with_lora: Path, tmp_path: Path) -> None:
    folder = export(with_lora, tmp_path / "adapter", merge=False)
    found = AutoPeftModelForCausalLM.from_pretrained(folder)
    merged = _logits(AutoModelForCausalLM.from_pretrained(with_lora / "student"))
    torch.testing.assert_close(_logits(found), merged, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(folder).chat_template


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
    logp = _logits(model, question + answer).log_softmax(-1)
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
        (answer,) = teacher.complete([Request(turns=(Turn(role="user", content=_TEXT),), max_tokens=6)])
    assert isinstance(answer, Completion), answer
    local = pipeline("text-generation", model=str(plain / "student"), device="cpu")
    messages = [{"role": "user", "content": _TEXT}]
    expected = local(messages, max_new_tokens=6, do_sample=False)[0]["generated_text"][-1]["content"]
    assert answer.text.strip() == expected.strip()
    assert 0 < answer.completion_tokens <= 6


# llama.cpp


def test_the_conversion_finds_what_it_needs(plain: Path, tmp_path: Path) -> None:
    folder = export(plain, tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    # Every tensor has a name in GGUF, and every tensor that a Llama of this depth needs is there.
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    with safe_open(folder / "model.safetensors", framework="np") as file:
        found = {name: names.get_name(name, try_suffixes=(".weight", ".bias")) for name in list(file.keys())}
    assert [name for name, known in found.items() if known is None] == []
    needed = {"token_embd.weight", "output_norm.weight"} | {
        f"blk.{layer}.{part}.weight"
        for layer in range(config["num_hidden_layers"])
        for part in (
            "attn_norm",
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_norm",
            "ffn_gate",
            "ffn_up",
            "ffn_down",
        )
    }
    assert needed <= set(found.values())
    # Merges, special tokens, and the chat template, as the converter's own reader of vocabularies sees them.
    vocabulary = gguf.SpecialVocab(folder, load_merges=True, n_vocab=config["vocab_size"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert vocabulary.chat_template == tokenizer.chat_template
    expected = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    assert {name: vocabulary.special_token_ids[name] for name in expected} == expected
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]
    assert tokens["type"] == "BPE"
    assert len(tokens["vocab"]) == 256
