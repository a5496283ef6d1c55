"""A student that Limbeck saved, in the hands of other programs: transformers, peft, and the package that llama.cpp's
conversion is built on."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from friends_kit import TEXT, logits, train_student
from limbeck.publishing import export
from training_kit import tensors


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_student(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def untemplated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_student(tmp_path_factory.mktemp("untemplated"), chat=False)


@pytest.fixture(scope="module")
def with_lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_student(tmp_path_factory.mktemp("lora"), lora=True)


# transformers


@pytest.mark.parametrize("name", ["plain", "untemplated", "with_lora"])
def test_transformers_loads_what_was_trained(name: str, request: pytest.FixtureRequest) -> None:
    run: Path = request.getfixturevalue(name)
    model = AutoModelForCausalLM.from_pretrained(run / "student")
    before = AutoModelForCausalLM.from_pretrained(run.parent / "start")
    assert type(model) is type(before)
    assert not torch.equal(logits(model), logits(before))
    if name != "with_lora":
        # The last checkpoint holds what the optimizer left; its names end in those of the model.
        trained = {each.removeprefix("weight "): value for each, value in tensors(run).items() if "weight " in each}
        found = model.state_dict()
        for key, value in trained.items():
            assert torch.equal(found[next(each for each in found if key.endswith(each))], value), key
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    assert tokenizer(TEXT)["input_ids"] == list(TEXT.encode())
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"]) == TEXT
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
    messages = [{"role": "user", "content": TEXT}]
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
    found = answer(TEXT, max_new_tokens=6, do_sample=False)[0]["generated_text"]
    assert found.startswith(TEXT)


# peft

# Of peft's own code, about a name in transformers.
_quietly = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@_quietly
def test_the_adapter_on_its_base_is_the_merged_student(with_lora: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(with_lora.parent / "start")
    before = logits(base)
    adapted = PeftModel.from_pretrained(base, with_lora / "student" / "adapter")
    merged = logits(AutoModelForCausalLM.from_pretrained(with_lora / "student"))
    assert not torch.allclose(before, merged, atol=1e-3)
    torch.testing.assert_close(logits(adapted), merged, atol=1e-4, rtol=1e-4)


@_quietly
def test_an_exported_adapter_finds_its_base(with_lora: Path, tmp_path: Path) -> None:
    folder = export(with_lora, tmp_path / "adapter", merge=False)
    found = AutoPeftModelForCausalLM.from_pretrained(folder)
    merged = logits(AutoModelForCausalLM.from_pretrained(with_lora / "student"))
    torch.testing.assert_close(logits(found), merged, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(folder).chat_template


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
