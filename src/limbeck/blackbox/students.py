"""What the student does in the loop: it reads questions, learns from rationales by `limbeck.train`, and answers."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from limbeck.blackbox.artefacts import digest, file_digest, write_rows
from limbeck.blackbox.items import Item
from limbeck.blackbox.judging import judged
from limbeck.blackbox.recipes import UndoRecipe
from limbeck.config import Recipe
from limbeck.data.templates import choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.errors import ConfigError, NonFiniteLoss, Stopped
from limbeck.evaluation.answering import answer_rows
from limbeck.evaluation.answers import Decoding
from limbeck.evaluation.subjects import Subject, load_subject
from limbeck.losses import DIVERGENCES
from limbeck.models.extending import evaluating
from limbeck.models.loading import load_tokenizer
from limbeck.records import Example, Message
from limbeck.training.loop import train
from limbeck.training.pairing import load_pair
from limbeck.training.resolving import resolve_precision
from limbeck.training.rundir import Run
from limbeck.training.world import World

_FIRST_SEED = 10


def example_of(item: Item) -> Example:
    """The question as the student reads it; its reference is the gold answer, which nothing here learns from."""
    message = Message(role="user", content=item.asked())
    return Example(id=item.id, messages=(message,), references=(item.gold,), source=item.source)


@dataclass(frozen=True)
class Reader:
    """How many tokens of the student's a question and a rationale take."""

    encoder: Encoder
    longest: int

    @classmethod
    def of(cls, recipe: UndoRecipe, model: str) -> Reader:
        """The reader of a model's tokenizer."""
        student = recipe.student
        tokenizer = load_tokenizer(model)
        template = choose_template(student.template, tokenizer)
        limit = student.max_prompt + student.max_new_tokens
        encoder = Encoder(tokenizer, template, max_prompt=student.max_prompt, max_length=limit)
        return cls(encoder, student.max_new_tokens)

    def fits(self, item: Item) -> bool:
        """Whether the student reads the question whole."""
        return len(self.encoder.prompt(example_of(item))) <= self.encoder.max_prompt

    def length(self, item: Item, text: str) -> int | None:
        """The tokens of a rationale with its end of turn; None where they do not all fit."""
        row = self.encoder.row(example_of(item), response=text)
        if row is None or row.cut:
            return None
        count = sum(row.is_response)
        return count if count <= self.longest else None

    def prompt_length(self, item: Item) -> int:
        """The tokens of a question in its template."""
        return len(self.encoder.prompt(example_of(item)))


def row_tokens(row: Mapping[str, Any]) -> int:
    """The tokens that the student reads in a training row."""
    return int(row["prompt_tokens"]) + int(row["num_tokens"])


def steps_for(rows: Sequence[Mapping[str, Any]], *, tokens: int | float, batch_rows: int) -> int:
    """The steps in which rows of this mean length come nearest to so many tokens; at least one.

        steps = max(1, round(tokens / (batch_rows · mean length)))

    >>> steps_for([{"prompt_tokens": 6, "num_tokens": 4}], tokens=400, batch_rows=4)
    10
    """
    mean = sum(row_tokens(row) for row in rows) / len(rows)
    return max(1, round(tokens / (batch_rows * mean)))


def check_trainable(recipe: UndoRecipe, model: str | None) -> None:
    """Raise what a training of `model` would raise on this machine, before anybody is asked for its rows.

    The student is loaded with all that is trained or matched, and let go again. None: it is yet to be made.
    """
    student, training = recipe.student, recipe.train
    match = training.token_match
    if match is not None:
        _ = DIVERGENCES[match.divergence]
    rate, rows = training.learning_rate, training.batch_rows
    settings = Recipe.load(
        _training(recipe, Path("undo"), start=model or "scratch", num_rows=rows, steps=1, rate=rate, seed=0)
    )
    world = World.start(device=student.device)
    if model is None:
        return
    precision = resolve_precision(settings, world)
    pair, _ = load_pair(settings, world, precision=precision, attention=student.attention, is_matched=match is not None)
    length = student.max_prompt + student.max_new_tokens
    for name, part in ((model, pair.student), (match and match.teacher, pair.teacher)):
        context = None if part is None else getattr(part.config, "max_position_embeddings", None)
        if context and length > context:
            raise ConfigError(
                f"student.max_prompt {student.max_prompt} and student.max_new_tokens {student.max_new_tokens} are "
                f"{length} tokens, but '{name}' reads at most {context}\n"
                "  lower one of them (limbeck undo transfer: --max-new-tokens)"
            )


def start_digest(start: str) -> str:
    """A hash of the weights in a folder; of a name, where it is none."""
    path = Path(start)
    found = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    return digest([file_digest(each) for each in found] or start)


def learn(
    recipe: UndoRecipe, folder: Path, *, start: str, rows: Sequence[Mapping[str, Any]], steps: int, seed: int
) -> Path:
    """Train a student from `start` on these rows; returns its folder. Goes on with a training that was stopped.

    A loss that is no finite number starts the training once more with half the learning rate; a second one raises.
    """
    for attempt, rate in enumerate((recipe.train.learning_rate, recipe.train.learning_rate / 2)):
        run = folder / ("training" if attempt == 0 else "training-again")
        failed = folder / f"{run.name}.failed"
        if failed.exists():
            continue
        try:
            return _learned(recipe, run, start=start, rows=rows, steps=steps, rate=rate, seed=seed)
        except NonFiniteLoss:
            if attempt:
                raise
            failed.touch()
    raise NonFiniteLoss(f"the training in {folder} failed at both learning rates")


