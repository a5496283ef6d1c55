"""MGSR, arXiv 2407.10068: field by field, what the paper prints and what is read where it prints nothing or two things.

The reasons at length are in docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from limbeck.inspection.clipping import CLIPPED
from limbeck.inspection.corrections import CORRECTED
from limbeck.inspection.extractors import EXTRACTED
from limbeck.inspection.off_policy import REPLAY_BESIDE, REPLAY_FIELDS
from limbeck.inspection.readings import OTHERWISE, PRINTED, Fields, Paper, Reading, Readings
from limbeck.inspection.terms import NO_PLAIN_TEXT
from limbeck.losses.clip_networks import MLP
from limbeck.losses.correlation import Correlation
from limbeck.losses.dac import DACKL
from limbeck.methods import Method, Weights
from limbeck.revision import SCRG
from limbeck.sequences import Fixed, Mixture, Replay, Student

_ALL_ONE = {1.0: PRINTED, OTHERWISE: Reading("differs", "Eq. 11 adds the three losses, each with weight 1")}

_SEQUENCES: Fields = {
    (Method, "sequences"): {
        Mixture: Reading(
            "open",
            "SCRG goes with on-policy sampling (a mixture of drawn and fixed data, as GKD) and with off-policy "
            "sampling (an adaptive scheduler, as DistiLLM)",
            "the on-policy rows of Table 3a carry the headline numbers",
        ),
        Replay: Reading(
            "open",
            "“an adaptive scheduler”, as DistiLLM: the off-policy rows of Table 3a",
            "corrected rows are remembered, and not corrected again",
        ),
    },
    (Mixture, "first"): {Student: PRINTED},
    (Mixture, "second"): {Fixed: PRINTED},
    (Mixture, "share"): Reading("open", "GKD's mixture, without its share", "0.5 is the mixture that GKD studies"),
    (Student, "horizon"): {None: PRINTED, OTHERWISE: Reading("differs", "whole responses are drawn")},
}

_SPAN: Fields = {
    (Method, "span"): {
        Correlation: PRINTED,
        None: Reading("differs", "the span loss of Eq. 10 is a third of Eq. 11"),
    },
    **EXTRACTED,
}

_SUM: Fields = {
    (Method, "weights"): PRINTED,
    (Weights, "token"): _ALL_ONE,
    (Weights, "supervised"): _ALL_ONE,
    (Weights, "span"): _ALL_ONE,
    (Weights, "plain_text"): NO_PLAIN_TEXT,
    (Method, "reduction"): {
        "token": Reading(
            "differs",
            "Eq. 1, 8 and 10 average over a sequence first, then over sequences",
            "every token of a step weighs alike, as in the code of the baselines; `sequence` is as printed",
        ),
        "sequence": PRINTED,
    },
}

_BESIDE: Mapping[type, tuple[Reading, ...]] = {
    Mixture: (
        Reading(
            "open",
            "what is learned on fixed rows is not said",
            "all three terms; there is nothing to correct",
            "fixed rows",
        ),
    ),
    SCRG: (
        Reading(
            "open",
            "1 ≤ i ≤ n; “the error token within y^t”; prefixes written with ≤ i",
            "generated tokens up to and with the first stop token, in the student's y; prefixes are < i",
            "positions",
        ),
        Reading(
            "open",
            "no mismatch, a stop token as correction, the length limit: not mentioned",
            "no mismatch: nothing is redrawn; a stop token ends the row, but is not put first; the limit stays",
            "edges",
        ),
    ),
    DACKL: (
        Reading(
            "open",
            "“the target class with the most probability value” joins the kept classes, even if it is one of them",
            "the teacher's likeliest class, not the token that stands there; counted once, its gate 1",
            "target class",
        ),
        Reading(
            "open",
            "ŷ^s* takes the student's probabilities at the kept classes",
            "they are not renormalised (but with normalise `both`), so that mass outside costs something",
            "student",
        ),
        Reading(
            "open", "raw probabilities, gradients not mentioned", "log-scaled, without gradient to the models", "inputs"
        ),
    ),
    MLP: (
        Reading(
            "open",
            "σ of two outputs, then l is clipped to [0, u] (Eq. 6)",
            "l ≤ u by construction, since a clipped l has no gradient; it starts open: l = 0.0025, u = 0.9975",
            "bounds",
        ),
    ),
    Correlation: (
        Reading(
            "open",
            "ŷ stands for ŷ* “for simplicity” (§4.3): clipped or whole vectors?",
            "whole softmax distributions: clipped vectors of two tokens hold different classes",
            "distributions",
        ),
        Reading(
            "printed",
            "1/n_si, though a span of n_si tokens has n_si − 1 pairs",
            "as printed; a long span weighs a little more than a short one",
            "weight of a pair",
        ),
        Reading("open", "‖·‖₂, “the L2 distance”", "the norm, not its square; 1e-12 under the root", "norm"),
        Reading(
            "open",
            "n_s counts all spans",
            "spans of one token have no pair and are left out of n_s; a row without a span is left out of the mean",
            "short spans",
        ),
        Reading(
            "open",
            "spans of “the input sequences”, and of the sequence that SCRG gives",
            "the response alone, aligned by the ids that were generated",
            "where",
        ),
    ),
    Weights: (
        Reading(
            "open",
            "L_SFT is over (x, y) ~ (X, Y) (Eq. 2); on which rows of a drawn batch is not said",
            "always on the reference response of the step's rows, never on what the student drew",
            "supervised rows",
        ),
    ),
}

_SETTINGS: Mapping[str, Readings] = {
    "train.learning_rate": {5e-4: PRINTED, OTHERWISE: Reading("differs", "5e-4 in all experiments")},
    "train.schedule": Reading(
        "open",
        "“a fixed learning rate of 5e-4”: constant, or the same in all experiments?",
        "cosine is what the code of the baselines has",
    ),
    "train.epochs": Reading("differs", "20 for GPT-2, 10 for the larger models", "the default of every method is 1"),
    "train.batch_rows": Reading("open", "not given", "the default of every method"),
    "models.lora": Reading(
        "printed",
        "all weights for GPT-2; LoRA of rank 16 on query and value weights for LLaMA-2, OpenLLaMA-2 and OPT",
        "for the latter: models.lora={rank: 16, targets: [q_proj, v_proj]}",
    ),
    "models.student": Reading(
        "open",
        "the student's start is not given, the teacher is fine-tuned first",
        "a fine-tuned student answers well enough for one correction to help",
    ),
    "sampling.temperature": Reading("open", "not given", "1, as GKD and DistiLLM draw"),
    "validate.metric": {
        "rouge-l": Reading("open", "“the best-performing model” on validation", "by ROUGE-L, which the tables report"),
        OTHERWISE: Reading("open", "“the best-performing model” on validation"),
    },
}

MGSR = Paper(
    name="MGSR",
    source="arXiv 2407.10068",
    fields={**_SEQUENCES, **REPLAY_FIELDS, **CORRECTED, **CLIPPED, **_SPAN, **_SUM},
    beside={**_BESIDE, **REPLAY_BESIDE},
    settings=_SETTINGS,
)
