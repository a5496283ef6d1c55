"""Null controls: arms that look like distillation and have nothing to distil. An arm distils where it beats them all.

| control           | what is matched                                                              |
|-------------------|------------------------------------------------------------------------------|
| own start         | the model that the student started from is its teacher                       |
| shuffled teacher  | the teacher's distributions of another row of the step                       |
| no teacher        | the student's own distribution with each drawn token pushed down by a constant |

Each is an ordinary recipe: forward KL on the student's and the corpus's responses, with cross-entropy on the references
beside it. `limbeck explain` knows its parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from limbeck.studies.definition import Arm, Study

OWN_START, SHUFFLED, NO_TEACHER = "control: own start", "control: shuffled teacher", "control: no teacher"


def _matched(target: Mapping[str, Any], *, base: str = "gkd") -> dict[str, Any]:
    token = {"kind": "match", "divergence": {"kind": "forward-kl"}, "target": dict(target)}
    return {"base": base, "token": token, "weights": {"supervised": 1.0}}


def control_arms(study: Study) -> tuple[Arm, ...]:
    """The three controls of a study, from its own teacher and start."""
    student = study.recipe["models"]["student"]
    own = {"method": _matched({"kind": "teacher"}), "models.teacher": student}
    return (
        Arm(name=OWN_START, changes=own),
        Arm(name=SHUFFLED, changes={"method": _matched({"kind": "other-row"})}),
        Arm(name=NO_TEACHER, changes={"method": _matched({"kind": "pushed-down"}, base="imitkd")}),
    )


def with_controls(study: Study) -> Study:
    """The study with the controls behind its arms; those that need a teacher only where it names one."""
    models = study.recipe.get("models", {})
    if "student" not in models:
        return study
    arms = [arm for arm in control_arms(study) if "teacher" in models or arm.name != SHUFFLED]
    names = tuple(arm.name for arm in arms)
    return dataclasses.replace(study, arms=(*study.arms, *arms), controls=names)
