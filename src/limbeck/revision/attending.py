"""What a teacher attends to while it reads drawn rows: each map is summed up in the layer that makes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from limbeck.errors import ConfigError
from limbeck.losses.views import HiddenView
from limbeck.models.scoring import Scored, Scorer, causal
from limbeck.types import Sequences

# The last layers that are read: one of so many, rounded up.
_ONE_OF = 4


@torch.no_grad()
def view_with_attention(teacher: Scorer, sequences: Sequences, where: Scored) -> tuple[HiddenView, Float[Tensor, " N"]]:
    """The teacher's view of these rows, and how much attention each scored token has from those behind it.

        a_i = mean over layers l and heads h of 1/|R_li| · Σ_{k ∈ R_li} A_lh[k, i]

    A_lh[k, i]: the share of head h's attention that token k gives to token i. R_li: the response tokens k > i of the
    row that see i in layer l; 0 where there is none. Layers: the last quarter, rounded up, of those with attention.
    Numbers in float32.

    It is one pass, the one that a view takes, but with eager attention: other kernels never form the maps. Each is
    `[B H S S]` and is let go when its layer is done. Afterwards the model has the attention that it had before. Raises
    `ConfigError` for a model that does not show its attention. Not meant for float64: eager attention computes in
    float32, where the mask of a padded place outside of every window is a NaN.
    """
    model = causal(teacher.model)
    received = _Received(sequences, model=model)
    with _eager(model), received.listening():
        view = teacher.view(sequences, where)
    return view, received.mean()[where.rows, where.positions]


class _Received:
    """The attention that each token has from its readers, layer by layer."""

    def __init__(self, sequences: Sequences, *, model: Any) -> None:
        width = sequences.tokens.shape[1]
        later_SS = torch.ones(width, width, dtype=torch.bool, device=sequences.tokens.device).tril(-1)
        self._readers_BSS: Bool[Tensor, "B S S"] = later_SS & sequences.is_response[:, :, None]
        self._model = model
        self._layers = _last_attention_layers(model)
        self._means_BS: list[Float[Tensor, "B S"]] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While it lasts, each pass of the layers is counted."""
        with ExitStack() as hooks:
            for layer in self._layers:
                hooks.callback(layer.register_forward_hook(self._listen, with_kwargs=True).remove)
            yield

    def mean(self) -> Float[Tensor, "B S"]:
        """The mean over layers, after one pass."""
        if len(self._means_BS) != len(self._layers):
            raise _refusal(self._model)
        return torch.stack(self._means_BS).mean(dim=0)

    def _listen(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        is_pair = isinstance(output, tuple) and len(output) > 1
        maps_BHSS = output[1] if is_pair else None
        if not isinstance(maps_BHSS, Tensor) or maps_BHSS.dim() != 4:
            raise _refusal(self._model)
        readers_BSS = self._readers_BSS.to(maps_BHSS.device)
        mask = kwargs.get("attention_mask")
        if mask is not None:
            readers_BSS = readers_BSS & self._visible(mask)
        attention_BSS = maps_BHSS.mean(dim=1, dtype=torch.promote_types(maps_BHSS.dtype, torch.float32))
        # Rows of the map are readers, columns are what they read.
        total_BS = attention_BSS.masked_fill(~readers_BSS, 0.0).sum(dim=1)
        self._means_BS.append((total_BS / readers_BSS.sum(dim=1).clamp(min=1)).float())
        return (output[0], None, *output[2:])

    def _visible(self, mask: Any) -> Bool[Tensor, "#B S S"]:
        """What a layer's mask lets see: windows are in the mask alone."""
        if not isinstance(mask, Tensor) or mask.dim() != 4:
            raise _refusal(self._model)
        return mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] > torch.finfo(mask.dtype).min / 2


def _last_attention_layers(model: Any) -> list[nn.Module]:
    """The modules of the last layers that transformers names as those whose second output is an attention map."""
    named = getattr(model.base_model, "can_record_outputs", {}).get("attentions", [])
    kinds = [getattr(each, "target_class", each) for each in (named if isinstance(named, list) else [named])]
    classes: tuple[type[nn.Module], ...] = tuple(kind for kind in kinds if isinstance(kind, type))
    layers = [module for module in model.base_model.modules() if isinstance(module, classes)]
    if not layers:
        raise _refusal(model)
    return layers[-math.ceil(len(layers) / _ONE_OF) :]


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Eager attention, and what was there before."""
    change: Callable[[str | dict[str, str]], None] = model.set_attn_implementation
    config = model.config
    parts = {name: part for name in config.sub_configs if (part := getattr(config, name, None)) is not None}
    before = {name: part._attn_implementation for name, part in {"": config, **parts}.items()}
    try:
        change("eager")
        yield
    finally:
        change(before)


def _refusal(model: Any) -> ConfigError:
    return ConfigError(
        f"a detector needs attention in its evidence, which a {type(model).__name__} does not show\n  its layers would"
        " have to run with eager attention and give their maps, as those of LLaMA, Qwen, Gemma, GPT-2 and OPT do"
        "\n  take another teacher, or a detector without that need"
    )
