"""The eight answers of an UNDO page, from the files of its run. No torch."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from limbeck.blackbox.artefacts import EVENTS
from limbeck.blackbox.page_tables import lead, percent
from limbeck.blackbox.reading_runs import ArmRows, RoundRows, RunRows
from limbeck.reporting.comparing import Comparison
from limbeck.reporting.contest import Contest, by_place
from limbeck.reporting.durations import duration
from limbeck.reporting.questions import KeyAnswer, all_answered, of_each
from limbeck.reporting.reduce import mean_interval, paired_bootstrap
from limbeck.reporting.run_answers import is_real, leads, mean_of, p_value, real_or_not
from limbeck.reporting.run_logs import rows_of
from limbeck.reporting.tables import Number
from limbeck.reporting.telling import capital

_ONE_SHOT = ("one-shot", "one-shot-long")


def undo_answers(rows: RunRows, test: Sequence[Comparison], *, shown: Sequence[str]) -> tuple[KeyAnswer, ...]:
    """All eight; `test` are the controls minus the method on the test questions."""
    return all_answered(
        (_best(rows), _sft(rows, test), _kept(rows), _left_out(rows), _drawn(rows), _watch(rows), _cost(rows),
         _repeat(rows)),
        shown=shown,
    )  # fmt: skip


def _best(rows: RunRows) -> KeyAnswer:
    if len(rows.arms) < 2:
        says = (
            f"{rows.main.name} is the only arm that was run: {percent(rows.main.best.metrics['accuracy']['test'])} on "
            "test in its best round; controls are what an arm is better than.",
        )
        command = f"limbeck undo resume {_path(rows)} 'controls=[one-shot,blind,shuffled]'"
        return KeyAnswer(about="best", says=says, see=("arms",), command=command)
    scores = {arm.name: by_place({"": arm.best.right("test")}) for arm in rows.arms}
    contest = Contest(what="accuracy on test", see="arms", rows="rows", scores=scores)
    first, second, *_ = contest.order
    score = Number.of(mean_interval(scores[first], seed=0), scale=100).text()
    lead_of_first = leads(contest.against(first)[second], second, num_compared=len(scores) - 1, what="questions")
    says = (f"{first} has the highest accuracy on test in its best round, {score} %. {lead_of_first}",)
    return KeyAnswer(about="best", says=says, see=("arms", "rows"))


def _sft(rows: RunRows, test: Sequence[Comparison]) -> KeyAnswer:
    """Fine-tuning on the teacher's first rationales is what one-shot distillation is."""
    method, told = rows.main.name, []
    for each in test:
        if each.arm in _ONE_SHOT:
            ahead = each.gap.mean < 0
            verdict = "not shown: it could be chance"
            if is_real(each):
                verdict = "yes, it is better" if ahead else "yes, and it is worse"
            told.append(
                f"{method} − {each.arm}, which is SFT on the first rationales: {lead(each).text()} points on test "
                f"({p_value(each, len(test))}); {verdict}."
            )
    if told:
        return KeyAnswer(about="sft", says=tuple(told), see=("arms", "rows"))
    command = f"limbeck undo resume {_path(rows)} 'controls=[one-shot-long]'"
    if rows.main.best.metrics["round"] == 0:
        says = (f"The best round of {method} is round 0, which is SFT on the first rationales: no difference.",)
        return KeyAnswer(about="sft", says=says, see=("rounds",), command=command)
    gap = paired_bootstrap(rows.main.best.right("test"), rows.main.rounds[0].right("test"), seed=0)
    says = (
        f"Round {rows.main.best.metrics['round']} − round 0, which is SFT on the first rationales: {mean_of(gap)} on "
        f"test; {real_or_not(gap, is_real=gap.excludes_zero)}. Whether SFT for the tokens of all rounds does as much, "
        "the control one-shot-long tells.",
    )
    return KeyAnswer(about="sft", says=says, see=("rounds",), command=command)


def _kept(rows: RunRows) -> KeyAnswer:
    return KeyAnswer(
        about="checkpoint", says=of_each([(arm.name, _kept_of(arm)) for arm in rows.arms]), see=("rounds", "accuracy")
    )


def _kept_of(arm: ArmRows) -> str:
    best = arm.best
    why = "it is not finished" if arm.outcome is None else f"it ended because: {arm.outcome['reason']}"
    others = [each for each in arm.rounds if each is not best]
    kept = f"the student of round {best.metrics['round']} is kept"
    on_stop = percent(best.metrics["accuracy"]["stop"])
    if not others:
        return f"{kept}, the only one ({on_stop} on stop); {why}."
    second = max(others, key=lambda each: each.metrics["accuracy"]["stop"]["mean"])
    gap = paired_bootstrap(best.right("stop"), second.right("stop"), seed=0)
    return (
        f"{kept}: of {len(arm.rounds)} rounds it has the highest accuracy on stop, {on_stop}; the runner-up is round "
        f"{second.metrics['round']}, behind by {mean_of(gap)} on the same {gap.num_examples:,} questions; {why}."
    )


