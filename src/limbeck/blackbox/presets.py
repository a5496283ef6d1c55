"""The published loops and the controls beside them, as what they set in a recipe's `method` section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from limbeck.blackbox.sections import Scope, Shown
from limbeck.registry import Registry

Twist = Literal["", "blind", "shuffled", "terse", "long", "union"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A loop: what is rewritten, what the teacher sees, and what the student then learns from.

    `twist` is what makes a control of it: "blind" shows the teacher nothing of a student, "shuffled" shows attempts of
    other questions, "terse" learns from answers without reasoning, "long" spends all tokens of the main arm on the
    first rationales, "union" spends them on all versions of the main arm's rationales together.
    """

    rounds: int = 3
    scope: Scope = "all"
    feedback: Shown = "hybrid"
    policy: Literal["replace", "accumulate", "best_version"] = "replace"
    carry: Literal["none", "previous_accepted"] = "previous_accepted"
    student_correct: float = 0.0
    restart: Literal["base", "continue"] = "base"
    twist: Twist = ""


PRESETS: Registry[Preset] = Registry(
    "preset of UNDO",
    {
        # The loop as arXiv 2504.02521 v1 describes it: what is rejected is missing from its round.
        "undo-v1": Preset(feedback="validation+instance", carry="none"),
        # The resubmission: only what the student gets wrong is rewritten, and its own right answers are kept.
        "adaptdistill": Preset(scope="wrong", feedback="validation", carry="none", student_correct=0.5),
        "one-shot": Preset(rounds=0),
    },
)

CONTROLS: Registry[Preset] = Registry(
    "control of UNDO",
    {
        "one-shot": Preset(rounds=0),
        "one-shot-long": Preset(rounds=0, twist="long"),
        "format-only": Preset(rounds=0, twist="terse"),
        "blind": Preset(feedback="none", twist="blind"),
        "shuffled": Preset(twist="shuffled"),
        "star": Preset(scope="none", feedback="none", carry="none", student_correct=1.0),
        "union": Preset(rounds=0, twist="union"),
    },
)
