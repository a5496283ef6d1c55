"""The paper of each method, and how Limbeck's version stands to it."""

from __future__ import annotations

from collections.abc import Mapping

from limbeck.inspection.formulas import MGSR as MGSR_SOURCE
from limbeck.inspection.mgsr import MGSR
from limbeck.inspection.minillm import MINILLM
from limbeck.inspection.off_policy import DISTILLM, REPLAY_BESIDE, REPLAY_FIELDS
from limbeck.inspection.readings import OTHERWISE, PRINTED, Paper, Reading, Readings
from limbeck.inspection.terms import MATCHED as _MATCHED
from limbeck.inspection.terms import NOTHING_BESIDE as _NOTHING_BESIDE
from limbeck.inspection.terms import WHOLE as _WHOLE
from limbeck.inspection.written import SEQKD
from limbeck.losses.divergences import JSD, ForwardKL
from limbeck.losses.match import Likelihood, Match
from limbeck.methods import Method, Weights
from limbeck.sequences import Fixed, Mixture, Replay, Student

_MEAN_OF_RESPONSES: Readings = {
    "token": Reading(
        "differs",
        "the mean over a response's tokens first, then over responses",
        "every token of a step weighs alike, whatever its response's length; `sequence` is as printed",
    ),
    "sequence": PRINTED,
}

_SFT = Paper(
    name="Supervised fine-tuning",
    source=f"{MGSR_SOURCE}, Eq. 2",
    fields={
        **_NOTHING_BESIDE,
        (Method, "sequences"): {Fixed: PRINTED, OTHERWISE: Reading("differs", "(x, y) ~ (X, Y): the corpus")},
        (Method, "token"): {Likelihood: PRINTED, OTHERWISE: Reading("differs", "−log q(y|x)")},
        (Method, "reduction"): {
            "token": Reading(
                "differs",
                "−log q(y|x) is the sum over a response's tokens",
                "the mean over the step's tokens: learning rates do not depend on lengths",
            ),
            "sequence": Reading(
                "differs", "−log q(y|x) is the sum over a response's tokens", "the mean over responses of their means"
            ),
        },
    },
)

_KD = Paper(
    name="Knowledge distillation, Hinton et al.",
    source=f"arXiv 1503.02531; per token: {MGSR_SOURCE}, Eq. 1",
    fields={
        **_NOTHING_BESIDE,
        **_MATCHED,
        (Method, "sequences"): {Fixed: PRINTED, OTHERWISE: Reading("differs", "a fixed data set")},
        (Method, "token"): {Match: PRINTED},
        (Match, "divergence"): {ForwardKL: PRINTED, OTHERWISE: Reading("differs", "KL(teacher‖student)")},
        (Match, "temperature_square_scaled"): {
            1.0: Reading(
                "differs",
                "Hinton et al. soften both distributions by a temperature; Eq. 1 has none",
                "T = 1, the distribution that the student will draw from",
            ),
            OTHERWISE: Reading("printed", "Hinton et al. soften both by T and multiply by T²; Eq. 1 has T = 1"),
        },
        (Weights, "supervised"): {
            0.0: Reading(
                "differs",
                "Hinton et al. add the true labels with a small weight; Eq. 1 has the KL alone",
                "the plain baseline; weights.supervised adds the labels",
            ),
            OTHERWISE: Reading("printed", "Hinton et al. add the true labels with a small weight; Eq. 1 does not"),
        },
        (Method, "reduction"): _MEAN_OF_RESPONSES,
    },
)

