"""A teacher of which only some classes are known at each token, and how much mass all others have together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SparseView:
    """Log-probabilities of `m` classes a token, in nats, and of the rest as one: Σ exp(logp) + exp(rest) = 1.

    An entry of `ids` that is `size` stands for no class; its `logp` is −inf. `shared` are the ids of the vocabulary
    rule, where these are no prefix.
    """

    ids: Int[Tensor, "N m"]
    logp: Float[Tensor, "N m"]
    rest: Float[Tensor, " N"]
    size: int
    shared: Bool[Tensor, " V"] | None = None

    def log_probabilities(self, chunk: slice) -> Float[Tensor, "n V"]:
        """With the rest's mass spread evenly over its classes: right at known classes, to look at and to measure.

        >>> view = SparseView(
        ...     ids=torch.tensor([[1]]), logp=torch.tensor([[0.5]]).log(), rest=torch.tensor([0.5]).log(), size=3
        ... )
        >>> view.log_probabilities(slice(0, 1)).exp()
        tensor([[0.2500, 0.5000, 0.2500]])
        """
        even_nV = self.logp.new_zeros((len(self.ids[chunk]), self.size))
        if self.shared is not None:
            even_nV = even_nV.masked_fill(~self.shared.to(even_nV.device), -torch.inf)
        return self.completed(chunk, student_logp=even_nV)

    @torch.no_grad()
    def completed(self, chunk: slice, *, student_logp: Float[Tensor, "n V"]) -> Float[Tensor, "n V"]:
        """With the rest's mass spread as the student spreads it: t_v = r · q_v / Q, r the rest's mass, Q = Σ_rest q.

        Every f-divergence (forward and reverse KL, JSD, TVD) between this and q is then the divergence of the two
        distributions over the known classes and one class for the rest,

            KL(t ‖ q) = Σ_known t·log(t/q) + r·log(r/Q)

        in value and, since the target is a constant, in gradient: a true KL, at least 0, that says nothing about what
        the teacher thinks inside the rest. On the student's device and in its dtype.

        >>> view = SparseView(
        ...     ids=torch.tensor([[1]]), logp=torch.tensor([[0.5]]).log(), rest=torch.tensor([0.5]).log(), size=3
        ... )
        >>> view.completed(slice(0, 1), student_logp=torch.tensor([[0.3, 0.6, 0.1]]).log()).exp()
        tensor([[0.3750, 0.5000, 0.1250]])
        """
        device, dtype = student_logp.device, torch.promote_types(student_logp.dtype, torch.float32)
        ids_nm = self.ids[chunk].to(device)
        logp_nm, rest_n1 = self.logp[chunk].to(device, dtype), self.rest[chunk].to(device, dtype).unsqueeze(1)
        # One column more than there are classes takes the entries that stand for none.
        known_nV = torch.zeros((len(ids_nm), self.size + 1), dtype=torch.bool, device=device)
        known_nV = known_nV.scatter(1, ids_nm, True)[:, : self.size]
        others_nV = student_logp.detach().to(dtype).masked_fill(known_nV, -torch.inf)
        mass_n1 = torch.logsumexp(others_nV, dim=-1, keepdim=True)
        shift_n1 = torch.where(rest_n1.isinf() | mass_n1.isinf(), -torch.inf, rest_n1 - mass_n1)
        whole_nV = torch.cat([others_nV + shift_n1, rest_n1.new_full((len(ids_nm), 1), -torch.inf)], dim=1)
        return whole_nV.scatter(1, ids_nm, logp_nm)[:, : self.size]
