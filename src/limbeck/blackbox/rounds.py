"""A round on disk, and what every round ends with: rows are put together, the student learns, and is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.blackbox import mixing
from limbeck.blackbox.artefacts import digest, file_digest, read_json, read_rows, write_json, write_rows
from limbeck.blackbox.items import Item
from limbeck.blackbox.likelihoods import likelihood_rows
from limbeck.blackbox.measuring_rounds import accuracy, round_metrics
from limbeck.blackbox.presets import Preset
from limbeck.blackbox.reading_runs import stage_of
from limbeck.blackbox.students import attempt, learn, row_tokens, slug, start_digest, steps_for
from limbeck.blackbox.workshop import Workshop
from limbeck.errors import NothingToLearn


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round on disk: round 0 learned from the first rationales, the others from rewritten ones."""

    number: int
    folder: Path

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of `<name>.jsonl`."""
        return read_rows(self.folder / f"{name}.jsonl")

    def rationales(self, name: str = "rationales") -> dict[str, dict[str, Any]]:
        """The accepted rationales of the round by question."""
        return {row["item_id"]: row for row in self.rows(name)}

    @property
    def student(self) -> str:
        """The folder of the student that the round trained."""
        return str(self.folder / read_json(self.folder / "student.json")["folder"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The numbers of the round."""
        found: Mapping[str, Any] = read_json(self.folder / "metrics.json")
        return found


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The work of one arm: its name, its settings, and the stage under which its calls are entered."""

    work: Workshop
    name: str
    arm: Preset

    def stage(self, number: int) -> str:
        """The name under which a round's calls stand in the ledger. A control's own round 0 has none."""
        return stage_of(self.name, number)

    def folder(self, number: int) -> Path:
        """Where a round of this arm lies, the common start aside."""
        return self.work.run / "arms" / self.name / f"iter_{number:02d}"

    def inputs(self, *files: Path) -> dict[str, Any]:
        """What a stage's mark remembers: all lasting settings, the arm's, and the files that it reads."""
        settings = {key: value for key, value in asdict(self.arm).items() if key != "rounds"}
        return {
            "recipe": self.work.lasting,
            "arm": [self.name, settings],
            "files": {str(each.relative_to(self.work.run)): file_digest(each) for each in files},
        }


def finish_round(
    bench: Bench,
    round_: Round,
    *,
    rationales: Sequence[tuple[mixing.Rationale, str]],
    traces: Sequence[mixing.Rationale],
    start: str,
    tokens: float | None,
    before: Round | None,
) -> None:
    """Assemble, learn, measure. `tokens` None: those of `train.epochs` passes over these rows. Raises
    `NothingToLearn`."""
    work = bench.work

    def assemble() -> None:
        rows = mixing.training_rows(rationales, traces, work.items, prompt_tokens=work.prompt_tokens)
        if not rows:
            raise NothingToLearn(
                f"no rationale of the teacher was accepted; {round_.folder / 'rejected.jsonl'} says why, one row each"
            )
        write_rows(round_.folder / "train.jsonl", rows)

    given = digest([[row["id"], kind] for row, kind in rationales] + [[row["id"], "own"] for row in traces])
    inputs = {**bench.inputs(), "given": given}
    work.stages.once(round_.folder, "assemble", inputs=inputs, outputs=["train.jsonl"], make=assemble)

    def study() -> None:
        """Train the round's student on its rows, for so many tokens."""
        rows = round_.rows("train")
        aim = work.recipe.train.epochs * sum(map(row_tokens, rows)) if tokens is None else tokens
        batch = min(work.recipe.train.batch_rows, len(rows))
        steps = steps_for(rows, tokens=aim, batch_rows=batch)
        seed = work.seeds.child("learn", round_.number).integer() % 2**31
        work.say(f"{bench.name} round {round_.number}: learning from {len(rows)} rows in {steps} steps")
        student = learn(work.recipe, round_.folder, start=start, rows=rows, steps=steps, seed=seed)
        read = steps * batch * sum(map(row_tokens, rows)) / len(rows)
        _record_student(round_, student, steps=steps, tokens=round(read))

    files = (round_.folder / "train.jsonl",)
    inputs = {**bench.inputs(*files), "start": start_digest(start), "tokens": tokens}
    work.stages.once(round_.folder, "learn", inputs=inputs, outputs=["student.json"], make=study)
    if (round_.folder / "probe_rationales.jsonl").is_file():
        _weigh(bench, round_, before=before)
    measure(bench, round_, before=before)


