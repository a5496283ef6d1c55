"""Sequence-level distillation, field by field: fine-tuning on what the teacher writes."""

from __future__ import annotations

from limbeck.inspection.readings import OTHERWISE, PRINTED, Paper, Reading
from limbeck.inspection.terms import MATCHED, NOTHING_BESIDE
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.match import Likelihood, Match
from limbeck.methods import Method
from limbeck.sequences import TeacherWritten

SEQKD = Paper(
    name="Sequence-level knowledge distillation, Kim and Rush",
    source="arXiv 1606.07947",
    fields={
        **NOTHING_BESIDE,
        **MATCHED,
        (Method, "sequences"): {TeacherWritten: PRINTED, OTHERWISE: Reading("differs", "the teacher's responses")},
        (TeacherWritten, "temperature"): {
            1.0: Reading(
                "differs",
                "the best of a beam of 5",
                "one response drawn at T = 1, as in the comparisons of MiniLLM and DistiLLM; 0 is greedy",
            ),
            0.0: Reading("differs", "the best of a beam of 5", "greedy: a beam of 1"),
            OTHERWISE: Reading("differs", "the best of a beam of 5"),
        },
        (TeacherWritten, "top_p"): {1.0: PRINTED, OTHERWISE: Reading("differs", "nothing is cut off")},
        (TeacherWritten, "top_k"): {0: PRINTED, OTHERWISE: Reading("differs", "nothing is cut off")},
        (TeacherWritten, "cache"): PRINTED,
        (Method, "token"): {
            Likelihood: PRINTED,
            Match: Reading(
                "differs",
                "−log q of the teacher's response",
                "the scripts of DistiLLM for GPT-2 and OPT match the teacher's distribution on these responses instead",
            ),
            OTHERWISE: Reading("differs", "−log q of the teacher's response"),
        },
        (Match, "divergence"): {
            ForwardKL: Reading("differs", "no distribution is matched", "the scripts' kd_ratio 1: KL alone"),
            OTHERWISE: Reading("differs", "no distribution is matched"),
        },
        (Method, "reduction"): {
            "token": Reading(
                "differs",
                "the sum over a response's tokens",
                "the mean over the step's tokens: learning rates do not depend on lengths",
            ),
            "sequence": Reading(
                "differs", "the sum over a response's tokens", "the mean over responses of their means"
            ),
        },
    },
    beside={
        TeacherWritten: (
            Reading(
                "open",
                "a response that the beam does not end",
                "it is cut at the limit, and its end is not learned as one",
                "long responses",
            ),
        ),
    },
)
