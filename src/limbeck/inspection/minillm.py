"""How Limbeck's MiniLLM stands to its paper, arXiv 2306.08543, and to its authors' code (microsoft/LMOps)."""

from __future__ import annotations

from collections.abc import Mapping

from limbeck.inspection.readings import OTHERWISE, PRINTED, Fields, Paper, Reading, Readings
from limbeck.losses.policy_gradient import ReverseKLGradient
from limbeck.methods import Method, Weights
from limbeck.sequences import CollectedRollouts

_SEQUENCES: Fields = {
    (Method, "sequences"): {
        CollectedRollouts: PRINTED,
        OTHERWISE: Reading("differs", "responses are drawn by teacher and student together (Eq. 4)"),
    },
    (CollectedRollouts, "teacher_share"): {
        0.2: PRINTED,
        OTHERWISE: Reading("differs", "α = 0.2 in all experiments"),
    },
    (CollectedRollouts, "rows"): {
        256: Reading("open", "how many responses are drawn before the weights move is not said", "256 in the code"),
        OTHERWISE: Reading("open", "not said; 256 in the code"),
    },
    (CollectedRollouts, "epochs"): {
        4: Reading("open", "how often a drawn response is learned from is not said", "4 in the code"),
        OTHERWISE: Reading("open", "not said; 4 in the code"),
    },
    (Method, "revision"): {None: PRINTED, OTHERWISE: Reading("differs", "responses are not corrected")},
}

_TOKEN: Fields = {
    (Method, "token"): {
        ReverseKLGradient: PRINTED,
        OTHERWISE: Reading("differs", "the gradient of the reverse KL of whole responses (Eq. 2)"),
    },
    (ReverseKLGradient, "single_step"): {
        True: PRINTED,
        False: Reading("differs", "the expectation over the next token is worked out, not sampled (Eq. 3)"),
    },
    (ReverseKLGradient, "returns_from"): {
        "auto": Reading(
            "printed",
            "R_{t+1} beside the single step (Eq. 3), R_t without it (Eq. 2)",
            "the token's own reward is in one of the two parts, and never in both",
        ),
        "next": Reading("printed", "R_{t+1}, beside the single step (Eq. 3)"),
        "own": Reading(
            "differs",
            "R_{t+1} (Eq. 3)",
            "the code begins at the token itself, so that its reward counts in both parts",
        ),
    },
    (ReverseKLGradient, "gamma"): {
        1.0: PRINTED,
        OTHERWISE: Reading("differs", "returns are not discounted (Eq. 2)", "the code has 0.95"),
    },
    (ReverseKLGradient, "length_normalised"): {
        True: PRINTED,
        False: Reading("differs", "returns are divided by the number of their rewards (Eq. 6)"),
    },
    (ReverseKLGradient, "whitened"): {
        True: Reading(
            "differs",
            "returns enter as they are (Eq. 6)",
            "as in the code: centred and scaled, so that long responses do not all push one way. The code takes the "
            "mean over a mini-batch with its padding; here over the response tokens of the collection, so that "
            "neither padding nor batches enter",
        ),
        False: PRINTED,
    },
    (ReverseKLGradient, "clip"): Reading(
        "open", "ρ is clipped as in PPO; how far is not said", "0.2 in the code, around 1 and after w is in ρ"
    ),
    (ReverseKLGradient, "weigh_long_term"): {
        True: PRINTED,
        False: Reading("differs", "w = q/p̃ makes up for the teacher's share (Eq. 5)"),
    },
    (ReverseKLGradient, "weigh_single_step"): {
        False: Reading(
            "differs",
            "both parts are multiplied by w (Eq. 5)",
            "the code leaves it out of the single step, which its authors found to work better (LMOps issue 255)",
        ),
        True: PRINTED,
    },
    (ReverseKLGradient, "reward_scale"): {
        1.0: PRINTED,
        OTHERWISE: Reading(
            "differs",
            "r = log p − log q",
            "the code divides by 0.5; whitened returns do not notice, but for what the limit cuts",
        ),
    },
    (ReverseKLGradient, "reward_limit"): {
        None: PRINTED,
        OTHERWISE: Reading("differs", "rewards are not limited", "the code clips them to ±100"),
    },
}

_SUM: Fields = {
    (Method, "span"): {None: PRINTED, OTHERWISE: Reading("differs", "there is no span term")},
    (Method, "weights"): PRINTED,
    (Weights, "token"): {1.0: PRINTED, OTHERWISE: Reading("differs", "the term has no weight")},
    (Weights, "span"): PRINTED,
    (Weights, "supervised"): {
        0.0: PRINTED,
        OTHERWISE: Reading("differs", "the text beside is of a pre-training corpus, not the references"),
    },
    (Weights, "plain_text"): {
        0.0: Reading(
            "differs",
            "a language-modelling loss on a pre-training corpus is added",
            "left out, as in the authors' scripts that name no corpus (no_pt); data.plain_text and a weight add it",
        ),
        1.0: Reading(
            "printed",
            "−log q of a pre-training corpus is added",
            "the code takes half of it and half of the cross-entropy to the teacher on that text",
        ),
        OTHERWISE: Reading("differs", "the loss on the corpus has weight 1 (lm_coef in the code)"),
    },
    (Method, "reduction"): {
        "token": Reading(
            "open",
            "sums over tokens inside an expectation over responses (Eq. 7)",
            "the mean over the tokens of the step, as the code's over its mini-batch",
        ),
        "sequence": Reading(
            "open",
            "sums over tokens inside an expectation over responses (Eq. 7)",
            "each response's mean, averaged over responses",
        ),
    },
}

_BESIDE: Mapping[type, tuple[Reading, ...]] = {
    CollectedRollouts: (
        Reading(
            "open",
            "log q of the drawn tokens, at the weights that drew them",
            "read from whole rows as training reads them, so that ρ is w in the first step; w divides by what the "
            "sampler itself drew from",
            "old log-probabilities",
        ),
        Reading(
            "open",
            "the order of the inner passes is not said",
            "a new seeded order of the whole collection in each; ranks do not enter it",
            "order",
        ),
    ),
    ReverseKLGradient: (
        Reading(
            "open",
            "the last token has nothing behind it",
            "its return is 0 before whitening, as an empty sum is",
            "last token",
        ),
        Reading(
            "open",
            "when advantages are made is not said",
            "once for each collection, with the weights that drew it; the code makes them anew for each mini-batch",
            "advantages",
        ),
    ),
}

_SETTINGS: Mapping[str, Readings] = {
    "sampling.temperature": {1.0: PRINTED, OTHERWISE: Reading("differs", "T = 1; w divides by what was drawn from")},
    "train.learning_rate": {
        5e-6: Reading("printed", "5e-6 in the code for GPT-2"),
        OTHERWISE: Reading("differs", "5e-6 in the code for GPT-2", "the default of every method is 5e-4"),
    },
    "train.schedule": Reading("differs", "constant behind 100 steps of warm-up (GPT-2), cosine (LLaMA)"),
    "models.dropout": {False: PRINTED, OTHERWISE: Reading("differs", "dropout is off: ρ would be noise")},
    "models.student": Reading(
        "printed",
        "a student fine-tuned on the same data, by lowest validation loss",
        "an untrained one writes nothing that its returns could tell apart",
    ),
}

MINILLM = Paper(
    name="MiniLLM",
    source="arXiv 2306.08543",
    fields={**_SEQUENCES, **_TOKEN, **_SUM},
    beside=_BESIDE,
    settings=_SETTINGS,
)