def _left_out(rows: RunRows) -> KeyAnswer:
    told = [(arm.name, _rejected(arm)) for arm in rows.arms if any(each.metrics["asked"] for each in arm.rounds)]
    notes = tuple(capital(f"{note}.") for note in rows.manifest.get("notes", ()))
    long = () if any("max_prompt" in note for note in notes) else ("Every question fits into student.max_prompt.",)
    return KeyAnswer(about="rows", says=(*notes, *long, *(of_each(told) if told else ())), see=("cost", "rounds"))


def _rejected(arm: ArmRows) -> str:
    wanted, accepted, asked = (
        sum(each.metrics[key] for each in arm.rounds) for key in ("refined", "accepted", "asked")
    )
    reasons = Counter[str]()
    for each in arm.rounds:
        reasons.update(each.metrics["rejected"])
    why = ", ".join(f"{count:,} {name}" for name, count in sorted(reasons.items())) or "none"
    return (
        f"of {wanted:,} rationales that were wanted {accepted:,} were accepted ({asked:,} were asked for, with retries "
        f"and those of the probe); rejected: {why}."
    )


def _drawn(rows: RunRows) -> KeyAnswer:
    return KeyAnswer(about="drawn", says=of_each([(arm.name, _drawn_by(arm)) for arm in rows.arms]), see=("rounds",))


def _drawn_by(arm: ArmRows) -> str:
    told = []
    for each in arm.rounds:
        kinds, count = each.metrics["kinds"], each.metrics["rows"]
        own, fresh = (100 * kinds.get(kind, 0) / count for kind in ("student", "new"))
        number = each.metrics["round"]
        revised = (
            f", {fresh:.1f} % rewritten by the teacher in this round" if number and each.metrics["refined"] else ""
        )
        told.append(f"round {number}: {own:.1f} % of {count:,} rows are the student's own answers{revised}")
    return f"{'; '.join(told)}."


def _watch(rows: RunRows) -> KeyAnswer:
    """The signatures of the trainings inside the rounds."""
    told, trained = [], 0
    for name, each in _rounds(rows):
        path = each.folder / "training" / "metrics.jsonl"
        trained += path.is_file()
        for row in rows_of(path):
            if row["kind"] == "watch":
                where = f"{name}, round {each.metrics['round']}"
                sign = f"{row['name']}. {capital(str(row['message']))}. {row['advice']}"
                told.append(f"{where}: yes, after step {row['step']:,}: {sign}")
    none = f"No failure signature showed in {trained} training{'' if trained == 1 else 's'} of students."
    ended = [f"{arm.name} ended because: {arm.outcome['reason']}." for arm in rows.arms if arm.outcome is not None]
    return KeyAnswer(about="watch", says=(*(told or [none]), *ended), see=("rounds", "arms"))


def _rounds(rows: RunRows) -> list[tuple[str, RoundRows]]:
    """Every round of every arm with whose it is, the common start once."""
    found: dict[Path, tuple[str, RoundRows]] = {}
    for arm in rows.arms:
        for each in arm.rounds:
            found.setdefault(each.folder, (str(each.metrics["arm"]), each))
    return list(found.values())


def _cost(rows: RunRows) -> KeyAnswer:
    costs = list(rows.costs.values())
    calls, asked, answered = (
        sum(cost[key] for cost in costs) for key in ("calls", "prompt_tokens", "completion_tokens")
    )
    money = sum(cost["money"] for cost in costs)
    tokens = sum(each.metrics["train"]["tokens"] for _, each in _rounds(rows))
    paid = (
        f"{calls:,} calls of the teacher, {asked:,} prompt and {answered:,} answer tokens, {money:.4f} in the price "
        "list's money"
        if calls
        else "No call was entered, so that no money was spent"
    )
    seconds = _seconds(rows.folder)
    took = f"its stages took {duration(seconds)}" if seconds is not None else "how long it took is not recorded"
    says = (f"{paid}; students read {tokens:,} tokens in training; {took}.",)
    return KeyAnswer(about="cost", says=says, see=("cost", "arms"))


def _seconds(run: Path) -> float | None:
    """The time between the beginning and the end of every stage that was finished; None without events."""
    begun: dict[tuple[str, str], float] = {}
    total, is_known = 0.0, False
    for row in rows_of(run / EVENTS):
        key = (str(row["folder"]), str(row["stage"]))
        if row["event"] == "begin":
            begun[key] = float(row["at"])
        elif row["event"] == "done" and key in begun:
            total, is_known = total + float(row["at"]) - begun.pop(key), True
    return total if is_known else None


def _repeat(rows: RunRows) -> KeyAnswer:
    path, kind = _path(rows), str(rows.manifest["teacher"].get("kind") or "")
    if ":" in kind:
        says = (
            f"Its teacher, {kind}, is your own, and is imported from a recipe that you wrote, never from a run's: give "
            "that one.",
        )
        command = "limbeck undo run YOUR_RECIPE.yaml run=DIR"
        return KeyAnswer(about="repeat", says=says, see=("reading",), command=command)
    says = ("From the ledger, without a call, and compared byte for byte; or all anew, which pays again.",)
    recipe, folder = shlex.quote(str(rows.folder / "recipe.yaml")), shlex.quote(f"{rows.folder}-again")
    again = f"limbeck undo run {recipe} run={folder}"
    return KeyAnswer(about="repeat", says=says, see=("reading",), command=f"limbeck undo replay {path}\n{again}")


def _path(rows: RunRows) -> str:
    return shlex.quote(str(rows.folder))
