"""One epoch of GKD on the same rows, in a process of its own for each side: Limbeck's side of it. No benchmark.

The rows are the first whose prompt and response have at most 64 tokens each; all sides get the same token ids, which is
checked. Equal on all sides, where the libraries' defaults differ: JSD with beta 0.5, sampling at temperature 1 without
top-k and top-p, 64 new tokens, float32, 8 rows a step, AdamW (weight decay 0.01, clipped to norm 1), learning rate 1e-4
falling as a cosine, no gradient checkpointing, no dropout; nothing is validated, saved or reported while the time runs.
`--precision bf16` gives all sides a teacher of bfloat16 weights, and matrix products of the student in bfloat16 beside
float32 weights, which pays on a CPU with instructions for them (AMX) and is what a GPU is used with.

Seconds are those of the steps: data, models and first imports are not counted. Tokens are those with a loss; on drawn
responses each side has its own, and the share of rows that stopped before the limit is printed. `peak` is the most that
the process held. `extra` is the peak less the process with its libraries but without models, less the weights of both
and gradients and two moments of the student.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import describe, peak_bytes, resident_bytes
from pair import made_rows, saved_pair
from record import parser, publish

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class Settings:
    """What is equal on all sides; `folder` holds the rows, the models' names and the results."""

    folder: str
    teacher: str
    student: str
    held: int = 0
    rows: int = 64
    most_tokens: int = 64
    batch_rows: int = 8
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    beta: float = 0.5
    bf16: bool = False


@dataclass(frozen=True)
class Epoch:
    """What a side says of its epoch; `idle` is what the process held before it had a model."""

    tokens: int
    seconds: float
    stopped: float
    idle: int


@dataclass(frozen=True)
class Taken:
    """What one epoch took."""

    tokens: int
    seconds: float
    stopped: float
    peak: int
    extra: int

    @property
    def speed(self) -> float:
        """Tokens with a loss, a second."""
        return self.tokens / self.seconds


Runner = Callable[..., Epoch]


