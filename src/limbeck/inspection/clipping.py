"""MGSR, arXiv 2407.10068: how the fields of DAC-KL and of its clip networks stand to the paper."""

from __future__ import annotations

from limbeck.inspection.readings import OTHERWISE, PRINTED, Fields, Reading
from limbeck.losses.clip_networks import MLP
from limbeck.losses.dac import DACKL
from limbeck.methods import Method

CLIPPED: Fields = {
    (Method, "token"): {DACKL: PRINTED, OTHERWISE: Reading("differs", "DAC-KL; others are compared in Table 3c")},
    (DACKL, "clip"): {MLP: PRINTED, OTHERWISE: Reading("differs", "f_sub is a learnable MLP (Eq. 6)")},
    (DACKL, "features"): {
        "topk": Reading(
            "differs",
            "f_sub sees all of p, sorted p and q: 3·V numbers a token (Eq. 6)",
            "one size at every vocabulary: 3·V inputs are 6 to 30 million weights and a full sort; `full` is the "
            "paper's",
        ),
        "full": PRINTED,
    },
    (DACKL, "top"): Reading(
        "differs",
        "every class of the vocabulary has its own place",
        "f_sub sees these; by mass, all others keep their p and q and share one gate, at half of their mass. `full` "
        "does not read it",
    ),
    (DACKL, "coordinate"): {
        "mass": Reading(
            "open",
            "the text calls u and l quantiles of the teacher's distribution, Eq. 7 compares them with probabilities",
            "a quantile is a share of mass: l = 0.05 cuts off a tail of 5 % at any V. Probabilities crowd at 0, so "
            "that a σ near one half keeps the likeliest class alone; `value` is Eq. 7 to the letter",
        ),
        "value": Reading(
            "open",
            "Eq. 7 keeps l ≤ v ≤ u; the text calls u and l quantiles",
            "thresholds on the probabilities themselves, gated by their logarithms",
        ),
        "rank": Reading(
            "open",
            "the text calls u and l quantiles of the teacher's distribution; quantiles of its V numbers are ranks",
            "a share of the classes; the head is a few of V, and lies within V⁻¹ of 1",
        ),
    },
    (DACKL, "normalise"): {
        "teacher": Reading(
            "open",
            "the kept classes make “a new probability vector”; whether it sums to 1 is not said",
            "p̃ sums to 1, q stays the student's whole softmax: the loss is at least 0, and one class alone is no "
            "minimum. Without it the loss may be negative, with both renormalised the clip falls to one class",
        ),
        "none": Reading(
            "open",
            "Eq. 8 sums over the kept classes as they are",
            "to the letter; the sum may be negative, and the clip gains by dropping mass",
        ),
        "both": Reading(
            "open",
            "the kept classes make “a new probability vector” of the teacher, and one of the student",
            "one class alone costs 0: a clip that minimises it keeps nothing else; for bounds that are fixed, or "
            "learned by an objective of their own",
        ),
        "rest": Reading(
            "differs",
            "what is not kept is not mentioned again",
            "it is one more class of both, a proper KL; fewer classes never cost more, so that a clip that minimises "
            "it ends with one as well",
        ),
    },
    (DACKL, "softness"): Reading(
        "differs",
        "a class is kept or not (Eq. 7)",
        "a hard choice gives f_sub no gradient; gates of width τ in the logit of the coordinate do",
    ),
    (DACKL, "gates"): {
        "soft": Reading(
            "differs",
            "a class is kept or not (Eq. 7); how f_sub learns from a set is not said",
            "a hard choice gives f_sub no gradient, soft gates do",
        ),
        "straight-through": Reading(
            "open",
            "a class is kept or not (Eq. 7); how f_sub learns from a set is not said",
            "hard by value, the derivative of soft gates",
        ),
        "hard": Reading("printed", "a class is kept or not (Eq. 7)", "without gradient: for bounds that are fixed"),
    },
    (DACKL, "parts"): {
        "both": PRINTED,
        "target": Reading("differs", "the dense classes and the target class (Eq. 7); a row of Table 3b"),
        "dense": Reading("differs", "the dense classes and the target class (Eq. 7); a row of Table 3b"),
    },
    (DACKL, "clip_objective"): {
        "joint": Reading(
            "open", "what f_sub minimises is not said", "the same loss as the student: nothing has to be added"
        ),
        "detached": Reading("open", "what f_sub minimises is not said", "a small set that holds enough of the teacher"),
    },
    (DACKL, "size_weight"): {0.0: PRINTED, OTHERWISE: Reading("differs", "Eq. 8 has no second term")},
    (DACKL, "coverage_weight"): {0.0: PRINTED, OTHERWISE: Reading("differs", "Eq. 8 has no second term")},
    (DACKL, "least_mass"): Reading(
        "differs", "Eq. 8 has no second term", "read with a coverage_weight above 0 only, which is 0 by default"
    ),
    (MLP, "hidden"): Reading(
        "open", "neither depth nor width is given", "two layers; with `topk`, 64 units are 66,000 weights"
    ),
    (MLP, "learning_rate"): Reading(
        "open",
        "5e-4 for all experiments; f_sub's is not mentioned",
        "a group of its own, without decay and clipped apart from the student's gradient",
    ),
}
