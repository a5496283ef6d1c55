"""The whole loop: the common start, the method and its controls, each ended by its own rules."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.blackbox import mixing
from limbeck.blackbox.artefacts import read_json, write_json
from limbeck.blackbox.presets import Preset
from limbeck.blackbox.prompted_teacher import NotRecorded
from limbeck.blackbox.reading_runs import stage_of
from limbeck.blackbox.recipes import UndoRecipe, is_recorded
from limbeck.blackbox.rewriting import first_round, next_round
from limbeck.blackbox.rounds import Bench, Round, finish_round, measure_untouched, round_tokens
from limbeck.blackbox.stopping import Decision, RoundScores, decide
from limbeck.blackbox.workshop import Workshop, open_workshop
from limbeck.errors import NonFiniteLoss, Stopped
from limbeck.files import write_whole
from limbeck.interrupts import interrupting

OUTCOME = "outcome.json"


@dataclass(frozen=True)
class UndoRun:
    """A run of UNDO on disk."""

    directory: Path

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        """The outcome of each arm that has one, the method first: its best round, why it ended, its rounds' folders."""
        outcomes = [read_json(path) for path in sorted(self.directory.glob(f"arms/*/{OUTCOME}"))]
        main = UndoRecipe.load(self.directory).method.base
        ordered = sorted(outcomes, key=lambda each: (each["arm"] != main, each["arm"]))
        return {each["arm"]: each for each in ordered}

    def student(self, arm: str | None = None) -> Path:
        """The folder of the best student of an arm, of the method where none is named."""
        outcome = self.arms[arm or UndoRecipe.load(self.directory).method.base]
        return self.directory / str(outcome["student"])

    def __fspath__(self) -> str:
        return str(self.directory)


def run_undo(
    recipe: UndoRecipe | Mapping[str, Any] | Path | str,
    *overrides: str,
    resume: bool = False,
    say: Callable[[str], None] = print,
    is_replay: bool = False,
    items: Path | None = None,
    ledger: Path | None = None,
    allow_import: bool = True,
) -> UndoRun:
    """Distil as the recipe says, over all its arms; returns the run, whose folder explains itself.

    `overrides` are dotted settings ("method.rounds=2"). A stopped run goes on with `resume`, from its last finished
    stage, and ends with the same files; no call that was answered is made again. A teacher of your own
    ("module:Class") is taken from your recipe, never from a run's own: resume such a run with the recipe. The last four
    arguments are those of `replaying.replay`. Raises `ConfigError`, `DataError` and their kin before anything is
    written; `Stopped` after Ctrl-C, and where the teacher stays away or the budget ends before the first student is
    trained.
    """
    settings = UndoRecipe.load(recipe, list(overrides))
    way_on = f"everything is kept; go on with: limbeck undo resume {settings.run}"
    if is_replay:
        way_on = f"a replay begins anew: remove {settings.run}, then give the same command again"
    try:
        with (
            interrupting(),
            open_workshop(
                settings,
                resume=resume,
                say=say,
                is_replay=is_replay,
                items=items,
                ledger=ledger,
                allow_import=allow_import and not is_recorded(recipe),
            ) as work,
        ):
            _loop(work)
    except KeyboardInterrupt as error:
        raise Stopped(f"stopped; {way_on}") from error
    except Stopped as error:
        raise Stopped(f"{error}\n  {way_on}") from error
    return UndoRun(Path(settings.run))


def _loop(work: Workshop) -> None:
    recipe = work.recipe
    start = first_round(work)
    if recipe.student.scratch is None:
        measure_untouched(Bench(work=work, name="untouched", arm=Preset(rounds=0)))
    main = _run_arm(work, recipe.method.base, [start], main=None)
    for name in recipe.controls:
        _run_arm(work, name, [start], main=main)
    _write_costs(work)
    from limbeck.blackbox.page import write_report

    page = write_report(work.run)
    work.stages.event("end", work.run, "report")
    work.say(f"report: {page}")


