"""What a clip network sees of a token: both distributions, as logarithms, without gradient."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Both entropies, the largest p, and the teacher's mass outside of the classes that are seen one by one.
SUMMARY_FEATURES = 4


def ranked_features(*, target_nk: Float[Tensor, "n k"], student_nk: Float[Tensor, "n k"]) -> Float[Tensor, "n 2*k+4"]:
    """Of the k likeliest classes, in order, log p and then log q; of both distributions the entropy, all other classes
    taken as one; the largest p, and the teacher's mass outside the k."""
    p_nk, q_nk = target_nk.exp(), student_nk.exp()
    rest_n = (1 - p_nk.sum(-1)).clamp(min=0.0)
    entropies = [
        torch.special.entr(each_nk).sum(-1) + torch.special.entr((1 - each_nk.sum(-1)).clamp(min=0.0))
        for each_nk in (p_nk, q_nk)
    ]
    summary_n4 = torch.stack([*entropies, p_nk[:, 0], rest_n], dim=-1)
    return torch.cat([_scaled(target_nk), _scaled(student_nk), summary_n4], dim=-1)


def whole_features(
    *, target_nV: Float[Tensor, "n V"], ordered_nV: Float[Tensor, "n V"], student_nV: Float[Tensor, "n V"]
) -> Float[Tensor, "n 3*V"]:
    """The paper's input (MGSR, arXiv 2407.10068, Eq. 6), log-scaled: p, p sorted from the largest, q."""
    return torch.cat([_scaled(each) for each in (target_nV, ordered_nV, student_nV)], dim=-1)


def classes_and_summary(features_nF: Float[Tensor, "n F"]) -> tuple[Float[Tensor, "n 2 k"], Float[Tensor, "n 4"]]:
    """`ranked_features` taken apart, with 0 where a class has no mass (e⁻²⁰ or less), as behind the last class."""
    size = (features_nF.shape[-1] - SUMMARY_FEATURES) // 2
    seen_n2k = features_nF[:, : 2 * size].reshape(-1, 2, size)
    return seen_n2k + 2.0, features_nF[:, 2 * size :]


def _scaled(logp: Tensor) -> Tensor:
    """Log-probabilities from e⁻²⁰ to 1 as numbers from −2 to 2: raw ones are so small that a network sees nothing."""
    return (logp.clamp(min=-20.0) + 10.0) / 5.0
