"""A smaller student cut out of a bigger model: fewer layers, and optionally a narrower MLP.

Which layers go decides how much is left: of SmolLM2-135M, the layers that are missed least, as measured, keep far more
than every second layer.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from limbeck.errors import ConfigError, NothingToLearn
from limbeck.losses.heads import auto_chunk
from limbeck.models.loading import merged
from limbeck.models.pair import Vocabulary, logits_width
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.types import Sequences

_MEASURED = {"smollm2-135m-instruct": "shrink_smollm2.json"}

# (projections into the MLP, projection out of it, name of the width in the config)
_MLPS = (
    (("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj", "intermediate_size"),
    (("fc1",), "fc2", "ffn_dim"),
    (("mlp.c_fc",), "mlp.c_proj", "n_inner"),
)


def drop_importance(
    model: PreTrainedModel, sequences: Sequences, *, reference: PreTrainedModel | None = None
) -> tuple[float, ...]:
    """How far predictions move when one layer is left out, for each layer, in nats per token.

        I_l = mean over response tokens of KL(p_reference ‖ p_without layer l)

    `reference` is the model itself unless given. One forward over the rows per layer; softmax in float32, chunk by
    chunk. Raises `NothingToLearn` without response tokens. Does not see how layers make up for each other: the score
    of two layers is not their sum (`drop_order` measures again after each drop).
    """
    where = scored_tokens(sequences)
    if not len(where):
        raise NothingToLearn("drop_importance needs response tokens; the rows have none")
    vocabulary = Vocabulary(size=logits_width(model), shared=None, dropped_student=())
    sequences, where = sequences.to(model.device), scored_tokens(sequences.to(model.device))
    scorer = Scorer.of(model, vocabulary=vocabulary)
    whole = scorer if reference is None else Scorer.of(reference, vocabulary=vocabulary)
    full, without = whole.view(sequences, where), []
    for layer in _layers(model)[1]:
        handle = layer.register_forward_hook(_skip, with_kwargs=True)
        try:
            without.append(scorer.view(sequences, where))
        finally:
            handle.remove()
    sums = [0.0] * len(without)
    chunk = auto_chunk(full.head.size, model.device.type)
    with torch.no_grad():
        for start in range(0, len(where), chunk):
            p = full.head(full.hidden[start : start + chunk])
            for i, view in enumerate(without):
                q = view.head(view.hidden[start : start + chunk])
                sums[i] += float((p.exp() * (p - q)).sum(dtype=torch.float64))
    return tuple(total / len(where) for total in sums)


def drop_order(model: PreTrainedModel, sequences: Sequences, *, keep: int, at_once: int = 1) -> tuple[int, ...]:
    """The layers to drop, first the one that is missed least, until `keep` are left.

    After every `at_once` drops the importance of the remaining layers is measured again, against the whole model.
    Takes about (layers² − keep²) / (2 · at_once) forwards over the rows. Raises `ConfigError`, `NothingToLearn`.
    """
    left = list(range(len(_layers(model)[1])))
    if not 1 <= keep <= len(left) or at_once < 1:
        raise ConfigError(
            f"keep {keep} of {len(left)} layers, {at_once} at once: keep 1 to {len(left)}, at least 1 at once"
        )
    order: list[int] = []
    while len(left) > keep:
        scores = drop_importance(shrink(model, layers=left), sequences, reference=model)
        ranked = sorted(range(len(left)), key=lambda i: (scores[i], i))
        gone = [left[i] for i in ranked[: min(at_once, len(left) - keep)]]
        order += gone
        left = [layer for layer in left if layer not in gone]
    return tuple(order)


def _skip(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """A forward hook that puts out what came in, in the form of the layer's own output."""
    hidden = args[0] if args else kwargs["hidden_states"]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def measured_layers(name: str, layers: int) -> tuple[int, ...]:
    """The layers to keep of a packaged model, by the `drop_order` that ships with Limbeck. Raises `ConfigError`."""
    if name not in _MEASURED:
        raise ConfigError(
            f"no layer importance was measured for '{name}' (only for: {', '.join(_MEASURED)})"
            "\n  give the numbers of the layers to keep, or importance=drop_importance(model, sequences)"
        )
    text = resources.files("limbeck.models").joinpath(_MEASURED[name]).read_text(encoding="utf-8")
    record = json.loads(text)
    total, order = len(record["importance"]), record["drop_order"]
    if not total - len(order) <= layers <= total:
        raise ConfigError(
            f"{layers} layers of '{name}' were not measured; choose {total - len(order)} to {total},"
            " or give the numbers of the layers to keep"
        )
    gone = set(order[: total - layers])
    return tuple(i for i in range(total) if i not in gone)


def keep_most_important(importance: Sequence[float], layers: int) -> tuple[int, ...]:
    """The `layers` most important layers, in their own order. Raises `ConfigError`.

    >>> keep_most_important([0.5, 0.1, 0.3], 2)
    (0, 2)
    """
    if not 1 <= layers <= len(importance):
        raise ConfigError(f"{layers} layers cannot be kept of {len(importance)}; choose 1 to {len(importance)}")
    ranked = sorted(range(len(importance)), key=lambda i: (-importance[i], i))
    return tuple(sorted(ranked[:layers]))


