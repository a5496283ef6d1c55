"""What a study will take before it runs: arms, time, disk, and the smallest difference that it could see."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limbeck.config import Recipe
from limbeck.config.uses import matches_teacher, student_draws
from limbeck.data.named import CORPORA, count_lines, expected_rows
from limbeck.errors import LimbeckError
from limbeck.preflight.hardware import Devices, reachable_flops
from limbeck.reporting.comparing import smallest_effect
from limbeck.studies.definition import ScoredCorpus, Study
from limbeck.studies.measured import Measured, measured_effect
from limbeck.studies.places import Places
from limbeck.studies.resolving import STAGE, Planned, identity_of, planned_runs, stage_key, stage_recipe, stages_of
from limbeck.studies.rows import RunRows
from limbeck.studies.sizes import counted_in, cut, named_size, width_of

# The standard deviation over prompts of the difference of two students' ROUGE-L, one answer each: SmolLM2-135M cut to
# 15 layers on 96 rows of Dolly, methods against SFT (docs/results/mgsr). Several seeds an answer make it smaller.
ASSUMED_SPREAD = 0.07
_PACKAGED_PARAMETERS = 134_515_008
_BYTES_A_ROW = 20
_DRAWN, _FILLED = 3 * 2.0, 0.6
_WORTH_SAYING = 0.1
_ROWS_OF_A_CORPUS, _STEPS_OF_AN_EPOCH = 500, 100


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds and how they are known: "measured" on this run's arm, else "estimated" from parameter counts."""

    seconds: float | None
    how: str


def effect_line(study: Study, places: Places) -> str:
    """The smallest difference of ROUGE-L that the study can see, before it runs: from its own rows where there are
    some, else from an assumed spread."""
    try:
        known = measured_effect(Measured.read(places.rows, study.name))
    except LimbeckError:
        known = None
    if known is not None:
        return f"smallest difference that shows at 80 % power, from the rows that there are: {known}"
    counted = [len(corpus.ids) if corpus.ids is not None else corpus.rows for corpus in study.scoring.corpora]
    shown = study.average or tuple(corpus.name for corpus in study.scoring.corpora)
    sizes = [size for corpus, size in zip(study.scoring.corpora, counted, strict=True) if corpus.name in shown and size]
    if min(sizes, default=1) < 2:
        return "smallest difference that shows: not known before the first rows, two or more of each corpus"
    # Numbers with this spread and mean 0: what `smallest_effect` is given as differences.
    count = sum(sizes)
    pretended = [[ASSUMED_SPREAD if place % 2 else -ASSUMED_SPREAD for place in range(size)] for size in sizes]
    points = 100 * smallest_effect(*pretended)
    return (
        f"smallest difference that shows at 80 % power: about {points:.1f} ROUGE-L over {count} prompts, if "
        f"differences spread by {100 * ASSUMED_SPREAD:.0f} points as in a first trial; it is measured after two arms"
    )


