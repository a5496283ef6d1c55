"""How DAC-KL's variants and partial targets can be built wrong, as one-line changes; see `wounds.py`."""

from __future__ import annotations

from mutants import clip_invariants as invariants
from mutants.wounds import Mutant

CLIP = 12
_GATES = "limbeck.losses.gating:Gating"
_LOSS = "limbeck.losses.clipping:clipped_loss"
_TERM = "limbeck.losses.dac:ClippedKL"
_TARGETS = "limbeck.losses.targets"

MUTANTS = (
    Mutant(
        CLIP,
        "straight-through leaks the soft gate into the value",
        f"{_GATES}.__call__",
        "(soft_nk - soft_nk.detach())",
        "soft_nk",
        invariants.straight_through_gates_are_hard_by_value_and_soft_by_derivative,
    ),
    Mutant(
        CLIP,
        "straight-through passes no gradient",
        f"{_GATES}.__call__",
        "soft_nk = log_nk.exp()",
        "soft_nk = log_nk.exp().detach()",
        invariants.straight_through_gates_are_hard_by_value_and_soft_by_derivative,
    ),
    Mutant(
        CLIP,
        "R1 renormalises one side only",
        _LOSS,
        "odds_n = mass_n.log() - student_mass_n.clamp(min=_tiny(mass_n)).log()",
        "odds_n = mass_n.log()",
        invariants.every_reading_of_the_clip_is_that_of_the_equations,
    ),
    Mutant(
        CLIP,
        "R2 forgets what the student has in the rest",
        _LOSS,
        " - student_left_n.clamp(min=_tiny(left_n)).log()",
        "",
        invariants.every_reading_of_the_clip_is_that_of_the_equations,
    ),
    Mutant(
        CLIP,
        "hard gates keep the soft entropy",
        f"{_GATES}.__call__",
        "log=torch.zeros_like(log_nk)",
        "log=log_nk.clamp(min=-30)",
        invariants.every_reading_of_the_clip_is_that_of_the_equations,
    ),
    Mutant(
        CLIP,
        "the target class is in the dense region alone, too",
        f"{_GATES}.__call__",
        'self.parts != "dense" and ',
        "",
        invariants.every_reading_of_the_clip_is_that_of_the_equations,
    ),
    Mutant(
        CLIP,
        "ids that are not shared have ranks",
        f"{_TERM}._window",
        "(all_nV > -torch.inf)",
        "torch.ones_like(all_nV)",
        invariants.every_reading_of_the_clip_is_that_of_the_equations,
    ),
    Mutant(
        CLIP,
        "by rank the others lie at their end, not in the middle",
        f"{_GATES}.rest_place",
        "(behind_n.log() - (num_classes_n + num_before).log())",
        "(behind_n.log() - num_classes_n.log())",
        invariants.every_reading_of_the_clip_is_that_of_the_equations,
    ),
    Mutant(
        CLIP,
        "a detached clip follows the student's loss",
        f"{_TERM}._loss",
        "window.detached() if part.clip_objective",
        "window if part.clip_objective",
        invariants.a_detached_clip_is_not_moved_by_the_students_loss,
    ),
    Mutant(
        CLIP,
        "the size is counted, not a share",
        f"{_TERM}._loss",
        " / all_nV.shape[-1]",
        "",
        invariants.a_clips_own_objective_is_size_and_missing_mass,
    ),
    Mutant(
        CLIP,
        "mass beyond the least is charged for",
        f"{_TERM}._loss",
        "(part.least_mass - kept.mass)",
        "(kept.mass - part.least_mass)",
        invariants.a_clips_own_objective_is_size_and_missing_mass,
    ),
    Mutant(
        CLIP,
        "a partial target is not renormalised",
        f"{_TARGETS}:_renormalised",
        "torch.log_softmax(raised_nV.masked_fill(~is_kept_nV, -torch.inf), dim=-1)",
        "raised_nV.masked_fill(~is_kept_nV, -torch.inf)",
        invariants.partial_targets_sum_to_one,
    ),
    Mutant(
        CLIP,
        "the class at the edge falls out of the nucleus",
        f"{_TARGETS}:NucleusTarget.__call__",
        "p_nV.cumsum(-1) - p_nV < self.p",
        "p_nV.cumsum(-1) < self.p",
        invariants.partial_targets_sum_to_one,
    ),
    Mutant(
        CLIP,
        "a temperature without its square",
        "limbeck.losses.match:Match.__call__",
        "temperature**2 * gap_n",
        "gap_n",
        invariants.a_temperature_multiplies_by_its_square,
    ),
)