def shrink(
    model: PreTrainedModel,
    *,
    layers: int | Sequence[int] | None = None,
    importance: Sequence[float] | None = None,
    mlp_width: int | None = None,
) -> PreTrainedModel:
    """A copy with fewer layers and a narrower MLP; weights that stay are unchanged.

    `layers`: the numbers of the layers to keep, or how many: then the most important ones by `importance`, or, without
    it, by the measurement that ships for the model's name. `mlp_width`: MLP units to keep in every layer, those with
    the largest product of the norms of their weights in and out. Embeddings, head and norms stay. The copy has the
    device, dtype and tokenizer name of the model; LoRA is merged first. Raises `ConfigError`.
    """
    model = merged(model)
    prefix, old = _layers(model)
    kept = _kept(model, total=len(old), layers=layers, importance=importance)
    config = _smaller_config(model.config, kept=kept, total=len(old))
    state = _keep_layers(model.state_dict(), prefix=prefix, kept=kept)
    if mlp_width is not None:
        field, state = _narrow(model, state, prefix=prefix, count=len(kept), width=mlp_width)
        setattr(config, field, mlp_width)
    with torch.random.fork_rng(devices=[]):
        small = AutoModelForCausalLM.from_config(
            config, dtype=model.dtype, attn_implementation=model.config._attn_implementation
        )
    small.load_state_dict(state)
    small.tie_weights()
    small.generation_config = copy.deepcopy(model.generation_config)
    small.name_or_path = model.name_or_path
    return small.to(model.device).train(model.training)


def _layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The path and list of the model's decoder layers."""
    total = model.config.num_hidden_layers
    found = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    if len(found) != 1:
        raise ConfigError(
            f"the layers of a {type(model).__name__} were not found: {len(found)} lists of {total} modules"
            "\n  give a decoder-only model such as LLaMA, Qwen, Gemma, GPT-2 or OPT"
        )
    return found[0]


def _kept(
    model: PreTrainedModel, *, total: int, layers: int | Sequence[int] | None, importance: Sequence[float] | None
) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(total))
    if isinstance(layers, int):
        if not 0 < layers <= total:
            raise ConfigError(f"{layers} of {total} layers cannot be kept; choose 1 to {total}")
        if importance is None:
            layers = measured_layers(model.name_or_path, layers)
        elif len(importance) != total:
            raise ConfigError(f"importance has {len(importance)} numbers, but the model has {total} layers")
        else:
            layers = keep_most_important(importance, layers)
    kept = tuple(layers)
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= total:
        raise ConfigError(f"layers to keep must be rising numbers from 0 to {total - 1}; got {list(kept)}")
    return kept


def _smaller_config(config: PretrainedConfig, *, kept: Sequence[int], total: int) -> PretrainedConfig:
    small = copy.deepcopy(config)
    for name, value in vars(config).items():
        # One entry a layer, such as Gemma's layer_types; other lists (eos_token_id) may have that length by chance.
        if "layer" in name and isinstance(value, list) and len(value) == total:
            setattr(small, name, [value[i] for i in kept])
    small.num_hidden_layers = len(kept)
    return small


def _keep_layers(state: dict[str, Tensor], *, prefix: str, kept: Sequence[int]) -> dict[str, Tensor]:
    """The state with the kept layers renumbered from 0."""
    place = {old: new for new, old in enumerate(kept)}
    smaller = {}
    for key, value in state.items():
        if not key.startswith(f"{prefix}."):
            smaller[key] = value
            continue
        number, _, rest = key.removeprefix(f"{prefix}.").partition(".")
        if int(number) in place:
            smaller[f"{prefix}.{place[int(number)]}.{rest}"] = value
    return smaller


def _narrow(
    model: PreTrainedModel, state: dict[str, Tensor], *, prefix: str, count: int, width: int
) -> tuple[str, dict[str, Tensor]]:
    """The config's name for the MLP width, and the state with `width` units a layer."""
    names = vars(model.config)
    mlp = next((mlp for mlp in _MLPS if f"{prefix}.0.{mlp[1]}.weight" in state and mlp[2] in names), None)
    if mlp is None:
        raise ConfigError(f"mlp_width cannot be changed for a {type(model).__name__}; leave it out")
    into, out, field = mlp
    # GPT-2's Conv1D stores [in, out], a Linear [out, in].
    unit_axis = 1 if isinstance(model.get_submodule(f"{prefix}.0.{out}"), Conv1D) else 0
    state = dict(state)
    for i in range(count):
        out_key = f"{prefix}.{i}.{out}.weight"
        have = state[out_key].shape[1 - unit_axis]
        if not 1 <= width <= have:
            raise ConfigError(f"mlp_width {width} is out of range; the model has {have} units, choose 1 to {have}")
        score = _norms(state[out_key], axis=1 - unit_axis)
        for name in into:
            score = score * _norms(state[f"{prefix}.{i}.{name}.weight"], axis=unit_axis)
        units = score.topk(width).indices.sort().values
        state[out_key] = state[out_key].index_select(1 - unit_axis, units)
        for name in into:
            weight, bias = f"{prefix}.{i}.{name}.weight", f"{prefix}.{i}.{name}.bias"
            state[weight] = state[weight].index_select(unit_axis, units)
            if bias in state:
                state[bias] = state[bias][units]
    return field, state


def _norms(weight: Float[Tensor, "a b"], *, axis: int) -> Float[Tensor, " n"]:
    """The L2 norm of each slice along `axis`."""
    norms: Tensor = torch.linalg.vector_norm(weight.float(), dim=1 - axis)
    return norms
