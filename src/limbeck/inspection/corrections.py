"""MGSR, arXiv 2407.10068: how the fields of SCRG and of each detector stand to the paper."""

from __future__ import annotations

from limbeck.inspection.readings import OTHERWISE, PRINTED, Fields, Reading
from limbeck.methods import Method
from limbeck.revision import SCRG, AttentionArgmax, Heuristic, KLDArgmax, RandomToken

_LARGEST = "the largest KL decides (Eq. 3)"

CORRECTED: Fields = {
    (Method, "revision"): {
        SCRG: PRINTED,
        None: Reading("differs", "drawn responses are corrected (Eq. 3 and 4)"),
    },
    (SCRG, "detector"): {
        KLDArgmax: PRINTED,
        RandomToken: Reading("differs", _LARGEST, "the control: a correction without a search for the error"),
        Heuristic: Reading("differs", _LARGEST, "rules that read the response and the teacher's surprise alone"),
        AttentionArgmax: Reading("differs", _LARGEST, "an error that the rest of the response leans on comes first"),
        OTHERWISE: Reading("differs", _LARGEST),
    },
    (SCRG, "rounds"): {
        1: Reading(
            "open",
            "one correction is described; that there is no second one is not said",
            "one is what Eq. 4 writes; each further round costs a pass of both models and a decoding",
        ),
        OTHERWISE: Reading("differs", "one correction is described (Eq. 4)"),
    },
    (SCRG, "greedy"): {
        False: Reading(
            "open",
            "y^t_i ~ p(·|y_<i, x): the teacher's token is drawn; whether the token that is compared (Eq. 3) and "
            "the one that is put in (Eq. 4) are one draw is not said",
            "one seeded draw a position at T = 1, nothing cut off, for both: what was found wrong is what is replaced",
        ),
        True: Reading("differs", "y^t_i ~ p(·|y_<i, x): the teacher's token is drawn", "nothing depends on a draw"),
    },
    (KLDArgmax, "direction"): {
        "student-teacher": Reading(
            "printed",
            "Eq. 3 has KL(student‖teacher), Eq. 1 the other direction",
            "it is large where the student is sure and the teacher disagrees: an error, not a missed possibility",
        ),
        "teacher-student": Reading("differs", "Eq. 3 has KL(student‖teacher)"),
    },
}
