"""Readings that the papers of several methods share: one term alone, matched to the teacher, on whole responses."""

from __future__ import annotations

from limbeck.inspection.readings import OTHERWISE, PRINTED, Fields, Reading, Readings
from limbeck.losses.match import Match, TeacherTarget, UniformWeight
from limbeck.methods import Method, Weights

NO_PLAIN_TEXT: Readings = {0.0: PRINTED, OTHERWISE: Reading("differs", "no text beside the rows is learned")}

NOTHING_BESIDE: Fields = {
    (Method, "revision"): {None: PRINTED, OTHERWISE: Reading("differs", "responses are not corrected")},
    (Method, "span"): {None: PRINTED, OTHERWISE: Reading("differs", "there is no span term")},
    (Method, "weights"): PRINTED,
    (Weights, "token"): {1.0: PRINTED, OTHERWISE: Reading("differs", "the term has no weight")},
    (Weights, "supervised"): {0.0: PRINTED, OTHERWISE: Reading("differs", "there is no second term")},
    (Weights, "span"): PRINTED,
    (Weights, "plain_text"): NO_PLAIN_TEXT,
}

MATCHED: Fields = {
    (Match, "target"): {TeacherTarget: PRINTED, OTHERWISE: Reading("differs", "the teacher's whole distribution")},
    (Match, "weight"): {UniformWeight: PRINTED, OTHERWISE: Reading("differs", "all tokens weigh alike")},
    (Match, "temperature_square_scaled"): {
        1.0: PRINTED,
        OTHERWISE: Reading("differs", "the distributions as they are, T = 1"),
    },
}

WHOLE: Readings = {None: PRINTED, OTHERWISE: Reading("differs", "whole responses are drawn")}
