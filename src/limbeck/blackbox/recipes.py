"""The recipe of an UNDO run: one frozen value, read from YAML and overrides and checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from limbeck.blackbox.endpoints import Budget
from limbeck.blackbox.presets import CONTROLS, PRESETS, Preset
from limbeck.blackbox.sections import (
    SECTIONS,
    BudgetSection,
    MethodSection,
    StopSection,
    StudentSection,
    TaskSection,
    TrainingSection,
)
from limbeck.config.checks import draft_of
from limbeck.config.reading import RECORDED, Draft, Override, overridden, to_yaml
from limbeck.config.sections import keys_of, section_inside
from limbeck.errors import ConfigError, UnknownName

MAY_CHANGE = (
    "run",
    "budget",
    "controls",
    "method.rounds",
    "teacher.concurrency",
    "teacher.attempts",
    "teacher.timeout",
)
"""What may differ when a run goes on: it does not touch what is already there."""

_WAY_OUT = "docs/undo.md shows the smallest recipe of UNDO; recipes/undo/ of the repository holds whole ones"
_TOP = ("teacher", *SECTIONS, "controls", "seed", "run")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UndoRecipe:
    """What an UNDO run does. Made by `UndoRecipe.load`.

    `teacher` is the plain mapping of a teacher (`kind` and its fields; limbeck.blackbox.writers). `controls` are arms
    beside the method, over the same first round and the same number of student tokens.
    """

    teacher: dict[str, Any]
    task: TaskSection
    student: StudentSection
    method: MethodSection = Field(default_factory=MethodSection)
    train: TrainingSection = Field(default_factory=TrainingSection)
    stop: StopSection = Field(default_factory=StopSection)
    budget: BudgetSection = Field(default_factory=BudgetSection)
    controls: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    run: Annotated[str, Field(min_length=1)]

    @classmethod
    def load(cls, source: UndoRecipe | Mapping[str, Any] | Path | str, overrides: Sequence[str] = ()) -> UndoRecipe:
        """The recipe of a YAML file, of a run's folder, of a mapping or of another recipe, with `key=value` on top.

        Raises `UnknownName` for a key, preset or teacher that does not exist, `ConfigError` for a value that is not
        allowed or contradicts another.
        """
        draft, name = _draft(source)
        for text in overrides:
            draft = overridden(draft, Override.parse(text))
        _check_keys(draft)
        values = {"run": f"runs/{name or 'undo'}", "teacher": {}, "task": {}, "student": {}, **draft.values}
        try:
            recipe: UndoRecipe = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            raise _value_error(error, draft) from error
        _check_uses(recipe, draft)
        # What a run has recorded stays readable; going on with it is another matter.
        if not (draft.is_recorded or isinstance(source, UndoRecipe)):
            _check_limits(recipe, draft)
        return recipe

    def arm(self, name: str) -> Preset:
        """The settings of an arm: the method's own under its preset's name, else a control's.

        What the recipe sets in `method` holds for the method; a control differs from it in what makes it a control.
        """
        if name == self.method.base:
            stated = {
                each.name: getattr(self.method, each.name)
                for each in dataclasses.fields(Preset)
                if getattr(self.method, each.name, None) is not None
            }
            return dataclasses.replace(PRESETS[name], **stated)
        main, control = self.arm(self.method.base), CONTROLS[name]
        if name == "blind":
            return dataclasses.replace(main, feedback="none", twist="blind")
        if name == "shuffled":
            return dataclasses.replace(main, twist="shuffled")
        rounds = main.rounds if control.rounds else 0
        return dataclasses.replace(control, rounds=rounds, restart=main.restart)

    def values(self) -> dict[str, Any]:
        """All keys as plain values, as `UndoRecipe.load` takes them."""
        stated: dict[str, Any] = TypeAdapter(UndoRecipe).dump_python(self, mode="json")
        return stated

    def dump(self) -> str:
        """The whole recipe as YAML; `UndoRecipe.load` reads an equal one back."""
        return to_yaml(self.values(), header=RECORDED)

    def lasting(self) -> dict[str, Any]:
        """The values that a run must keep, by dotted key."""
        return {key: value for key, value in _flat(self.values()).items() if not _may_change(key)}


def is_recorded(source: UndoRecipe | Mapping[str, Any] | Path | str) -> bool:
    """Whether this is the recipe that a run wrote, from which no code of anybody's is imported."""
    return not isinstance(source, UndoRecipe | Mapping) and _draft(source)[0].is_recorded


def lasting_differences(old: UndoRecipe, new: UndoRecipe) -> list[str]:
    """What a run that goes on would change and may not: "train.batch_rows: 16 -> 8"."""
    before, after = old.lasting(), new.lasting()
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def _may_change(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in MAY_CHANGE)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _draft(source: UndoRecipe | Mapping[str, Any] | Path | str) -> tuple[Draft, str]:
    if isinstance(source, UndoRecipe):
        return Draft(values=source.values()), ""
    return draft_of(source, way_out=_WAY_OUT)


def _check_keys(draft: Draft) -> None:
    for key, value in draft.values.items():
        if key not in _TOP:
            raise UnknownName(f"{UnknownName.among('section of an UNDO recipe', key, _TOP)}\n  {draft.where((key,))}")
        if (key in SECTIONS or key == "teacher") and not isinstance(value, dict):
            raise ConfigError(f"{key} is {value!r}; a section of keys is expected\n  {draft.where((key,))}")
        if key in SECTIONS:
            _check_section(SECTIONS[key], value, (key,), draft)


