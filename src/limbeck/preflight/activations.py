"""What a model's forward and backward take of memory, found by running both on tensors without contents."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers.pytorch_utils import Conv1D

from limbeck.models.dropout import silence_dropout
from limbeck.models.loading import LoraSettings, checkpoint_activations


@dataclass(frozen=True, kw_only=True)
class BodyMemory:
    """Bytes beside the weights. `kept`: what the forward leaves for the backward. `forward`: the most while it runs.

    `backward`: the most while the gradients are made, when those of an earlier micro-batch are there; those are in it,
    and so is the gradient that comes from the head.
    """

    kept: int
    forward: int
    backward: int


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that are alive, each once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._note, out)
        return out

    def forget(self, tensors: Sequence[Tensor]) -> None:
        """These are not counted: they were there before."""
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def restart(self) -> None:
        """The most from now on."""
        self.most = self.live

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self._known:
            return
        self._known.add(place)
        size = storage.nbytes()
        self.live += size
        self.most = max(self.most, self.live)
        weakref.finalize(storage, self._gone, place, size).atexit = False

    def _gone(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.live -= size


def body_memory(
    model: Any,
    *,
    rows: int,
    length: int,
    autocast: torch.dtype | None = None,
    trains: bool = True,
) -> BodyMemory:
    """The memory of the model's body for `rows` rows of `length` tokens, all of them padded to it.

    `model` is a causal language model under a `FakeTensorMode` (`outlined`), in the dtype and with the attention that
    it is to run with. Nothing is computed: every operator says how large its result would be, and what the backward
    keeps is what autograd holds on to. Without `trains`, gradients are left out. Counts what tensors take, not what an
    allocator adds to them.
    """
    mode = _mode_of(model)
    # Counting begins with everything that the weights are made of.
    ledger = _Ledger()
    with mode, ledger:
        ledger.forget([*model.parameters(), *model.buffers()])
        inputs = {
            "input_ids": torch.zeros((rows, length), dtype=torch.long),
            "attention_mask": torch.ones((rows, 1, length, length), dtype=torch.bool),
            "position_ids": torch.arange(length).expand(rows, length),
            "use_cache": False,
        }
        before, peaks = ledger.live, []
        kept = forward = 0
        # Twice: in the second micro-batch the gradients of the first are there.
        for _ in range(2 if trains else 1):
            ledger.restart()
            with torch.set_grad_enabled(trains), _autocast(autocast):
                states = model.base_model(**inputs).last_hidden_state
            forward, kept = max(forward, ledger.most - before), ledger.live - before
            if trains:
                ledger.restart()
                _backward(model, states)
                peaks.append(ledger.most - before)
            del states
    first_kept = kept if not trains else kept - _gradient_bytes(model)
    return BodyMemory(kept=max(0, first_kept), forward=forward, backward=max(peaks, default=0))


def _gradient_bytes(model: Any) -> int:
    return sum(p.grad.untyped_storage().nbytes() for p in model.parameters() if p.grad is not None)


def _backward(model: Any, states: Tensor) -> None:
    head = model.get_output_embeddings().weight
    tensors, gradients = [states], [torch.empty_like(states)]
    if head.requires_grad:
        tensors.append(head)
        gradients.append(torch.empty_like(head))
    del states
    torch.autograd.backward(tensors, gradients)


def _autocast(dtype: torch.dtype | None) -> Any:
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype)


def _mode_of(model: Any) -> FakeTensorMode:
    mode: FakeTensorMode = next(model.parameters()).fake_mode
    return mode


def outlined(
    config: Any,
    *,
    dtype: torch.dtype = torch.float32,
    attention: str = "auto",
    checkpointing: bool = False,
    lora: LoraSettings | None = None,
) -> Any:
    """The causal language model of a configuration, of tensors without contents, in training mode without dropout.

    `lora` freezes it and puts matrices beside its layers, as `add_lora` does to real weights.
    """
    from transformers import AutoModelForCausalLM

    with FakeTensorMode(allow_non_fake_inputs=True):
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=dtype, attn_implementation=None if attention == "auto" else attention
        )
        if lora is not None:
            _adapt(model, lora)
    silence_dropout(model)
    if checkpointing:
        checkpoint_activations(model)
    return model.train()


class _Adapted(nn.Module):
    """A frozen layer with LoRA's two matrices beside it."""

    def __init__(self, base: nn.Module, *, rank: int) -> None:
        super().__init__()
        weight: Any = base.weight
        sizes = weight.shape if isinstance(base, nn.Linear) else weight.shape[::-1]
        self.base = base
        self.lora_down = nn.Linear(sizes[1], rank, bias=False, dtype=weight.dtype)
        self.lora_up = nn.Linear(rank, sizes[0], bias=False, dtype=weight.dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        """W x + scale·B A x."""
        out: Tensor = self.base(inputs) + self.lora_up(self.lora_down(inputs)) * 2.0
        return out


def adapted_layers(model: Any, targets: Sequence[str] | None) -> list[tuple[str, nn.Module]]:
    """The layers that LoRA of these targets is put beside, by name: ends of names, or None for all but the head."""
    head = model.get_output_embeddings()
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and (module is not head if targets is None else name.rsplit(".", 1)[-1] in targets)
    ]


def _adapt(model: Any, lora: LoraSettings) -> None:
    # peft's own would swap weights in place, which tensors without contents do not allow.
    model.requires_grad_(False)
    for name, layer in adapted_layers(model, lora.targets):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _Adapted(layer, rank=lora.rank))
