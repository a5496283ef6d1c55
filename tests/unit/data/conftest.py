from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from limbeck.records import Example, Message

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe helpful<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "<start_of_turn>{{ role }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SPECIALS = ("<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>")


def byte_tokenizer(
    *,
    chat_template: str | None = None,
    eos: str | None = "<eos>",
    adds_bos: bool = False,
    merges: tuple[tuple[str, str], ...] = (),
) -> Any:
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=list(merges)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    if adds_bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", inner.token_to_id("<bos>"))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", eos_token=eos, pad_token=eos)
    tokenizer.chat_template = chat_template
    return tokenizer


@pytest.fixture
def tokenizer_of() -> Callable[..., Any]:
    return byte_tokenizer


@pytest.fixture
def chatml() -> Any:
    """pad == eos == end of turn, as in SmolLM2."""
    return byte_tokenizer(chat_template=CHATML, eos="<|im_end|>")


@pytest.fixture
def gemma() -> Any:
    """BOS by the template and by the tokenizer's default, end of turn that is not EOS, no system role."""
    return byte_tokenizer(chat_template=GEMMA, adds_bos=True)


@pytest.fixture
def make_example() -> Callable[..., Example]:
    def make(*turns: str, system: str = "", input: str = "", references: tuple[str, ...] = ("Yes.",)) -> Example:
        """`turns` are user, assistant, user, ...; the references answer the last."""
        messages = [Message(role="system", content=system)] if system else []
        for index, turn in enumerate(turns):
            last = index == len(turns) - 1
            role = "assistant" if index % 2 else "user"
            messages.append(Message(role=role, content=turn, input=input if last else ""))
        return Example(id="e1", messages=tuple(messages), references=references, source="my.jsonl line 1")

    return make


@pytest.fixture
def shared_data() -> Path:
    root = Path(__file__).parents[4] / "shared" / "data"
    if not root.is_dir():
        pytest.skip("the shared data sets are not here")
    return root
