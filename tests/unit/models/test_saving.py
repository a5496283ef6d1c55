from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from limbeck.errors import ModelError
from limbeck.models import LoraSettings, add_lora, load_model, save_student
from limbeck.testing import ARCHITECTURES, byte_tokenizer, tiny_model, tiny_pair

TOKENS = torch.arange(40, 60).unsqueeze(0)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_student_is_a_plain_folder(tmp_path: Path, architecture: str) -> None:
    pair = tiny_pair(architecture)
    folder = save_student(
        pair.student,
        pair.tokenizer,
        tmp_path / "run" / "student",
        dropped_ids=pair.vocabulary.dropped_student,
        stop_ids=pair.stop_ids,
        pad_id=pair.pad_id,
    )
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(logits(loaded), logits(pair.student))
    written = json.loads((folder / "generation_config.json").read_text())
    assert written["eos_token_id"] == [258, 260]
    assert written["pad_token_id"] == 256
    assert written["suppress_tokens"] == [261, 262, 263]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == pair.tokenizer.chat_template
    answer = loaded.generate(TOKENS, max_new_tokens=8, do_sample=False)
    assert answer.shape[0] == 1
    assert [path.name for path in folder.parent.iterdir()] == ["student"]


def test_suppressed_ids_are_never_generated(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        favourite = int(logits(model)[0, -1].argmax())
    folder = save_student(model, byte_tokenizer(), tmp_path / "s", dropped_ids=[favourite])
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    answer = loaded.generate(TOKENS, max_new_tokens=20, do_sample=False)
    assert favourite not in answer[0, TOKENS.shape[1] :].tolist()


def test_defaults_come_from_the_tokenizer(tmp_path: Path) -> None:
    model = tiny_model()
    own = model.generation_config
    folder = save_student(model, byte_tokenizer(pad=False), tmp_path / "s")
    written = json.loads((folder / "generation_config.json").read_text())
    assert (written["eos_token_id"], written["pad_token_id"]) == ([258], 258)
    assert "suppress_tokens" not in written
    assert model.generation_config is own


# peft itself asks transformers by a name that transformers is about to drop.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_lora_is_merged_and_lies_beside(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = add_lora(tiny_model("qwen2"), LoraSettings(rank=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    folder = save_student(model, byte_tokenizer(), tmp_path / "s", dropped_ids=[261], stop_ids=[258, 260])
    assert torch.allclose(logits(load_model(str(folder), device="cpu")), logits(model), atol=1e-4)
    name = "generation_config.json"
    assert (folder / "adapter" / name).read_bytes() == (folder / name).read_bytes()
    assert {path.name for path in (folder / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    base: PreTrainedModel = tiny_model("qwen2")
    again = peft.PeftModel.from_pretrained(base, folder / "adapter")
    assert torch.allclose(logits(again), logits(model), atol=1e-5)
    assert len({path.stat().st_mode for path in folder.rglob("*") if path.is_file()}) == 1


def test_a_model_folder_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "s"
    save_student(tiny_model(seed=1), byte_tokenizer(), place)
    (place / "adapter").mkdir()
    save_student(tiny_model(seed=2), byte_tokenizer(), place)
    assert torch.equal(logits(load_model(str(place), device="cpu")), logits(tiny_model(seed=2)))
    assert not (place / "adapter").exists()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("words")
    with pytest.raises(ModelError, match="not a model folder"):
        save_student(tiny_model(), byte_tokenizer(), other)
    assert (other / "chapter.txt").read_text() == "words"


def test_a_write_that_fails_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = save_student(tiny_model(seed=1), byte_tokenizer(), tmp_path / "s")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_student(tiny_model(seed=2), byte_tokenizer(), place)
    assert torch.equal(logits(load_model(str(place), device="cpu")), logits(tiny_model(seed=1)))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