class Pace:
    """Time, memory and disk of runs, from those that are done on such a device, or from parameter counts and its speed.

    `gpu` is what the runs are to go to; without it, the device that they name on this machine.
    """

    def __init__(self, study: Study, places: Places, *, gpu: Devices | None = None) -> None:
        self.study, self.places, self.gpu = study, places, gpu
        self.done: dict[tuple[str, str], list[float]] = {}
        for path in places.rows.glob("*.jsonl.gz") if places.rows.is_dir() else ():
            try:
                about = RunRows(path).about
            except LimbeckError:
                continue
            if "recipe" in about:
                took = float(about["seconds"]) + float(about["scoring_seconds"])
                kind = _kind(about.get("environment", {}))
                self.done.setdefault((kind, _without_seed(about["recipe"])), []).append(took)

    def of(self, planned: Planned) -> Estimate:
        """Of an arm of which another seed is done on such a device: that seed's time; else an estimate."""
        if planned.recipe is None:
            return self._counted(None, planned.stage)
        known = self._measured(planned.recipe)
        if known is not None:
            return Estimate(seconds=known, how="measured on another seed")
        counted = self._counted(planned.recipe, planned.recipe.models.student)
        if counted.seconds is None or not self._ratios:
            return counted
        arms = f"{len(self._ratios)} other arm" + "s" * (len(self._ratios) > 1)
        return Estimate(
            seconds=counted.seconds * statistics.median(self._ratios),
            how=f"estimated from parameter counts and from how long {arms} took",
        )

    def _measured(self, recipe: Recipe) -> float | None:
        """The mean time of the runs of this recipe that are done on such a device, whatever their seeds."""
        kind = self.gpu.name if self.gpu is not None else reachable_flops(recipe.models.device)[0]
        known = self.done.get((kind, _without_seed(identity_of(self.study, recipe))))
        return None if known is None else sum(known) / len(known)

    @cached_property
    def _ratios(self) -> list[float]:
        """Of every arm that is done on such a device: what it took, over what parameter counts say that it takes."""
        found: dict[str, float] = {}
        for each in planned_runs(self.study):
            known = None if each.recipe is None else self._measured(each.recipe)
            if each.recipe is not None and known is not None:
                counted = self._counted(each.recipe, each.recipe.models.student).seconds
                found |= {each.arm: known / counted} if counted else {}
        return list(found.values())

    def stages(self, planned: tuple[Planned, ...]) -> Iterator[tuple[str, bool, Estimate]]:
        """The stages that these runs need, whether they are there, and their time."""
        named = {stage.name: stage for each in planned if each.recipe for stage in stages_of(self.study, each.recipe)}
        named |= {each.stage: self.study.stage(each.stage) for each in planned if each.stage}
        for stage in named.values():
            folder = self.places.stage(stage_key(self.study, stage)) / "student"
            recipe = None if stage.recipe is None else stage_recipe(self.study, stage)
            estimate = Estimate(seconds=60.0, how="estimated")
            if recipe is not None:
                estimate = self._counted(recipe, f"{STAGE}{stage.name}", scoring=False)
            yield stage.name, (folder / "config.json").is_file(), estimate

    def disk(self, planned: tuple[Planned, ...], *, jobs: int) -> str:
        """What the folders will hold while runs are under way, and what stays."""
        known = list(self._sized(planned))
        examples = sum(self._scored(corpus) for corpus in self.study.scoring.corpora)
        rows = examples * (len(self.study.scoring.seeds) + 3)
        kept = rows * _BYTES_A_ROW * len(planned) / 1e6
        folder = next(
            each for each in (self.places.work.absolute(), *self.places.work.absolute().parents) if each.is_dir()
        )
        free = shutil.disk_usage(folder).free / 1e9
        if not known:
            return f"disk: not known ({free:.0f} GB free); about {kept:.0f} MB of rows stay"
        # A student in float32, and three checkpoints of weights and both moments, one of them being written; of LoRA's
        # the checkpoints are small.
        run = max(4 * size * (1 if recipe.models.lora is not None else 1 + 3 * 3) / 1e9 for size, recipe in known)
        stays = 4 * max(size for size, _ in known) * (len(planned) if self.study.keep == "students" else 0) / 1e9
        states = self._teacher_states(examples)
        return (
            f"disk: about {run * jobs + stays + states:.1f} GB while it runs ({free:.0f} GB free), beside the stages; "
            f"about {kept:.0f} MB of rows stay"
            + (f", {states:.1f} GB of the teacher's states at the references" if states >= _WORTH_SAYING else "")
            + (f" and {stays:.1f} GB of students" if stays else "")
        )

    def _teacher_states(self, examples: int) -> float:
        """Gigabytes of what is kept of the teacher's reading of the references; nothing of a model on the hub."""
        teacher = str(self.study.recipe.get("models", {}).get("teacher"))
        is_folder = teacher.startswith(STAGE) or Path(teacher).is_dir()
        width = width_of(self._parameters(teacher) or 0) if is_folder else 0
        bytes_each = 2 if self.study.scoring.dtype == "bfloat16" else 4
        return examples * _FILLED * self.study.scoring.max_new_tokens * width * bytes_each / 1e9

    def memory(self, planned: tuple[Planned, ...]) -> str:
        """What the weights of the largest run take, with gradients and moments, beside what its device has."""
        takes = [
            (self._weights(size, recipe) + self._teacher_weights(recipe), recipe)
            for size, recipe in self._sized(planned)
        ]
        if not takes:
            return "memory: not known; `limbeck plan RECIPE` says what a run takes"
        most, recipe = max(takes, key=lambda each: each[0])
        name, has = self._device(recipe.models.device)
        told = f"memory: at least {most / 1e9:.1f} GB for the weights of the largest run, gradients and moments"
        told += f"; {name} has {has / 1e9:.0f} GB"
        return told + ("" if most <= has else ": too little; `limbeck plan RECIPE` says what would do")

    def _device(self, named: str) -> tuple[str, int]:
        """Name and bytes of the device of a run."""
        if self.gpu is not None:
            return self.gpu.name, self.gpu.memory
        from limbeck.models.loading import resolve_device
        from limbeck.models.room import free_bytes

        own = resolve_device(named)
        return str(own), free_bytes(own)

    def _flops(self, recipe: Recipe | None) -> float:
        """Operations a second that a run may reach."""
        if self.gpu is not None:
            return self.gpu.flops
        named = recipe.models.device if recipe else str(self.study.recipe.get("models", {}).get("device", "auto"))
        return reachable_flops(named, recipe.train.precision if recipe else "auto")[1]

    def _sized(self, planned: tuple[Planned, ...]) -> Iterator[tuple[int, Recipe]]:
        """The runs of which the student's parameters are known."""
        for each in planned:
            size = None if each.recipe is None else self._parameters(each.recipe.models.student)
            if size is not None and each.recipe is not None:
                yield size, each.recipe

    def _weights(self, parameters: int, recipe: Recipe) -> int:
        """Bytes of a student's weights; where all of them are trained, of gradients and both moments too."""
        bytes_each = 2 if recipe.train.precision == "bf16" else 4
        return parameters * bytes_each * (1 if recipe.models.lora is not None else 4)

    def _teacher_weights(self, recipe: Recipe) -> int:
        bytes_each = 2 if recipe.models.teacher_dtype == "bf16" else 4
        return bytes_each * (self._parameters(recipe.models.teacher) or 0)

    def _scored(self, corpus: ScoredCorpus) -> int:
        """How many rows of a corpus are answered."""
        if corpus.ids is not None:
            return len(corpus.ids)
        there = self._rows_of(corpus.corpus, corpus.split)
        known = [rows for rows in (corpus.rows, there) if rows is not None]
        return min(known, default=_ROWS_OF_A_CORPUS)

    def _rows_of(self, corpus: str, split: str) -> int | None:
        """Rows of a corpus, as its name or the lines of its file say."""
        if corpus in CORPORA:
            return expected_rows(corpus, split=split, root=self.places.root)
        path = Path(self.places.data(corpus)).expanduser()
        return count_lines(path) if path.is_file() else None

    def _steps(self, recipe: Recipe) -> int:
        if recipe.train.steps is not None:
            return recipe.train.steps
        corpus = recipe.data.corpus
        names = [corpus] if isinstance(corpus, str) else [share.corpus for share in corpus or ()]
        rows = [self._rows_of(name, "train") for name in names]
        if not rows or None in rows:
            return _STEPS_OF_AN_EPOCH * recipe.train.epochs
        return recipe.train.epochs * -(-sum(each or 0 for each in rows) // recipe.train.batch_rows)

    def _counted(self, recipe: Recipe | None, student: str, *, scoring: bool = True) -> Estimate:
        """Floating-point operations over what the device may reach of them in a second: 2 a parameter and token
        forward, 4 backward; drawing waits for memory and takes three times as long. Rows are taken to be 0.6 of the
        longest."""
        mine = self._parameters(student if recipe is not None else f"{STAGE}{student}")
        if mine is None:
            return Estimate(seconds=None, how="no parameter count: the model is not here")
        work = 0.0 if recipe is None else self._training(recipe, mine)
        if scoring:
            parts = self.study.scoring
            answers = sum(self._scored(corpus) for corpus in parts.corpora)
            teacher = self._parameters(self.study.recipe.get("models", {}).get("teacher")) or 0
            work += answers * len(parts.seeds) * parts.max_new_tokens * _DRAWN * mine
            work += 2 * answers * _FILLED * (parts.max_prompt + parts.max_new_tokens) * 2.0 * (mine + teacher)
        return Estimate(
            seconds=work / self._flops(recipe), how="estimated from parameter counts, may be off by a factor of 3"
        )

    def _training(self, recipe: Recipe, mine: int) -> float:
        method, train = recipe.built_method(), recipe.train
        steps = self._steps(recipe)
        tokens = steps * train.batch_rows * _FILLED * recipe.data.max_length
        # With LoRA the gradient goes through the weights and stops before them.
        passes = 4.0 if recipe.models.lora is not None else 6.0
        work = passes * tokens * mine
        if recipe.models.teacher is not None and matches_teacher(method):
            work += 2.0 * tokens * (self._parameters(recipe.models.teacher) or 2 * mine)
        if student_draws(method.sequences):
            drawn = steps * train.batch_rows * min(recipe.sampling.max_new_tokens, recipe.data.max_length)
            work += drawn * _DRAWN * mine * (2.0 if method.revision is not None else 1.0)
        if method.weights.supervised:
            work += passes / 2 * tokens * mine
        every, looks = recipe.validate.every, 0.0
        if every is not None and recipe.validate.metric == "rouge-l":
            looks = train.epochs if every == "epoch" else steps / int(every)
        return work + looks * recipe.validate.rows * recipe.sampling.max_new_tokens * _DRAWN * mine

    def _parameters(self, name: str | None) -> int | None:
        from limbeck.models.packaged import PACKAGED

        if name is None:
            return None
        if name.startswith(STAGE):
            stage = self.study.stage(name.removeprefix(STAGE))
            if stage.shrink is not None:
                whole = self._parameters(str(stage.shrink["model"]))
                return whole if whole is None else cut(whole, str(stage.shrink["model"]), stage.shrink["layers"])
            assert stage.recipe is not None
            return self._parameters(str(stage.recipe["models"]["student"]))
        if name in PACKAGED:
            return _PACKAGED_PARAMETERS
        folder = Path(name)
        return counted_in(folder) if (folder / "config.json").is_file() else named_size(name)


def _without_seed(identity: object) -> str:
    plain = json.loads(json.dumps(identity))
    plain["train"].pop("seed", None)
    return json.dumps(plain, sort_keys=True)


def _kind(environment: Mapping[str, object]) -> str:
    """The device that a run was made on: times of one kind say nothing about another."""
    return str(environment.get("accelerator") or str(environment.get("device", "cpu")).partition(":")[0])