def _weigh(bench: Bench, round_: Round, *, before: Round | None) -> None:
    """How likely the round's rationales of the probe, which nobody learns from, are to its student and to the last."""
    work = bench.work
    students = {"after": round_} if before is None else {"before": before, "after": round_}

    def weigh() -> None:
        rationales = round_.rows("probe_rationales")
        found = {
            when: likelihood_rows(work.recipe, each.student, rationales, work.items) for when, each in students.items()
        }
        write_rows(round_.folder / "probe_nll.jsonl", [{"when": w, **row} for w, rows in found.items() for row in rows])

    read = [round_.folder / "probe_rationales.jsonl", *(each.folder / "student.json" for each in students.values())]
    work.stages.once(round_.folder, "likelihood", inputs=bench.inputs(*read), outputs=["probe_nll.jsonl"], make=weigh)


def measure(bench: Bench, round_: Round, *, before: Round | None) -> None:
    """Answer stop, test and the ood sets with the student of a round, and write its numbers."""
    work = bench.work
    parts = _measured(work)
    names = [f"{slug(part)}_attempts.jsonl" for part in parts]

    def answer() -> None:
        work.say(f"{bench.name} round {round_.number}: measuring {sum(map(len, parts.values()))} questions")
        attempt(work.recipe, round_.student, parts, folder=round_.folder, round=round_.number)

    inputs = bench.inputs(round_.folder / "student.json")
    work.stages.once(round_.folder, "measure", inputs=inputs, outputs=names, make=answer)

    def count() -> None:
        cost = work.cost(bench.stage(round_.number))
        write_json(round_.folder / "metrics.json", round_metrics(round_, arm=bench.name, before=before, cost=cost))

    read = [*names, "student.json", *(["probe_nll.jsonl"] if (round_.folder / "probe_nll.jsonl").is_file() else [])]
    inputs = bench.inputs(*(round_.folder / name for name in read))
    work.stages.once(round_.folder, "metrics", inputs=inputs, outputs=["metrics.json"], make=count)
    stop = round_.metrics["accuracy"]["stop"]
    work.say(f"{bench.name} round {round_.number}: {100 * stop['mean']:.1f} ±{100 * stop['error']:.1f} % on stop")


def round_tokens(work: Workshop) -> float:
    """The tokens that the student reads in each round of each arm: those of the first one."""
    return work.recipe.train.epochs * sum(row_tokens(row) for row in read_rows(work.run / "iter_00" / "train.jsonl"))


def answer_part(bench: Bench, round_: Round, part: str, items: Sequence[Item]) -> None:
    """Answer a part of the questions with a round's student: rows that the next round is made from."""
    work = bench.work
    # Arms that share a round share its attempts.
    owner = Bench(work=work, name="start", arm=Preset(rounds=0)) if round_.number == 0 else bench
    draws = work.recipe.student.samples if part == "train" else 1

    def answer() -> None:
        work.say(f"{owner.name} round {round_.number}: the student answers {len(items)} questions of {part}")
        attempt(work.recipe, round_.student, {part: items}, folder=round_.folder, round=round_.number, draws=draws)

    work.stages.once(
        round_.folder,
        f"attempt-{part}",
        inputs=owner.inputs(round_.folder / "student.json"),
        outputs=[f"{part}_attempts.jsonl"],
        make=answer,
    )


def measure_untouched(bench: Bench) -> None:
    """The student before anything, on stop, test and the ood sets: what learning the form of an answer is worth."""
    work = bench.work
    folder, parts = work.run / "arms" / bench.name, _measured(work)
    names = [f"{slug(part)}_attempts.jsonl" for part in parts]

    def answer() -> None:
        attempt(work.recipe, work.base, parts, folder=folder, round=0)
        rows = {name.removesuffix("_attempts.jsonl"): read_rows(folder / name) for name in names}
        write_json(folder / "accuracy.json", {part: accuracy(each) for part, each in rows.items()})

    work.stages.once(folder, "measure", inputs=bench.inputs(), outputs=[*names, "accuracy.json"], make=answer)


def _measured(work: Workshop) -> dict[str, Sequence[Item]]:
    ood = {f"ood:{name}": items for name, items in work.splits.ood.items()}
    return {"stop": work.splits.stop, "test": work.splits.test, **ood}


def _record_student(round_: Round, student: Path, *, steps: int, tokens: int) -> None:
    from limbeck.training.rundir import Run

    losses = [row["loss"] for row in Run(student.parent).metrics() if row["kind"] == "step"]
    tail = losses[-max(1, len(losses) // 10) :]
    weights = {each.name: file_digest(each) for each in sorted(student.glob("*.safetensors"))}
    about = {
        "folder": str(student.relative_to(round_.folder)),
        "steps": steps,
        "tokens": tokens,
        "loss": sum(tail) / len(tail),
        "weights": weights,
    }
    write_json(round_.folder / "student.json", about)
