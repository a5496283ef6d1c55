"""The teacher of a pair, wherever its weights are: its own, in main memory between uses, or the student's base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from limbeck.models.extending import evaluating
from limbeck.models.pair import Pair
from limbeck.models.scoring import Scorer


def teacher_of(pair: Pair, *, autocast: torch.dtype | None = None) -> Scorer | None:
    """The pair's teacher as a scorer; None where it has none.

    `autocast` is the student's, for a teacher that is the student's base: it computes as its weights' owner does.
    """
    if pair.teacher is None:
        return None
    if pair.teacher_is_base:
        presence = AdapterOff(pair.teacher)
        return Scorer.of(pair.teacher, vocabulary=pair.vocabulary, autocast=autocast, presence=presence)
    if pair.teacher_home is None:
        return Scorer.of(pair.teacher, vocabulary=pair.vocabulary)
    offloaded = Offloaded(pair.teacher, device=pair.teacher_home)
    scorer = Scorer.of(pair.teacher, vocabulary=pair.vocabulary, presence=offloaded)
    offloaded.leave()
    return scorer


class AdapterOff:
    """A model with LoRA as the model that it was before: in evaluation mode, W·x without (alpha / rank)·B·A·x.

    Its base is frozen, so that nothing is copied and one set of weights is student and teacher. A forward inside
    `forward()` must want no gradient. Which parameters are trained, and the mode, are afterwards as they were.
    """

    def __init__(self, model: nn.Module) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._model = model
        self._layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        assert self._layers, "a model with LoRA"

    @property
    def device(self) -> torch.device:
        """Where the student is."""
        found: torch.device = next(self._model.parameters()).device
        return found

    @contextmanager
    def forward(self) -> Iterator[None]:
        """The adapter is off while it lasts."""
        flags = [(p, p.requires_grad) for layer in self._layers for p in layer.parameters()]
        with evaluating(self._model):
            try:
                for layer in self._layers:
                    layer.enable_adapters(enabled=False)
                yield
            finally:
                for layer in self._layers:
                    layer.enable_adapters(enabled=True)
                # peft decides anew which parameters are trained.
                for parameter, is_trained in flags:
                    parameter.requires_grad_(is_trained)

    def ready(self, part: nn.Module) -> None:
        """The base's weights are always there."""

    def leave(self) -> None:
        """The student needs them."""


class Offloaded:
    """A frozen model whose weights lie in main memory, and are copied to `device` when they are asked for.

    Main memory keeps them all the time (page-locked for CUDA), so that leaving costs nothing: the copies are let go.
    What holds on to a copied weight, as a view does to the head, keeps that one alive. Not for weights that change.
    """

    def __init__(self, model: nn.Module, *, device: torch.device) -> None:
        originals = [*model.parameters(), *model.buffers()]
        assert not any(tensor.requires_grad for tensor in originals), "a frozen model"
        kept = {id(each): _in_main_memory(each, locked=device.type == "cuda") for each in originals}
        self._model = model
        self._device = device
        self._home = {part: {name: kept[id(tensor)] for name, tensor in _own(part).items()} for part in model.modules()}
        self._here: dict[int, Tensor] = {}
        self._put_back()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._device

    @property
    def bytes_here(self) -> int:
        """Bytes that are on the device now."""
        return sum(each.numel() * each.element_size() for each in self._here.values())

    def forward(self) -> AbstractContextManager[None]:
        """Brings the whole model; it stays until `leave`."""
        self.ready(self._model)
        return nullcontext()

    def ready(self, part: nn.Module) -> None:
        """Brings this part of the model. What two modules share is brought once, and shared there too."""
        for module in part.modules():
            for name, kept in self._home[module].items():
                if id(kept) not in self._here:
                    self._here[id(kept)] = _alike(kept, kept.detach().to(self._device, non_blocking=True))
                setattr(module, name, self._here[id(kept)])

    def leave(self) -> None:
        """Everything is in main memory only."""
        if self._here:
            self._put_back()
            self._here.clear()

    def _put_back(self) -> None:
        for module, tensors in self._home.items():
            for name, kept in tensors.items():
                setattr(module, name, kept)


def _own(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module itself, by name."""
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _in_main_memory(tensor: Tensor, *, locked: bool) -> Tensor:
    kept = tensor.detach().to("cpu")
    return _alike(tensor, kept.pin_memory() if locked else kept)


def _alike(like: Tensor, tensor: Tensor) -> Tensor:
    return nn.Parameter(tensor, requires_grad=False) if isinstance(like, nn.Parameter) else tensor
