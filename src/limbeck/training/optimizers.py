"""AdamW, the learning-rate schedule, and clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from limbeck.losses.match import TermToBuild

Schedule = Literal["cosine", "constant", "linear"]


def learning_rate(
    step: int, *, steps: int, peak: float, schedule: Schedule, warmup: int = 0, final: float = 0.0
) -> float:
    """The learning rate of step 1 … `steps`.

        step ≤ warmup:  peak · step / warmup
        afterwards, with x = (step − 1 − warmup) / (steps − warmup):
            constant  peak
            linear    final + (peak − final)·(1 − x)
            cosine    final + (peak − final)·(1 + cos πx) / 2    (Loshchilov and Hutter, arXiv 1608.03983, Eq. 5)

    >>> [round(learning_rate(s, steps=4, peak=1.0, schedule="linear"), 2) for s in (1, 2, 3, 4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    if step <= warmup:
        return peak * step / warmup
    if schedule == "constant":
        return peak
    share = min(1.0, (step - 1 - warmup) / max(1, steps - warmup))
    factor = 1 - share if schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
    return final + (peak - final) * factor


def own_rates(components: Mapping[str, object], modules: nn.ModuleDict, *, peak: float) -> dict[nn.Module, float]:
    """The terms that own weights, with their components' peak learning rate as a multiple of the run's."""
    built = {name: part for name, part in components.items() if isinstance(part, TermToBuild)}
    return {
        module: built[name].learning_rate / peak
        for name, module in modules.items()
        if any(True for _ in module.parameters())
    }


def adamw(
    module: nn.Module,
    *,
    weight_decay: float,
    betas: tuple[float, float],
    sharded: bool,
    own_rates: Mapping[nn.Module, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101, Algorithm 2) over the trainable parameters.

    Matrices decay, vectors (biases, norm weights) do not. The parts of `own_rates` (clip networks) have groups of
    their own, without decay, whose rate is `rate` times the run's. The run's rate is set before every step.
    """
    own_rates = own_rates or {}
    apart = {parameter for part in own_rates for parameter in part.parameters()}
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter not in apart]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": weight_decay, "rate": 1.0},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0, "rate": 1.0},
    ]
    groups += [
        {"params": list(part.parameters()), "weight_decay": 0.0, "rate": rate} for part, rate in own_rates.items()
    ]
    # The fused kernel reads each parameter once; it does not take sharded tensors on a CPU.
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=betas, fused=not sharded)


def clipped_norm(parameters: Iterable[nn.Parameter], *, clip_norm: float | None) -> float:
    """The L2 norm of the gradient before clipping; gradients are scaled to at most `clip_norm` if one is given."""
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    limit = math.inf if clip_norm is None else clip_norm
    norm: Tensor = torch.nn.utils.clip_grad_norm_(with_gradient, limit, foreach=True)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
