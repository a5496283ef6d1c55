"""DistiLLM, replay and its schedules, field by field, as the released code has them; the paper is cited, not quoted.

The code is `jongwooko/distillm` at d47e77f. Methods of other papers that are given this source read the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from limbeck.inspection.readings import OTHERWISE, PRINTED, Fields, Paper, Reading
from limbeck.inspection.terms import MATCHED, NOTHING_BESIDE, WHOLE
from limbeck.losses.divergences import SkewForwardKL, SkewReverseKL
from limbeck.losses.match import Match
from limbeck.methods import Method, Weights
from limbeck.sequences import Adaptive, Constant, Replay, Student

_BUFFERED = "the code of DistiLLM's comparison: fresh rows go into a buffer, and the step learns from rows of it"

REPLAY_FIELDS: Fields = {
    (Replay, "source"): {Student: PRINTED},
    (Replay, "schedule"): {
        Adaptive: PRINTED,
        Constant: Reading("differs", "φ follows the validation loss", "the share of drawn steps is the method's own"),
        OTHERWISE: Reading("differs", "φ follows the validation loss"),
    },
    (Replay, "capacity"): {
        1000: Reading("differs", "1,000 rows on each process", "1,000 over all processes: runs do not depend on them"),
        OTHERWISE: Reading("differs", "1,000 rows on each process"),
    },
    (Replay, "fresh"): {
        "decreasing": PRINTED,
        "constant": Reading("differs", "the fresh share falls over the run; the code offers φ/2 too"),
        "increasing": Reading("differs", "the fresh share falls over the run; the code offers φ·t/T too"),
    },
    (Replay, "replay_on_mixed"): {
        False: PRINTED,
        True: Reading("printed", _BUFFERED),
    },
    (Adaptive, "initial"): {
        0.0: PRINTED,
        0.2: PRINTED,
        0.5: Reading(
            "differs",
            "0, for OpenLLaMA-2 0.2",
            "with 0 nothing is drawn before the loss has risen, which a run of few steps may never see",
        ),
        OTHERWISE: Reading("differs", "0, for OpenLLaMA-2 0.2"),
    },
    (Adaptive, "increase"): {0.1: PRINTED, OTHERWISE: Reading("differs", "0.1")},
    (Adaptive, "rise"): {0.1: PRINTED, 0.2: PRINTED, OTHERWISE: Reading("differs", "0.1, for OpenLLaMA-2 0.2")},
    (Adaptive, "check_every"): Reading(
        "differs",
        "looked at after every epoch, of 10 or 20",
        "null is a twentieth of the run, so that runs of one epoch adapt too",
    ),
    (Constant, "share"): {
        1.0: Reading("printed", "mixed_alpha 1 where only the student's responses are wanted"),
        0.5: Reading("printed", "mixed_alpha 0.5 for GKD"),
        OTHERWISE: Reading("differs", "mixed_alpha 0.5 for GKD, 1 for ImitKD"),
    },
}

REPLAY_BESIDE: Mapping[type, tuple[Reading, ...]] = {
    Replay: (
        Reading(
            "differs",
            "each process tosses a coin of its own for each micro-batch",
            "one coin a step for all rows and processes",
            "the coin",
        ),
        Reading(
            "differs",
            "a replayed or fresh step still takes a batch from the loader, and drops it where it replays",
            "a replayed step takes none; a supervised term reads the references of the replayed rows",
            "rows of a replayed step",
        ),
        Reading(
            "differs",
            "responses are stored without their end-of-turn token, their labels one place late",
            "rows are stored as they were learned from",
            "stored rows",
        ),
    ),
    Adaptive: (
        Reading(
            "differs",
            "the mean over batches, of all validation rows",
            "the mean over the tokens of 64 rows that stay the same",
            "the validation loss",
        ),
    ),
}

DISTILLM = Paper(
    name="DistiLLM",
    source="arXiv 2402.03898",
    fields={
        **NOTHING_BESIDE,
        **MATCHED,
        **REPLAY_FIELDS,
        (Method, "sequences"): {Replay: PRINTED, OTHERWISE: Reading("differs", "an adaptive off-policy schedule")},
        (Student, "horizon"): WHOLE,
        (Method, "token"): {Match: PRINTED},
        (Match, "divergence"): {
            SkewReverseKL: Reading(
                "open",
                "skew KL or skew reverse KL, by model: the scripts take the first for GPT-2 base",
                "skew reverse KL, which all other scripts take",
            ),
            SkewForwardKL: Reading(
                "open",
                "skew KL or skew reverse KL, by model: the scripts take the first for GPT-2 base",
                "that model's",
            ),
            OTHERWISE: Reading("differs", "skew KL or skew reverse KL"),
        },
        (SkewReverseKL, "alpha"): {0.1: PRINTED, OTHERWISE: Reading("differs", "α = 0.1")},
        (SkewForwardKL, "alpha"): {0.1: PRINTED, OTHERWISE: Reading("differs", "α = 0.1")},
        (Weights, "plain_text"): {
            0.0: Reading(
                "differs",
                "most scripts add cross-entropy on plain text (OpenWebText) with weight 1",
                "the distillation alone, until data.plain_text names a text",
            ),
            1.0: Reading("printed", "lm_coef 1: cross-entropy on plain text (OpenWebText), in most scripts"),
            OTHERWISE: Reading("differs", "lm_coef 1 in the scripts that add cross-entropy on plain text"),
        },
        (Method, "reduction"): {
            "token": Reading("printed", "the code's mean over the tokens of a micro-batch", "over those of the step"),
            "sequence": Reading("differs", "the code's mean over tokens"),
        },
    },
    beside=REPLAY_BESIDE,
    settings={"sampling.temperature": {1.0: PRINTED, OTHERWISE: Reading("differs", "T = 1 for drawn training data")}},
)
