"""Random models of a few thousand parameters, one per architecture that Limbeck is tested on, and pairs of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen3Config,
)

from limbeck.errors import UnknownName
from limbeck.models.bars import without_bars
from limbeck.models.pair import Pair
from limbeck.testing.byte_level import byte_tokenizer

_WINDOW = 16


def _ids(vocab_size: int) -> dict[str, Any]:
    """The byte tokenizer's special ids; none where the vocabulary is too small to hold them."""
    fits = vocab_size >= 261
    return {
        name: id if fits else None for name, id in (("pad_token_id", 256), ("bos_token_id", 257), ("eos_token_id", 258))
    }


def _gpt2(vocab_size: int, width: int, layers: int, positions: int) -> PretrainedConfig:
    return GPT2Config(
        vocab_size=vocab_size,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        n_inner=2 * width,
        n_positions=positions,
        **_ids(vocab_size),
    )


def _opt(vocab_size: int, width: int, layers: int, positions: int) -> PretrainedConfig:
    return OPTConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        word_embed_proj_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        ffn_dim=2 * width,
        max_position_embeddings=positions,
        **_ids(vocab_size),
    )


def _grouped(vocab_size: int, width: int, layers: int, positions: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 2 * width,
        "max_position_embeddings": positions,
        **_ids(vocab_size),
    }


def _llama(vocab_size: int, width: int, layers: int, positions: int) -> PretrainedConfig:
    return LlamaConfig(**_grouped(vocab_size, width, layers, positions))


def _qwen2(vocab_size: int, width: int, layers: int, positions: int) -> PretrainedConfig:
    return Qwen2Config(**_grouped(vocab_size, width, layers, positions), tie_word_embeddings=True)


def _qwen3(vocab_size: int, width: int, layers: int, positions: int) -> PretrainedConfig:
    return Qwen3Config(**_grouped(vocab_size, width, layers, positions), head_dim=width // 4)


def _windowed(layers: int) -> dict[str, Any]:
    kinds = ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(layers)]
    return {"sliding_window": _WINDOW, "layer_types": kinds}


def _gemma2(vocab_size: int, width: int, layers: int, positions: int) -> PretrainedConfig:
    sizes = _grouped(vocab_size, width, layers, positions)
    return Gemma2Config(**sizes, **_windowed(layers), head_dim=width // 4, query_pre_attn_scalar=width // 4)


def _gemma3(vocab_size: int, width: int, layers: int, positions: int) -> PretrainedConfig:
    sizes = _grouped(vocab_size, width, layers, positions)
    return Gemma3TextConfig(**sizes, **_windowed(layers), head_dim=width // 4, query_pre_attn_scalar=width // 4)


_CONFIGS: dict[str, Callable[[int, int, int, int], PretrainedConfig]] = {
    "gpt2": _gpt2,
    "opt": _opt,
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
}
ARCHITECTURES = tuple(_CONFIGS)


def tiny_model(
    architecture: str = "llama",
    *,
    vocab_size: int = 264,
    seed: int = 0,
    width: int = 32,
    layers: int = 2,
    positions: int = 256,
) -> PreTrainedModel:
    """A random model in evaluation mode whose next-token distributions are far from uniform.

    `architecture` is one of `ARCHITECTURES`. Gemma's alternate a window of 16 tokens with full attention; GPT-2, OPT,
    Qwen2 and Gemma tie their embeddings. `vocab_size` 264 is the byte tokenizer's 261 padded to a multiple of 8, as
    real checkpoints are; below 261 the model has no special ids. Weights depend on the arguments alone; global
    generators stay as they were. Raises `UnknownName`.

    >>> model = tiny_model("qwen3", seed=1)
    >>> model.num_parameters() < 100_000
    True
    """
    if architecture not in _CONFIGS:
        raise UnknownName.among("tiny architecture", architecture, _CONFIGS)
    config = _CONFIGS[architecture](vocab_size, width, layers, positions)
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # Norm weights and biases move only a little: enough that forgetting one is seen.
            parameter.copy_(noise * 0.25 if parameter.dim() > 1 else parameter + noise * 0.1)
    model.eval()
    return model


def tiny_pair(
    architecture: str = "llama",
    *,
    teacher_architecture: str | None = None,
    seed: int = 0,
    student_vocab: int = 264,
    teacher_vocab: int = 272,
    chat: bool = True,
    dropout: bool = False,
) -> Pair:
    """A random teacher of 3 layers and a random student of 2 over the byte tokenizer, with padded widths that differ.

    >>> pair = tiny_pair()
    >>> pair.vocabulary.size, sorted(pair.stop_ids), pair.pad_id
    (261, [258, 260], 256)
    """
    return Pair.load(
        teacher=tiny_model(
            teacher_architecture or architecture, vocab_size=teacher_vocab, seed=seed + 1, width=48, layers=3
        ),
        student=tiny_model(architecture, vocab_size=student_vocab, seed=seed),
        tokenizer=byte_tokenizer(chat=chat),
        teacher_tokenizer=byte_tokenizer(chat=chat),
        device="cpu",
        teacher_device="cpu",
        dropout=dropout,
    )


def save_tiny(
    folder: Path,
    *,
    architecture: str = "llama",
    seed: int = 0,
    vocab_size: int = 264,
    layers: int = 2,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Path:
    """Write a tiny model and its tokenizer (default: `byte_tokenizer()`) as a Hugging Face folder; returns it."""
    with without_bars():
        tiny_model(architecture, vocab_size=vocab_size, seed=seed, layers=layers).save_pretrained(folder)
    (tokenizer or byte_tokenizer()).save_pretrained(folder)
    return folder