def _check_section(section: type, values: Mapping[str, Any], path: tuple[str, ...], draft: Draft) -> None:
    known = keys_of(section)
    for key, value in values.items():
        here = (*path, key)
        if key not in known:
            error = UnknownName.among(f"key of {'.'.join(path)}", key, known)
            raise UnknownName(f"{error}\n  {draft.where(here)}")
        inner = section_inside(section, key)
        if inner is not None and isinstance(value, dict):
            _check_section(inner, value, here, draft)


def _value_error(error: ValidationError, draft: Draft) -> ConfigError:
    """pydantic's findings, each key once, with its value and what it may be."""
    messages: dict[tuple[str, ...], str] = {}
    for finding in error.errors():
        path, allowed = _leaf(tuple(str(part) for part in finding["loc"]))
        value: Any = draft.values
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        shown = f"{'.'.join(path)} is {value!r}" if value is not None else f"{'.'.join(path)} is missing"
        messages.setdefault(path, f"{shown}; allowed: {allowed}\n  {draft.where(path)}")
    return ConfigError("\n".join(messages.values()))


def _leaf(location: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    path = [location[0]]
    allowed = {"controls": f"a list of {', '.join(CONTROLS)}", "seed": "a whole number of at least 0"}
    section, text = SECTIONS.get(location[0]), allowed.get(location[0], "see docs/undo.md")
    for part in location[1:]:
        known = keys_of(section) if section is not None else {}
        if part in known:
            path.append(part)
            text, section = known[part].allowed, section_inside(section, part) if section is not None else None
    return tuple(path), text


def _check_uses(recipe: UndoRecipe, draft: Draft) -> None:
    """Raise `ConfigError` for the first contradiction or setting that nothing would read."""
    method, task, student = recipe.method, recipe.task, recipe.student
    _ = PRESETS[method.base]
    for name in recipe.controls:
        _ = CONTROLS[name]
    main = recipe.arm(method.base)
    context = student.max_prompt + student.max_new_tokens
    scratch = student.scratch
    found = {
        "controls": (len(set(recipe.controls)) < len(recipe.controls), "names a control twice; name each once"),
        "task.name": (
            (task.name is None) == (task.file is None),
            "and task.file: give exactly one of them, a named task or a file of questions",
        ),
        "task.steps": (
            task.name != "arithmetic" and (task.steps, task.largest) != (TaskSection.steps, TaskSection.largest),
            "and task.largest are of the task arithmetic alone; delete them",
        ),
        "task.test_file": (
            task.test_file is not None and task.file is None,
            "is set, but the questions come from a named task, which has its own; delete it",
        ),
        "student.model": (
            (student.model is None) == (scratch is None),
            "and student.scratch: give exactly one of them",
        ),
        "student.scratch.positions": (
            scratch is not None and context > scratch.positions,
            f"is less than student.max_prompt + student.max_new_tokens = {context}; raise it",
        ),
        "student.scratch.width": (
            scratch is not None and scratch.width % (2 * scratch.heads) != 0,
            "is no multiple of twice student.scratch.heads",
        ),
        "student.samples": (
            student.samples > 1 and student.temperature == 0,
            "is more than 1, but student.temperature 0 draws the same answer again; raise the temperature",
        ),
        "train.micro_rows": (
            recipe.train.micro_rows != "auto" and recipe.train.micro_rows > recipe.train.batch_rows,
            f"is {recipe.train.micro_rows}, more than the {recipe.train.batch_rows} of train.batch_rows; lower it",
        ),
        "method.scope": (
            main.scope == "wrong_or_unstable" and student.samples == 1,
            "is wrong_or_unstable, which needs student.samples of at least 2",
        ),
        "method.base": (
            method.base in recipe.controls and method.base == "one-shot",
            "is one-shot and a control too; delete one",
        ),
        **_unread(recipe, main),
    }
    for key, (is_wrong, message) in found.items():
        if is_wrong:
            raise ConfigError(f"{key} {message}\n  {draft.where(tuple(key.split('.')))}")


def _check_limits(recipe: UndoRecipe, draft: Draft) -> None:
    from limbeck.blackbox.writers import WRITERS, check_limits, writer_of

    # The code of a teacher of one's own is imported where the run begins, and checked there.
    if recipe.teacher.get("kind") in WRITERS and recipe.budget.of_calls() != Budget():
        check_limits(
            writer_of(recipe.teacher), recipe.budget.of_calls(), lambda key: draft.where(tuple(key.split(".")))
        )


def _unread(recipe: UndoRecipe, main: Preset) -> dict[str, tuple[bool, str]]:
    """Keys that other settings leave without a reader; a key at its default counts as not set."""
    method, task = recipe.method, recipe.task
    return {
        "task.root": (
            task.root is not None and task.name in (None, "arithmetic") and not task.ood,
            "is the folder of named tasks, and the recipe names none; delete it",
        ),
        "task.ood_rows": (
            not task.ood and task.ood_rows != TaskSection.ood_rows,
            "is of the tasks of task.ood, and there is none; delete it",
        ),
        "stop.ood_errors": (
            not task.ood and recipe.stop.ood_errors != StopSection.ood_errors,
            "is of the tasks of task.ood, and there is none; delete it",
        ),
        "method.scope_share": (
            main.scope != "sample" and method.scope_share != MethodSection.scope_share,
            "is read with method.scope: sample alone; delete it",
        ),
        "method.history_tokens": (
            method.history != "window" and method.history_tokens != MethodSection.history_tokens,
            "is read with method.history: window alone; delete it",
        ),
        "method.candidate": (
            method.candidates == 1 and method.candidate != MethodSection.candidate,
            "chooses among method.candidates, and there is one; delete it, or raise method.candidates",
        ),
    }
