"""Whether the parts of a model, body and head, give what the whole gives."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.errors import ModelError

_AGREEMENT = 2e-3


def parts_agree(parts: Float[Tensor, "n V"], whole: Float[Tensor, "n V"], *, model: Any) -> bool:
    """Whether two sets of log-probabilities are equal up to rounding where the model's own are finite.

    `model` is named in the `ModelError` that is raised where none of them is.

    >>> whole = torch.tensor([[0.25, 0.75]]).log()
    >>> parts_agree(whole + 1e-4, whole, model=None), parts_agree(whole + 1e-2, whole, model=None)
    (True, False)
    """
    kept = torch.isfinite(whole)
    if not kept.any():
        name, dtype = model.config.name_or_path or "the model", str(model.dtype).removeprefix("torch.")
        raise ModelError(
            f"no logit of {name} is finite: its weights hold NaN or inf, or {dtype} is too narrow for it\n"
            "  name another copy, or another dtype (models.teacher_dtype, train.precision; --dtype of evaluate)"
        )
    spread = max(1.0, float(whole[kept].abs().max()))
    return bool(torch.allclose(parts[kept], whole[kept], rtol=0.0, atol=_AGREEMENT * spread))
