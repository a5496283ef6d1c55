"""A student from nothing: a small Llama with random weights, and a tokenizer learned from the run's own text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from limbeck.blackbox.sections import ScratchSection
from limbeck.models.saving import save_student

_SPECIAL = ("<pad>", "<ask>", "<reply>", "<end>")
_TEMPLATE = (
    "{% for message in messages %}{{ '<ask>' if message['role'] != 'assistant' else '<reply>' }}"
    "{{ message['content'] }}{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<reply>{% endif %}"
)
_SPREAD = 0.02


def scratch_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of at most this many tokens, learned from these texts; it reads any text.

    Digits are never joined, with each other or with anything else: a number is read place by place.

    >>> tokenizer = scratch_tokenizer(["12 apples and 12 pears"] * 3, vocabulary=300)
    >>> tokenizer.decode(tokenizer.encode("apples 12")), len(tokenizer.encode("12"))
    ('apples 12', 2)
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?[^\s\d]+|\s"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in _SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # In one order: the learned pieces must not depend on that of the questions.
    tokenizer.train_from_iterator(sorted(texts), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        extra_special_tokens=["<ask>", "<reply>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = _TEMPLATE
    return fast


def scratch_model(section: ScratchSection, *, tokens: int) -> LlamaForCausalLM:
    """A Llama of these sizes whose weights are N(0, 0.02²), norms 1; they depend on the arguments alone."""
    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=section.width,
        num_hidden_layers=section.layers,
        num_attention_heads=section.heads,
        num_key_value_heads=section.heads,
        intermediate_size=3 * section.width,
        max_position_embeddings=section.positions,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=3,
    )
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(section.seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * _SPREAD)
    return model.eval()


def save_scratch(folder: Path, section: ScratchSection, texts: Iterable[str]) -> Path:
    """Make the student and write it as a Hugging Face folder; returns it."""
    tokenizer = scratch_tokenizer(texts, vocabulary=section.vocabulary)
    model = scratch_model(section, tokens=len(tokenizer))
    return save_student(model, tokenizer, folder, stop_ids=[3], pad_id=0)
