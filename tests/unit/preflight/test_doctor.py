from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig

from limbeck.cli import main
from limbeck.errors import ConfigError
from limbeck.preflight import Diagnosis, Finding, doctor, machine_checks
from limbeck.testing import byte_tokenizer, save_tiny, tiny_model
from limbeck.testing.byte_level import CHAT_TEMPLATE

Make = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that nothing can be said about, whatever runs beside the tests."""
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr("limbeck.preflight.machine_checks.usable_cores", torch.get_num_threads)


def _found(diagnosis: Diagnosis, check: str) -> list[tuple[str, str]]:
    return [(each.severity, each.message) for each in diagnosis.findings if each.check == check]


def _models(recipe: dict[str, Any], **changes: str) -> dict[str, Any]:
    return {**recipe["models"], **changes}


def test_a_sound_recipe_has_no_finding(recipe: Make) -> None:
    diagnosis = doctor(recipe(), weights=False)
    assert {each.severity for each in diagnosis.findings} <= {"ok", "note"}
    assert diagnosis.exit_code == 0
    assert diagnosis.skipped == "the weights, as asked"
    checks = {each.check for each in diagnosis.findings}
    assert {"vocabulary", "template", "padding", "context", "data", "duplicates", "overlap with validation", "lengths",
            "device", "threads", "allocator", "memory", "disk"} <= checks  # fmt: skip


def test_a_recipe_that_cannot_be_read_is_an_error(recipe: Make) -> None:
    with pytest.raises(ConfigError):
        doctor({**recipe(), "nonsense": 1})


def test_tokenizers_that_disagree(recipe: Make, tmp_path: Path) -> None:
    save_tiny(tmp_path / "other", seed=1)
    path = tmp_path / "other" / "tokenizer.json"
    table = json.loads(path.read_text())
    names = table["model"]["vocab"]
    first, second = list(names)[:2]
    names[first], names[second] = names[second], names[first]
    path.write_text(json.dumps(table))
    diagnosis = doctor(recipe(models=_models(recipe(), teacher=str(tmp_path / "other"))))
    ((severity, message),) = _found(diagnosis, "vocabulary")
    assert severity == "error"
    assert "number their tokens differently" in message
    assert "errors above" in diagnosis.skipped
    assert diagnosis.exit_code == 2


def test_a_template_that_the_teacher_does_not_know(recipe: Make, tmp_path: Path) -> None:
    save_tiny(tmp_path / "base", seed=1, tokenizer=byte_tokenizer(chat=False))
    with_base = doctor(recipe(models=_models(recipe(), teacher=str(tmp_path / "base"))), weights=False)
    assert "warning" in {severity for severity, _ in _found(with_base, "template")}
    paper = doctor(recipe(data={**recipe()["data"], "template": "paper", "max_prompt": 40, "long_prompt": "cut"}),
                   weights=False)  # fmt: skip
    assert ("warning", "the teacher has a chat template, but both models read the paper's layout") in _found(
        paper, "template"
    )


def test_thoughts_that_the_template_begins_or_writes_alone(recipe: Make, tmp_path: Path) -> None:
    def found(folder: str, *, header: str, before: str) -> Diagnosis:
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = CHAT_TEMPLATE.replace("<turn>a:{%", f"<turn>a:{header}{{%").replace(
            "[0] }}:", f"[0] }}}}:{{% if message['role'] == 'assistant' %}}{before}{{% endif %}}"
        )
        save_tiny(tmp_path / folder, seed=2, tokenizer=tokenizer)
        return doctor(recipe(models=_models(recipe(), student=str(tmp_path / folder))), weights=False)

    begun = found("begun", header="<think>\n", before="")
    (said,) = [message for _, message in _found(begun, "lengths") if "</think>" in message]
    assert said.endswith("responses have no </think>, though the chat template begins them with <think>")
    alone = found("alone", header="", before="<think></think>")
    assert "the chat template writes '<think></think>' before an answer, which is not learned" in {
        message for _, message in _found(alone, "template")
    }


def test_pad_is_eos(recipe: Make, tmp_path: Path, pair: Path) -> None:
    shutil.copytree(pair / "student", tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "student")
    diagnosis = doctor(recipe(models=_models(recipe(), student=str(tmp_path / "student"))), weights=False)
    ((severity, message),) = _found(diagnosis, "padding")
    assert severity == "note"
    assert "one token" in message


def test_a_padding_token_that_no_model_has_a_column_for(recipe: Make, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(extra_tokens=["[PAD]"])
    tokenizer.pad_token = "[PAD]"
    save_tiny(tmp_path / "student", seed=2, vocab_size=261, tokenizer=tokenizer)
    models = _models(recipe(), student=str(tmp_path / "student"))
    diagnosis = doctor(recipe(models=models, train={"batch_rows": 2}))
    ((severity, message),) = _found(diagnosis, "padding")
    assert (severity, message) == ("warning", "the tokenizer has 262 tokens, but the model only 261 columns")
    assert not diagnosis.skipped
    assert diagnosis.exit_code == 1


def test_rows_beyond_the_context(recipe: Make) -> None:
    diagnosis = doctor(recipe(data={**recipe()["data"], "max_length": 500}), weights=False)
    ((severity, message),) = _found(diagnosis, "context")
    assert severity == "error"
    assert "500" in message
    assert "256" in message


def test_drawn_responses_that_do_not_fit(recipe: Make) -> None:
    diagnosis = doctor(recipe(sampling={"max_new_tokens": 40}), weights=False)
    assert [severity for severity, _ in _found(diagnosis, "lengths")] == ["note", "ok"]


def _with_rows(recipe: Make, path: Path, rows: list[dict[str, str]], **data: Any) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recipe(data={"corpus": str(path), "max_prompt": 48, "max_length": 64, **data}, train={"batch_rows": 2})


def test_rows_that_stand_twice_or_leak(recipe: Make, tmp_path: Path) -> None:
    rows = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(10)]
    rows += [{"prompt": "q 0", "completion": "a 0"}, {"prompt": "q 1", "completion": "another"}]
    valid = tmp_path / "valid.jsonl"
    valid.write_text('{"prompt": "q 3", "completion": "x"}\n{"prompt": "new", "completion": "x"}\n')
    diagnosis = doctor(_with_rows(recipe, tmp_path / "rows.jsonl", rows, valid=str(valid)), weights=False)
    copies, others = _found(diagnosis, "duplicates")
    assert (copies[0], others[0]) == ("warning", "note")
    assert copies[1].startswith("1 of 12 rows")
    assert "line 1" in copies[1]
    ((severity, message),) = _found(diagnosis, "overlap with validation")
    assert severity == "warning"
    assert message.startswith("1 of 2 prompts")
    assert diagnosis.exit_code == 1


def test_test_rows_of_a_corpus_among_the_training_rows(recipe: Make, tmp_path: Path) -> None:
    import limbeck.data.corpora

    own = Path(limbeck.data.corpora.__file__).parent / "starter" / "test.jsonl"
    lines = own.read_text().splitlines()[:6]
    rows = tmp_path / "leaky.jsonl"
    rows.write_text("\n".join(lines) + "\n")
    diagnosis = doctor(
        recipe(data={"corpus": str(rows), "max_prompt": 200, "max_length": 256, "valid": 1, "long_prompt": "cut"}),
        weights=False,
    )
    ((severity, message),) = _found(diagnosis, "overlap with starter's test rows")
    assert severity == "warning"
    assert message.startswith("5 of 64")
    assert ("warning", "5 training rows are fewer than the 8 of train.batch_rows") in _found(diagnosis, "data")


def test_rows_that_are_dropped_or_cut(recipe: Make, tmp_path: Path) -> None:
    rows = [
        {"prompt": "q" * (60 if i < 3 else 3), "completion": "a" * (90 if i in (3, 4) else 3) + str(i)}
        for i in range(10)
    ]
    found = _found(doctor(_with_rows(recipe, tmp_path / "rows.jsonl", rows, valid=1), weights=False), "lengths")
    assert any("dropped" in message and severity == "warning" for severity, message in found)
    assert any("cut at data.max_length" in message for _, message in found), found


def test_data_that_cannot_be_read(recipe: Make, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    diagnosis = doctor(recipe(data={"corpus": str(path)}), weights=False)
    ((severity, message),) = _found(diagnosis, "data")
    assert severity == "error"
    assert "broken JSON" in message
    assert any("line 2" in each.advice for each in diagnosis.findings)


def test_a_model_that_is_not_there(recipe: Make) -> None:
    diagnosis = doctor(recipe(models=_models(recipe(), teacher="./nothing")))
    assert _found(diagnosis, "teacher")[0][0] == "error"
    assert diagnosis.exit_code == 2


def test_no_room(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.preflight.machine_checks.free_disk", lambda folder: 1000)
    monkeypatch.setattr("limbeck.preflight.hardware.free_memory", lambda: -(10**12))
    diagnosis = doctor(recipe(), weights=False)
    assert _found(diagnosis, "disk")[0][0] == "error"
    assert _found(diagnosis, "memory")[0][0] == "error"


def test_threads_and_load(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    for cores, load, severity in ((threads + 1, 0.0, "note"), (0, 0.0, "warning"), (threads, 99.0, "warning")):
        monkeypatch.setattr("limbeck.preflight.machine_checks.usable_cores", lambda cores=cores: cores)
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, load, load))
        assert _found(doctor(recipe(), weights=False), "threads")[0][0] == severity


@pytest.mark.parametrize(
    ("gain", "precision", "severity", "advice"),
    [
        (0.3, "bf16", "warning", "precision=fp32"),
        (0.3, "bf16-mixed", "warning", "precision=fp32"),
        (0.3, "auto", "ok", ""),
        (4.0, "auto", "note", "precision=bf16-mixed models.teacher_dtype=bf16"),
        (4.0, "bf16-mixed", "ok", ""),
    ],
)
def test_bf16_on_a_cpu(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, gain: float, precision: str, severity: str, advice: str
) -> None:
    monkeypatch.setattr(machine_checks, "bf16_gain", lambda: gain)
    diagnosis = doctor(recipe(train={"batch_rows": 8, "precision": precision}), weights=False)
    (found,) = [each for each in diagnosis.findings if each.check == "precision"]
    assert found.severity == severity
    assert f"{gain} times as fast" in found.message
    assert advice in found.advice


def test_weights_that_are_no_numbers(recipe: Make, tmp_path: Path, pair: Path) -> None:
    shutil.copytree(pair / "student", tmp_path / "student")
    path = tmp_path / "student" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    diagnosis = doctor(recipe(models=_models(recipe(), student=str(tmp_path / "student"))))
    ((severity, message),) = _found(diagnosis, "student's weights")
    assert severity == "error"
    assert "model.norm.weight" in message


def test_a_teacher_that_is_the_student(recipe: Make, pair: Path) -> None:
    diagnosis = doctor(recipe(models=_models(recipe(), teacher=str(pair / "student"))))
    assert _found(diagnosis, "pair")[0][0] == "warning"
    assert _found(diagnosis, "references")[0][0] == "warning"


def test_cross_entropy_is_that_of_transformers(recipe: Make, pair: Path) -> None:
    ((_, message),) = _found(doctor(recipe("sft", models={"student": str(pair / "student"), "teacher": None})),
                             "references")  # fmt: skip
    from limbeck.config import Recipe
    from limbeck.models import load_model, load_tokenizer
    from limbeck.preflight.data_checks import read_data
    from limbeck.preflight.workload import encoder_of

    whole = Recipe.load(recipe())
    data, _ = read_data(whole)
    assert data is not None
    assert data.valid is not None
    rows = encoder_of(whole, load_tokenizer(str(pair / "student"))).rows(data.valid.examples)
    model, total, count = load_model(str(pair / "student"), device="cpu"), 0.0, 0
    for row in rows:
        labels = [token if flag else -100 for token, flag in zip(row.tokens, row.is_response, strict=True)]
        n = sum(row.is_response)
        # The columns beyond the tokenizer's 261 are no part of the pair's vocabulary.
        logits = model(torch.tensor([row.tokens])).logits[0, :-1, :261].detach()
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), reduction="sum")
        total, count = total + float(losses), count + n
    assert f"student {total / count:.3f} nats" in message


def test_a_13b_recipe_takes_seconds(recipe: Make, tmp_path: Path, pair: Path) -> None:
    config = LlamaConfig(vocab_size=32_000, hidden_size=5_120, num_hidden_layers=40, num_attention_heads=40,
                         intermediate_size=13_824, max_position_embeddings=4_096)  # fmt: skip
    for role in ("teacher", "student"):
        shutil.copytree(pair / role, tmp_path / role, ignore=shutil.ignore_patterns("*.safetensors"))
        config.save_pretrained(tmp_path / role)
    whole = recipe(models={role: str(tmp_path / role) for role in ("teacher", "student")} | {"device": "cpu"})
    doctor(recipe(), weights=False)
    started = time.process_time()
    diagnosis = doctor(whole, weights=False)
    # Of this process alone: what else the machine does is no matter.
    assert time.process_time() - started < 5.0
    assert _found(diagnosis, "memory")[0][0] == "error"


@pytest.mark.parametrize(("severity", "code"), [("ok", 0), ("note", 0), ("warning", 1), ("error", 2)])
def test_exit_codes(severity: Any, code: int) -> None:
    findings = (Finding(check="a", severity="ok", message="fine"), Finding(check="b", severity=severity, message="m"))
    assert Diagnosis(findings=findings).exit_code == code


def test_the_verb(recipe: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(recipe()))
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["doctor", str(path), "--no-weights"]) == 0
    said = capsys.readouterr().out
    assert "0 errors" in said
    assert "\x1b" not in said
    # A path or a setting, which must not be broken, may be longer than a line.
    assert all(len(line) <= 60 or len(line.split()) == 1 for line in said.splitlines())
    assert main(["doctor", str(path), "data.max_length=500", "--json"]) == 2
    values = json.loads(capsys.readouterr().out)
    assert (values["worst"], values["exit_code"]) == ("error", 2)
    assert main(["doctor", str(tmp_path / "nothing.yaml")]) == 2


def test_where_the_teacher_cannot_be_held_as_asked(recipe: Make, pair: Path) -> None:
    diagnosis = doctor(recipe(models={"teacher_bits": 4}), weights=False)
    assert [severity for severity, _ in _found(diagnosis, "teacher's bits")] == ["error"]
    assert diagnosis.exit_code != 0
    offloaded = doctor(recipe(models={"teacher_offload": True}), weights=False)
    assert [severity for severity, _ in _found(offloaded, "teacher's place")] == ["note"]


@pytest.mark.parametrize(("supervised", "severity"), [(0, "warning"), (1, "ok")])
def test_a_base_as_teacher_needs_something_that_moves_the_student(
    supervised: int, severity: str, recipe: Make, pair: Path
) -> None:
    models = {"teacher": str(pair / "student"), "lora": {"rank": 2}, "teacher_is_base": True}
    diagnosis = doctor(recipe(models=models, method={"weights": {"supervised": supervised}}))
    assert [found for found, _ in _found(diagnosis, "pair")] == [severity]


def _ending(folder: Path, *, vocab_size: int = 272) -> str:
    """A student whose turns end with a token that no other model has."""
    tokenizer = byte_tokenizer(extra_tokens=["<im_end>"])
    tokenizer.chat_template = CHAT_TEMPLATE.replace("<end>", "<im_end>")
    return str(save_tiny(folder, seed=2, vocab_size=vocab_size, tokenizer=tokenizer))


def test_an_end_of_turn_that_the_teacher_does_not_know(recipe: Make, tmp_path: Path) -> None:
    diagnosis = doctor(recipe(models=_models(recipe(), student=_ending(tmp_path / "student"))))
    ((severity, message),) = _found(diagnosis, "tokens")
    assert severity == "error"
    assert message.startswith("every response ends with '<im_end>' (id 261)")
    assert diagnosis.exit_code == 2
    assert "errors above" in diagnosis.skipped
    text = doctor(recipe("seqkd", models=_models(recipe(), student=_ending(tmp_path / "student"))), weights=False)
    assert not _found(text, "tokens")


def test_one_row_among_many_with_a_token_that_the_teacher_does_not_know(recipe: Make, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(extra_tokens=["<x>"])
    student = str(save_tiny(tmp_path / "student", seed=2, vocab_size=272, tokenizer=tokenizer))
    rows = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(1100)]
    settings = {**_with_rows(recipe, tmp_path / "rows.jsonl", rows), "models": _models(recipe(), student=student)}
    assert _found(doctor(settings, weights=False), "tokens") == [
        ("ok", "the teacher knows every token that is learned from 1,100 rows")
    ]
    rows[701]["completion"] = "<x>"
    settings = {**_with_rows(recipe, tmp_path / "rows.jsonl", rows), "models": _models(recipe(), student=student)}
    ((severity, message),) = _found(doctor(settings, weights=False), "tokens")
    assert severity == "error"
    assert "the response of row 'rows-702' holds '<x>' (id 261)" in message


def test_a_writing_teacher_of_a_shorter_context(recipe: Make, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    tiny_model(positions=56, seed=1).save_pretrained(teacher)
    byte_tokenizer().save_pretrained(teacher)
    for base, expected in (("seqkd", "warning"), ("kd", "error")):
        found = _found(doctor(recipe(base, models=_models(recipe(), teacher=str(teacher))), weights=False), "context")
        assert found == [(expected, "data.max_length is 64, but the teacher reads at most 56 tokens")]