def _run_arm(work: Workshop, name: str, past: list[Round], *, main: Sequence[Round] | None) -> list[Round]:
    """The rounds of one arm, and its outcome on disk."""
    arm = work.recipe.arm(name)
    bench = Bench(work=work, name=name, arm=arm)
    if arm.twist in ("terse", "long", "union"):
        past = [_other_data(bench, past[0], main or [past[0]])]
    rounds = list(past)
    while True:
        decision = decide([_scores(each) for each in rounds], stop=work.recipe.stop, most=arm.rounds)
        is_written = work.stages.is_done(bench.folder(rounds[-1].number + 1), "write")
        # What was asked for already costs nothing more.
        limit = work.spent_out() if decision.goes_on and not is_written else ""
        if limit:
            decision = dataclasses.replace(decision, goes_on=False, reason=f"the budget is used up: {limit}")
        if not decision.goes_on:
            break
        work.begun.append(bench.stage(rounds[-1].number + 1))
        try:
            further = next_round(bench, rounds, main=main)
        except NonFiniteLoss:
            decision = dataclasses.replace(decision, reason="the loss was not finite, at half the learning rate too")
            break
        except (Stopped, NotRecorded):
            limit = work.spent_out()
            if not limit:
                raise
            decision = dataclasses.replace(decision, reason=f"the budget is used up: {limit}")
            break
        if further is None:
            decision = dataclasses.replace(decision, reason="nothing is left to rewrite or to learn from")
            break
        rounds.append(further)
    _write_outcome(work, name, rounds, decision)
    return rounds


def _other_data(bench: Bench, start: Round, main: Sequence[Round]) -> Round:
    """Controls of one training: answers without reasoning, the first rationales for longer, all versions at once."""
    work, twist = bench.work, bench.arm.twist
    round_ = Round(number=0, folder=bench.folder(0))
    tokens = round_tokens(work)
    rationales = [(row, "new") for _, row in sorted(start.rationales().items())]
    if twist == "terse":
        rationales = [(_terse(bench, row), "terse") for row, _ in rationales]
    else:
        tokens *= len(main)
    if twist == "union":
        versions = [each.rationales() for each in main]
        rationales = mixing.current(Preset(policy="accumulate"), versions=versions, solved=[])  # type: ignore[assignment]
    finish_round(bench, round_, rationales=rationales, traces=(), start=work.base, tokens=tokens, before=start)
    return round_


def _terse(bench: Bench, row: Mapping[str, Any]) -> dict[str, Any]:
    item = bench.work.items[row["item_id"]]
    text = f"#### {item.gold}"
    return {**row, "id": f"{row['id']}-terse", "text": text, "num_tokens": bench.work.reader.length(item, text) or 0}


def _scores(round_: Round) -> RoundScores:
    def right(name: str) -> dict[str, float]:
        return {row["item_id"]: float(row["correct"]) for row in round_.rows(f"{name}_attempts")}

    ood = [path.name.removesuffix("_attempts.jsonl") for path in sorted(round_.folder.glob("ood-*_attempts.jsonl"))]
    metrics = round_.metrics
    return RoundScores(
        stop=right("stop"),
        ood={name.removeprefix("ood-"): right(name) for name in ood},
        accepted=metrics["accepted_share"] if round_.number else None,
    )


def _write_outcome(work: Workshop, name: str, rounds: Sequence[Round], decision: Decision) -> None:
    best = rounds[decision.best]
    outcome = {
        "arm": name,
        "best": best.number,
        "reason": decision.reason,
        "rounds": [str(each.folder.relative_to(work.run)) for each in rounds],
        "student": str(Path(best.student).relative_to(work.run)),
    }
    write_json(work.run / "arms" / name / OUTCOME, outcome)
    work.say(f"{name}: {decision.reason}; the best round is {best.number}")


def _write_costs(work: Workshop) -> None:
    """cost.csv: what the calls of each round of each arm came to, those of rounds that were not finished too."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["arm", "round", "calls", "prompt_tokens", "completion_tokens", "money"])
    costs = work.ledger.by_stage()
    for path in [work.run / "iter_00", *sorted(work.run.glob("arms/*/iter_*"))]:
        if (path / "metrics.json").is_file():
            metrics = read_json(path / "metrics.json")
            stage = stage_of(metrics["arm"], metrics["round"])
            table.writerow([metrics["arm"], metrics["round"], *costs.pop(stage, work.cost(stage)).values()])
    for stage, cost in costs.items():
        name, _, number = stage.rpartition("/")
        table.writerow([name or stage, number or 0, *cost.values()])
    write_whole(work.run / "cost.csv", text.getvalue())