def _learned(
    recipe: UndoRecipe,
    run: Path,
    *,
    start: str,
    rows: Sequence[Mapping[str, Any]],
    steps: int,
    rate: float,
    seed: int,
) -> Path:
    done = Run(run)
    if done.is_finished:
        done.drop_checkpoints()
        return run / "student"
    settings = _training(recipe, run, start=start, num_rows=len(rows), steps=steps, rate=rate, seed=seed)
    given = [{"id": row["id"], "prompt": row["prompt"], "completion": row["completion"]} for row in rows]
    try:
        done = train(settings, rows=given, resume=(run / "recipe.yaml").is_file())
    except Stopped as error:
        raise Stopped(str(error).split("\n")[0]) from error
    done.drop_checkpoints()
    return run / "student"


def _training(
    recipe: UndoRecipe, run: Path, *, start: str, num_rows: int, steps: int, rate: float, seed: int
) -> dict[str, Any]:
    """The recipe of one training, as `limbeck.train` takes it."""
    training, student = recipe.train, recipe.student
    match = training.token_match
    # A round may have fewer rows than a batch, and fewer steps than a warm-up in steps.
    batch_rows, micro_rows, warmup = min(training.batch_rows, num_rows), training.micro_rows, training.warmup
    method: dict[str, Any] = {"base": "sft"}
    models: dict[str, Any] = {"student": start, "device": student.device, "attention": student.attention}
    if student.lora is not None:
        models["lora"] = asdict(student.lora)
    if match is not None:
        # Fixed sequences: the rationales, matched token by token beside their cross-entropy.
        method = {"base": "kd", "weights": {"supervised": 1.0, "token": match.weight}}
        method["token"] = {"kind": "match", "divergence": {"kind": match.divergence}}
        models["teacher"] = match.teacher
    return {
        "method": method,
        "models": models,
        "data": {
            "template": student.template,
            "max_prompt": student.max_prompt,
            "max_length": student.max_prompt + student.max_new_tokens,
        },
        "train": {
            "steps": steps,
            "batch_rows": batch_rows,
            "micro_rows": micro_rows if micro_rows == "auto" else min(micro_rows, batch_rows),
            "learning_rate": rate,
            "schedule": training.schedule,
            "warmup": warmup if warmup < 1 else min(warmup, steps - 1),
            "weight_decay": training.weight_decay,
            "clip_norm": training.clip_norm,
            "precision": training.precision,
            "seed": seed,
        },
        "validate": {"every": None},
        "run": str(run),
    }


def subject_of(recipe: UndoRecipe, model: str) -> Subject:
    """A student as it is asked and measured: with the recipe's template, lengths and device, without a teacher."""
    student = recipe.student
    return load_subject(
        model,
        teacher=None,
        max_prompt=student.max_prompt,
        new_tokens=student.max_new_tokens,
        template=student.template,
        device=student.device,
    )


def attempt(
    recipe: UndoRecipe, model: str, parts: Mapping[str, Sequence[Item]], *, folder: Path, round: int, draws: int = 1
) -> None:
    """Answer the questions of each part and write `<part>_attempts.jsonl`, one row an answer, with its verdict.

    Greedy at temperature 0; else by uniforms of (part, id, draw). A stopped call goes on with the batch it was in.
    """
    student = recipe.student
    subject = replace(subject_of(recipe, model), name="student", batch_rows=student.answer_rows)
    decoding = Decoding(temperature=student.temperature, max_new_tokens=student.max_new_tokens)
    answers = folder / "answers"
    with evaluating(subject.student.model):
        for part, items in parts.items():
            by_id = {item.id: item for item in items}
            found = answer_rows(
                subject,
                [example_of(item) for item in items],
                corpus=part,
                seeds=range(_FIRST_SEED, _FIRST_SEED + draws),
                decoding=decoding,
                path=functools.partial(_answer_path, answers, part),
            )
            rows = [
                _attempt_row(by_id[str(row["id"])], row, round=round, draw=row["seed"] - _FIRST_SEED) for row in found
            ]
            write_rows(folder / f"{slug(part)}_attempts.jsonl", rows)
    shutil.rmtree(answers, ignore_errors=True)


def _answer_path(folder: Path, part: str, seed: int) -> Path:
    return folder / f"{slug(part)}-{seed - _FIRST_SEED}.jsonl"


def slug(part: str) -> str:
    """A part's name as a file's."""
    return part.replace(":", "-").replace("/", "-")


def _attempt_row(item: Item, row: Mapping[str, Any], *, round: int, draw: int) -> dict[str, Any]:
    finish = "stop" if row["stopped"] else "length"
    text = str(row["text"])
    verdict, error = judged(item, text, finish=finish)
    return {
        "id": digest([item.id, round, draw, text]),
        "item_id": item.id,
        "round": round,
        "draw": draw,
        "text": text,
        "finish": finish,
        "num_tokens": row["num_tokens"],
        "extracted": verdict.extracted,
        "mode": verdict.mode,
        "correct": verdict.correct,
        "strict": verdict.strict,
        "error": error,
    }
