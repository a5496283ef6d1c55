"""Sizes from configurations are those of real models: numbers, caches, and what a forward keeps for its backward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from limbeck.config import LoraSection
from limbeck.models.dropout import silence_dropout
from limbeck.models.loading import LoraSettings, add_lora
from limbeck.preflight import outlines
from limbeck.preflight.activations import body_memory, outlined
from limbeck.preflight.outlines import Outline
from limbeck.testing import ARCHITECTURES, tiny_model

_ROWS, _LENGTH = 2, 12


def _outline(model: Any) -> Outline:
    return Outline(name="tiny", config=model.config)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_numbers_are_those_of_the_model(architecture: str) -> None:
    model = tiny_model(architecture, layers=3)
    outline = _outline(model)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert outline.parameters == model.num_parameters()
    assert (outline.width, outline.head_parameters) == (head.shape[0], head.numel())
    assert outline.multiplied == model.num_parameters() - (0 if embedding is head else embedding.numel())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_token_in_the_cache(architecture: str) -> None:
    model = tiny_model(architecture)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.zeros((_ROWS, _LENGTH), dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert held == _ROWS * _LENGTH * _outline(model).cache_numbers


@pytest.mark.parametrize("targets", [None, ("q_proj", "down_proj")])
def test_what_lora_trains(targets: tuple[str, ...] | None) -> None:
    model = tiny_model("llama")
    expected = _outline(model).trained(LoraSection(rank=4, targets=targets))
    add_lora(model, LoraSettings(rank=4, targets=targets))
    assert expected == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_the_forward_keeps_is_what_autograd_saves(architecture: str) -> None:
    model = tiny_model(architecture).train()
    silence_dropout(model)
    own = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    mask = torch.ones((_ROWS, _LENGTH), dtype=torch.long)
    mask[0, 9:] = 0
    positions = torch.arange(_LENGTH).expand(_ROWS, _LENGTH)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model.base_model(
            input_ids=torch.zeros((_ROWS, _LENGTH), dtype=torch.long),
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
        )
    states = out.last_hidden_state
    real = sum(storage.nbytes() for storage in saved.values())
    found = body_memory(outlined(model.config), rows=_ROWS, length=_LENGTH).kept
    inputs = _ROWS * _LENGTH * (_LENGTH + 2 * 8) + states.numel() * states.element_size()
    assert real <= found <= real + inputs


def test_backward_ends_with_the_gradients() -> None:
    outline = _outline(tiny_model("llama"))
    found = outline.memory(rows=_ROWS, length=_LENGTH, dtype=torch.float32)
    assert found.backward >= found.kept + 4 * outline.parameters
    assert outline.memory(rows=_ROWS, length=_LENGTH, dtype=torch.float32, trains=False).kept < found.kept


def test_checkpointing_keeps_less_and_bf16_half() -> None:
    outline = _outline(tiny_model("llama", layers=3))
    whole = outline.memory(rows=8, length=64, dtype=torch.float32).kept
    assert outline.memory(rows=8, length=64, dtype=torch.float32, checkpointing=True).kept < whole / 3
    assert outline.memory(rows=8, length=64, dtype=torch.bfloat16).kept < 0.7 * whole


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_deep_models_are_told_from_shallow_ones(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outline = _outline(tiny_model(architecture, layers=6))
    told = outline.memory(rows=_ROWS, length=_LENGTH, dtype=torch.float32)
    monkeypatch.setattr(outlines, "_SOME", 6)
    walked = outline.memory(rows=_ROWS, length=_LENGTH, dtype=torch.float32)
    assert told.kept == walked.kept
    assert told.backward == pytest.approx(walked.backward, rel=0.02)


def test_no_weight_is_read(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((pair / "student" / "config.json").read_bytes())
    assert Outline.of(str(tmp_path)).parameters == Outline.of(str(pair / "student")).parameters


def test_what_a_forward_with_lora_keeps() -> None:
    model = add_lora(tiny_model("llama"), LoraSettings(rank=4)).train()
    own = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    ids = torch.zeros((_ROWS, _LENGTH), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # A padded row, as training has them: without one the attention code leaves repeated heads out.
        mask = torch.ones((_ROWS, _LENGTH), dtype=torch.long)
        mask[0, 9:] = 0
        states = model.base_model(ids, attention_mask=mask, use_cache=False).last_hidden_state
    real = sum(storage.nbytes() for storage in saved.values())
    outline = _outline(tiny_model("llama"))
    found = outline.memory(rows=_ROWS, length=_LENGTH, dtype=torch.float32, lora=LoraSection(rank=4))
    assert found.kept == pytest.approx(real, abs=_ROWS * _LENGTH * (_LENGTH + 16) + 2 * states.numel() * 4)