_IMITKD = Paper(
    name="ImitKD",
    source="arXiv 2009.07253",
    fields={
        **_NOTHING_BESIDE,
        **_MATCHED,
        **REPLAY_FIELDS,
        (Method, "sequences"): {
            Student: Reading(
                "differs",
                "responses of the corpus and of the student are mixed, with a share of the corpus that falls",
                "the student's alone, as in the comparisons of DistiLLM and MGSR; sequences: {kind: mixture} mixes",
            ),
            Replay: Reading(
                "differs",
                "corpus and student are mixed, with a share of the corpus that falls",
                "the student's alone, of the last 1,000 rows: what DistiLLM's code does for this method",
            ),
            OTHERWISE: Reading("differs", "corpus and student are mixed, with a share of the corpus that falls"),
        },
        (Student, "horizon"): _WHOLE,
        (Method, "token"): {Match: PRINTED},
        (Match, "divergence"): {
            ForwardKL: Reading(
                "open",
                "a loss on the teacher's best next token, or cross-entropy to its whole distribution",
                "the whole distribution; KL and that cross-entropy have the same gradient",
            ),
            OTHERWISE: Reading("differs", "cross-entropy to the teacher's distribution"),
        },
        (Method, "reduction"): Reading(
            "open",
            "how tokens of responses of different lengths weigh is left to the implementation",
            "all tokens alike",
        ),
    },
    beside=REPLAY_BESIDE,
)

_GKD = Paper(
    name="GKD",
    source="arXiv 2306.13649",
    fields={
        **_NOTHING_BESIDE,
        **_MATCHED,
        **REPLAY_FIELDS,
        (Method, "sequences"): {
            Mixture: PRINTED,
            Student: Reading("open", "λ is a choice; 0, 0.5 and 1 are studied", "λ = 1, as TRL's DistillationTrainer"),
            Replay: Reading(
                "differs",
                "responses are drawn anew at every step",
                "rows of the last 1,000, as DistiLLM's code draws for this method",
            ),
        },
        (Mixture, "first"): {Student: PRINTED},
        (Mixture, "second"): {
            Fixed: Reading("printed", "a fixed data set: the corpus's responses, or the teacher's", "the corpus's"),
        },
        (Mixture, "share"): {
            0.5: Reading("open", "λ is a choice; 0, 0.5 and 1 are studied", "the mixture among them"),
            OTHERWISE: Reading("open", "λ is a choice; 0, 0.5 and 1 are studied"),
        },
        (Student, "horizon"): _WHOLE,
        (Method, "token"): {Match: PRINTED},
        (Match, "divergence"): {
            JSD: Reading("open", "a choice: forward KL, reverse KL or JSD(β)", "JSD covers both KLs as its ends"),
            OTHERWISE: Reading("open", "a choice: forward KL, reverse KL or JSD(β)"),
        },
        (JSD, "beta"): {
            0.5: Reading("open", "β is a choice", "the symmetric one"),
            0.1: Reading("open", "β is a choice", "what DistiLLM's comparison has: its js_distance(0.9) is JSD(0.1)"),
            1.0: Reading("open", "β is a choice", "reverse KL, as TRL's DistillationTrainer has it by default"),
            OTHERWISE: Reading("open", "β is a choice"),
        },
        (Method, "reduction"): _MEAN_OF_RESPONSES,
    },
    beside={
        **REPLAY_BESIDE,
        Mixture: (
            Reading(
                "printed", "a coin u ~ U(0, 1) a step (Algorithm 1)", "one coin for all rows and ranks", "the coin"
            ),
        ),
        JSD: (Reading("printed", "JSD is not divided by β", "near 0 or 1 the loss is small: mind the rate", "scale"),),
    },
    settings={
        "sampling.temperature": {
            1.0: PRINTED,
            0.9: Reading("differs", "T = 1 for drawn training data", "TRL's GKDTrainer draws at 0.9"),
            OTHERWISE: Reading("differs", "T = 1 for drawn training data"),
        }
    },
)

PAPERS: Mapping[str, Paper] = {
    "sft": _SFT,
    "kd": _KD,
    "seqkd": SEQKD,
    "imitkd": _IMITKD,
    "gkd": _GKD,
    "minillm": MINILLM,
    "distillm": DISTILLM,
    "mgsr": MGSR,
}
"""By the name of the method; a preset `method:variant` has its method's paper."""
