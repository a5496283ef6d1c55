from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from limbeck.errors import UnknownName
from limbeck.testing import (
    ARCHITECTURES,
    byte_tokenizer,
    save_tiny,
    save_toy,
    tiny_model,
    tiny_pair,
    toy_examples,
)

USER = [{"role": "user", "content": "hi"}]


def test_a_token_is_a_byte() -> None:
    tokenizer = byte_tokenizer()
    every = "".join(chr(i) for i in range(1, 300)) + "é漢🙂"
    assert tokenizer.encode(every) == list(every.encode())
    assert tokenizer.decode(tokenizer.encode(every)) == every
    assert len(tokenizer) == 261


def test_special_tokens_and_bos() -> None:
    tokenizer = byte_tokenizer(adds_bos=True, extra_tokens=["<tool>"])
    assert tokenizer.encode("a<end><tool>") == [257, 97, 260, 261]
    assert tokenizer.encode("a", add_special_tokens=False) == [97]
    assert byte_tokenizer(pad=False).pad_token_id is None
    assert byte_tokenizer().pad_token_id == 256


def test_chat_template_takes_its_arguments() -> None:
    chat = byte_tokenizer()
    text = chat.apply_chat_template(USER, tokenize=False, add_generation_prompt=True, brief=True)
    assert text == "<bos><turn>s:Be brief.<end><turn>u:hi<end><turn>a:"
    assert byte_tokenizer(chat=False).chat_template is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tiny_model_depends_on_its_arguments_alone(architecture: str) -> None:
    before = torch.random.get_rng_state()
    first, second, other = (tiny_model(architecture, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    tokens = torch.arange(60, 80).unsqueeze(0)
    with torch.no_grad():
        logits = first(tokens).logits
        assert torch.equal(logits, second(tokens).logits)
        assert not torch.equal(logits, other(tokens).logits)
    assert logits.shape == (1, 20, 264)
    assert not first.training
    assert float(logits.softmax(-1).max()) > 0.03


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'llama'"):
        tiny_model("lama")


def test_a_tiny_pair_has_widths_that_differ() -> None:
    pair = tiny_pair("qwen3", teacher_architecture="llama")
    assert pair.teacher is not None
    assert pair.teacher.config.vocab_size != pair.student.config.vocab_size
    assert pair.vocabulary.size == 261
    assert pair.vocabulary.shared is None


def test_toy_examples_are_right_and_do_not_depend_on_the_count() -> None:
    examples = toy_examples(30, seed=2)
    assert toy_examples(7, seed=2) == examples[:7]
    assert toy_examples(7, seed=3) != examples[:7]
    assert len({example.id for example in examples}) == 30
    for example in examples:
        message, answer = example.messages[0], example.references[0]
        if example.category == "reverse":
            assert message.input == answer[::-1]
        if example.category == "add":
            left, right = message.content.rstrip("?").split("+")
            assert int(left) + int(right) == int(answer)


def test_save_toy_writes_the_shared_schema(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in save_toy(tmp_path / "toy.jsonl", 4).read_text().splitlines()]
    assert [row["id"] for row in rows] == ["toy-0", "toy-1", "toy-2", "toy-3"]
    assert set(rows[0]) == {"id", "instruction", "input", "output", "category"}


def test_save_tiny_is_a_plain_folder(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", architecture="gpt2", seed=5)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = torch.tensor([tokenizer.encode("Hi<end>")])
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, tiny_model("gpt2", seed=5)(tokens).logits)
    assert tokenizer.chat_template == byte_tokenizer().chat_template
