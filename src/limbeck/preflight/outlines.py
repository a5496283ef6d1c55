"""How large a model is, from its configuration alone: no weight is read and no memory is taken for one."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch

from limbeck.config.sections import LoraSection
from limbeck.models.loading import LoraSettings, load_config
from limbeck.preflight.activations import BodyMemory, adapted_layers, body_memory, outlined

# Below these many layers, the whole model is walked through; above, two short ones tell how each layer adds.
_FEW, _SOME = 2, 3


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A model of a name, as large as its configuration says.

    `parameters` counts tied ones once; `width` is the columns of its logits; `context` None where it has no limit.
    """

    name: str
    config: Any

    @classmethod
    def of(cls, name: str) -> Outline:
        """The outline of a packaged name, a folder or a hub id. Raises `ModelError`."""
        return cls(name=name, config=load_config(name).get_text_config())

    @cached_property
    def _meta(self) -> Any:
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(copy.deepcopy(self.config))

    @cached_property
    def parameters(self) -> int:
        """Numbers that the model's weights are."""
        return sum(p.numel() for p in self._meta.parameters())

    @cached_property
    def head_parameters(self) -> int:
        """Numbers of the head, tied or not."""
        return int(self._meta.get_output_embeddings().weight.numel())

    @cached_property
    def linear_parameters(self) -> int:
        """Weights of linear layers but the head: those that are held in few bits."""
        layers = [cast(torch.Tensor, layer.weight) for _, layer in adapted_layers(self._meta, None)]
        return sum(weight.numel() for weight in layers)

    @cached_property
    def multiplied(self) -> int:
        """Numbers that each token is multiplied with: all but an input embedding that is no head."""
        embedding, head = self._meta.get_input_embeddings().weight, self._meta.get_output_embeddings().weight
        return self.parameters - (0 if embedding is head else embedding.numel())

    @property
    def width(self) -> int:
        """Columns of the logits."""
        return int(self._meta.get_output_embeddings().weight.shape[0])

    @property
    def hidden(self) -> int:
        """Numbers of a hidden state."""
        return int(self.config.hidden_size)

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return int(self.config.num_hidden_layers)

    @property
    def context(self) -> int | None:
        """Most tokens of a row."""
        found = getattr(self.config, "max_position_embeddings", None)
        return int(found) if found else None

    @property
    def cache_numbers(self) -> int:
        """Numbers that a token adds to the key/value cache: 2 · layers · key heads · numbers of a head."""
        heads = int(self.config.num_attention_heads)
        keys = int(getattr(self.config, "num_key_value_heads", None) or heads)
        size = int(getattr(self.config, "head_dim", None) or self.hidden // heads)
        return 2 * self.layers * keys * size

    def trained(self, lora: LoraSection | None) -> int:
        """Numbers that are trained: all, or LoRA's rank·(in + out) of each of its linear layers.

        `lora.targets` are the ends of modules' names; None means every linear layer but the head.
        """
        if lora is None:
            return self.parameters
        layers = [layer for _, layer in adapted_layers(self._meta, lora.targets)]
        return sum(lora.rank * sum(cast(torch.Tensor, layer.weight).shape) for layer in layers)

    def memory(
        self,
        *,
        rows: int,
        length: int,
        dtype: torch.dtype,
        attention: str = "auto",
        autocast: torch.dtype | None = None,
        checkpointing: bool = False,
        trains: bool = True,
        lora: LoraSection | None = None,
    ) -> BodyMemory:
        """What forward and backward of the body take; under `lora` its matrices alone get gradients.

        Layers add alike, so that a deep model is told from two shallow ones; where they do not, the whole is walked.
        """

        matrices = None if lora is None else LoraSettings(**dataclasses.asdict(lora))

        def walked(layers: int) -> tuple[BodyMemory, int]:
            model = outlined(
                _cut(self.config, layers), dtype=dtype, attention=attention, checkpointing=checkpointing, lora=matrices
            )
            found = body_memory(model, rows=rows, length=length, autocast=autocast, trains=trains)
            return found, sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name)

        if self.layers <= _SOME:
            return walked(self.layers)[0]
        (few, small), (some, large) = walked(_FEW), walked(_SOME)
        steps, left = _SOME - _FEW, self.layers - _FEW
        if small + (large - small) * left // steps != self.parameters:
            return walked(self.layers)[0]

        def grown(key: str) -> int:
            return int(getattr(few, key) + (getattr(some, key) - getattr(few, key)) * left // steps)

        return BodyMemory(kept=grown("kept"), forward=grown("forward"), backward=grown("backward"))


def _cut(config: Any, layers: int) -> Any:
    """The configuration of the same model with its first layers only."""
    small = copy.deepcopy(config)
    small.num_hidden_layers = layers
    if getattr(small, "layer_types", None):
        small.layer_types = list(small.layer_types)[:layers]
    return small
