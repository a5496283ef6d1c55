"""Dropout is off unless a recipe asks for it."""

from __future__ import annotations

from torch import nn


def silence_dropout(model: nn.Module) -> None:
    """Set every dropout probability of the modules to 0; the saved configuration keeps its values.

    Covers dropout modules and the plain numbers that attention layers keep (`attention_dropout`, `layerdrop`).
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in name or name == "layerdrop"):
                setattr(module, name, 0.0)