def prepare(folder: Path, *, data: str | None, quick: bool, batch_rows: int, bf16: bool) -> Settings:
    """The student's folder and the rows: messages for Limbeck, the same rows as token ids for the others."""
    from limbeck.data.corpora import load_corpus
    from limbeck.data.templates import choose_template
    from limbeck.data.tokenizing import Encoder
    from limbeck.models.loading import load_tokenizer
    from limbeck.preflight.outlines import Outline

    teacher, student = saved_pair(folder, quick=quick)
    sizes: dict[str, Any] = {"rows": 8, "most_tokens": 48, "batch_rows": 4} if quick else {"batch_rows": batch_rows}
    own, other = (Outline.of(name).parameters for name in (student, teacher))
    held = 4 * 4 * own + (2 if bf16 else 4) * other
    settings = Settings(str(folder), teacher, student, held=held, bf16=bf16, **sizes)
    tokenizer = load_tokenizer(teacher)
    most = settings.most_tokens
    encoder = Encoder(tokenizer, choose_template("auto", tokenizer), max_prompt=most, max_length=1024)
    corpus = made_rows(folder / "made.jsonl", count=settings.rows) if quick else data or "starter"
    plain, encoded = [], []
    for example in load_corpus(corpus).examples:
        row = encoder.row(example)
        if row is None or len(row.tokens) - len(row.prompt) > most or len(plain) == settings.rows:
            continue
        text = encoder.template.prompt_text(example.messages)
        if tokenizer(text)["input_ids"] != list(row.prompt):
            raise SystemExit(f"row {row.id}: the others would read another prompt than Limbeck")
        turns = [{"role": m.role, "content": f"{m.content}\n\n{m.input}".rstrip()} for m in example.messages]
        plain.append({"id": row.id, "messages": [*turns, {"role": "assistant", "content": example.references[0]}]})
        is_response = [int(flag) for flag in row.is_response]
        encoded.append({"prompt": text, "input_ids": list(row.tokens), "completion_mask": is_response})
    if len(plain) < settings.rows:
        raise SystemExit(f"only {len(plain)} rows have at most {most} tokens in prompt and in response")
    (folder / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
    (folder / "encoded.json").write_text(json.dumps(encoded))
    return settings


def limbeck(settings: Settings, *, drawn: bool) -> Epoch:
    from limbeck.training.loop import train

    idle = resident_bytes()
    recipe: dict[str, Any] = {
        "method": {
            "base": "gkd",
            "sequences": {"kind": "student" if drawn else "fixed"},
            "token": {"kind": "match", "divergence": {"kind": "jsd", "beta": settings.beta}},
        },
        "models": {
            "teacher": settings.teacher,
            "student": settings.student,
            "device": "cpu",
            "teacher_dtype": "bf16" if settings.bf16 else "fp32",
        },
        "data": {
            "corpus": f"{settings.folder}/plain.jsonl",
            "max_prompt": settings.most_tokens,
            "max_length": 2 * settings.most_tokens,
        },
        "train": {
            "batch_rows": settings.batch_rows,
            "learning_rate": settings.learning_rate,
            "weight_decay": settings.weight_decay,
            "clip_norm": settings.clip_norm,
            "precision": "bf16-mixed" if settings.bf16 else "fp32",
        },
        "validate": {"every": None},
        "run": f"{settings.folder}/run-{'drawn' if drawn else 'fixed'}",
    }
    if drawn:
        recipe["sampling"] = {"max_new_tokens": settings.most_tokens}
    steps = [row for row in train(recipe).metrics() if row["kind"] == "step"]
    assert len(steps) == settings.rows // settings.batch_rows
    tokens = sum(row["tokens"]["token"] for row in steps)
    seconds = sum(row["time"]["seconds"] for row in steps)
    stopped = 1 - sum(row["own"]["at_limit"] for row in steps) / len(steps) if drawn else 1.0
    return Epoch(tokens, seconds, stopped, idle)


def run_here(runners: Mapping[str, Runner], wanted: dict[str, Any]) -> None:
    """In the process of one side: run it, and leave what it took in a file, since trainers print what they like."""
    settings = Settings(**wanted["settings"])
    found = runners[wanted["side"]](settings, drawn=wanted["drawn"])
    peak = peak_bytes()
    taken = Taken(found.tokens, found.seconds, found.stopped, peak, peak - found.idle - settings.held)
    Path(wanted["result"]).write_text(json.dumps(asdict(taken)))


def measure(program: str, side: str, settings: Settings, *, drawn: bool) -> Taken:
    result = Path(settings.folder, "result.json")
    wanted = {"side": side, "settings": asdict(settings), "drawn": drawn, "result": str(result)}
    done = subprocess.run(
        [sys.executable, program, "--child", json.dumps(wanted)],
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return Taken(**json.loads(result.read_text()))


def compare(
    program: Path, given: Any, *, runners: Mapping[str, Runner], sides: Mapping[str, Mapping[str, str]]
) -> None:
    """Limbeck and the sides of each kind ("fixed", "drawn"), with their short names: a line each, and the JSON."""
    if given.child:
        run_here(runners, json.loads(given.child))
        return
    print(describe())
    findings: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        bf16 = given.precision == "bf16"
        settings = prepare(Path(folder), data=given.data, quick=given.quick, batch_rows=given.batch_rows, bf16=bf16)
        source = "made rows" if given.quick else Path(given.data).name if given.data else "the starter corpus"
        print(f"{settings.rows} rows of {source}, {settings.batch_rows} a step, {settings.most_tokens} new tokens")
        for kind, others in sides.items():
            ours = measure(str(program), "limbeck", settings, drawn=kind == "drawn")
            print(_line(kind, "limbeck", ours))
            rows.append({"kind": kind, "side": "limbeck", **asdict(ours)})
            for side, short in others.items():
                taken = measure(str(program), side, settings, drawn=kind == "drawn")
                ratios = {
                    "speed": ours.speed / taken.speed,
                    "peak": ours.peak / taken.peak,
                    "extra": ours.extra / taken.extra,
                }
                findings |= {f"{kind}.{short}.{name}": value for name, value in ratios.items()}
                rows.append({"kind": kind, "side": side, **asdict(taken)})
                said = ", ".join(f"{name} {value:.2f}" for name, value in ratios.items())
                print(f"{_line(kind, side, taken)}   limbeck / this: {said}")
    sizes = {"rows": settings.rows, "batch_rows": settings.batch_rows, "most_tokens": settings.most_tokens}
    variant = "bf16" if settings.bf16 else ""
    publish(program.stem, given, sizes={**sizes, "data": source}, findings=findings, rows=rows, variant=variant)


def options(doc: str | None) -> argparse.ArgumentParser:
    """What the programs that compare epochs are told."""
    found = parser(doc)
    found.add_argument("--data", help="a file of rows; the starter corpus without it")
    found.add_argument("--batch-rows", type=int, default=8, help="rows a step; it divides 64")
    found.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of products of matrices")
    return found


def _line(kind: str, side: str, taken: Taken) -> str:
    return (
        f"{kind}  {side:<24} {taken.tokens:>6} tokens {taken.seconds:7.1f} s {taken.speed:7.1f} tokens/s"
        f"  peak {taken.peak / 2**30:5.2f} GiB, extra {taken.extra / 2**30:5.2f}"
        + (f"   stopped early {taken.stopped:4.0%}" if kind == "drawn" else "")
    )
