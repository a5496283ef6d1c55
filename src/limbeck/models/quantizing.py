"""Frozen models in 8 or 4 bits a weight, through bitsandbytes; the border to it."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch

from limbeck.errors import ConfigError, ModelError

Bits = Literal[8, 4]

# NF4 with nested scales: 4 bits, 8 a block of 64 weights, 32 a block of 64 · 256.
BYTES_A_WEIGHT: dict[int, float] = {8: 1.0, 4: (4 + 8 / 64 + 32 / (64 * 256)) / 8}
"""Bytes of a weight of a linear layer; embedding, norms and the head keep their dtype."""


def why_no_bits(bits: Bits, device: torch.device) -> str | None:
    """Why weights cannot be held in so few bits there, with what to do; None where they can.

    >>> print(why_no_bits(4, torch.device("cpu")))
    models.teacher_bits is 4, but the teacher is on cpu: bitsandbytes computes on CUDA devices
      delete models.teacher_bits, or set models.teacher_device to a CUDA device
    """
    if device.type != "cuda":
        return (
            f"models.teacher_bits is {bits}, but the teacher is on {device.type}: bitsandbytes computes on CUDA devices"
            "\n  delete models.teacher_bits, or set models.teacher_device to a CUDA device"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        return (
            f"models.teacher_bits is {bits}, which needs bitsandbytes, and it is not installed"
            "\n  install it with: pip install limbeck[gpu]"
        )
    return None


def quantized(bits: Bits, *, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` takes for a model of so many bits a weight that computes in `dtype` on `device`.

        8   LLM.int8(), arXiv 2208.07339: outlier features above 6 are multiplied in half precision
        4   NF4 with nested quantisation, arXiv 2305.14314, Section 3; products in `dtype`

    Linear layers but the head are quantised: the head meets hidden states outside the model. Raises `ConfigError`
    where bitsandbytes or a CUDA device is missing. Not for a model that is trained.
    """
    reason = why_no_bits(bits, device)
    if reason is not None:
        raise ConfigError(reason)
    from transformers import BitsAndBytesConfig

    how = {"load_in_8bit": True} if bits == 8 else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    if bits == 4:
        how |= {"bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    # A quantised model cannot be moved afterwards, so it is loaded where it is to be.
    return {"quantization_config": BitsAndBytesConfig(**how), "device_map": {"": device}}


def check_head(model: Any, name: str, bits: Bits) -> None:
    """Raises `ModelError` where the head itself was quantised: its weight would be read as a matrix that it is not."""
    head = model.get_output_embeddings()
    if head is not None and not head.weight.is_floating_point():
        raise ModelError(
            f"in {bits} bits the head of '{name}' is quantised too, and cannot be applied to hidden states alone"
            "\n  delete models.teacher_bits, or choose a model whose head transformers keeps whole"
        )
