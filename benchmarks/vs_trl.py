"""One epoch of GKD: Limbeck against TRL's `GKDTrainer` and `DistillationTrainer`, each in a process of its own.

    python benchmarks/vs_trl.py                            # 64 rows of the starter corpus
    python benchmarks/vs_trl.py --data dolly/train.jsonl   # 64 rows of a file
    python benchmarks/vs_trl.py --quick                    # 8 rows, random models; its ratios mean nothing

Teacher SmolLM2-135M-Instruct, student 15 of its layers (no training). `fixed` trains on the corpus's responses (lmbda
0), `drawn` on the student's (lmbda 1; all that `DistillationTrainer` knows). What is equal, what is counted and what is
left out: gkd_epoch.py.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from gkd_epoch import Epoch, Settings, compare, limbeck, options
from machine import resident_bytes

GKD, STABLE = "trl GKDTrainer", "trl DistillationTrainer"
SIDES = {"fixed": {GKD: "gkd"}, "drawn": {GKD: "gkd", STABLE: "stable"}}


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
        "bf16": settings.bf16,
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

    dtypes = {settings.student: torch.float32, settings.teacher: torch.bfloat16 if settings.bf16 else torch.float32}
    student, teacher = (AutoModelForCausalLM.from_pretrained(name, dtype=dtypes[name]) for name in dtypes)
    tokenizer = AutoTokenizer.from_pretrained(settings.student, padding_side="left")
    return {"model": student, "teacher_model": teacher, "processing_class": tokenizer}


def trl_gkd(settings: Settings, *, drawn: bool) -> Epoch:
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    idle = resident_bytes()
    counted: list[list[int]] = []

    class Counting(GKDTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *others: Any, **more: Any) -> Any:
            counted.append((inputs["labels"][:, 1:] != -100).sum(dim=1).tolist())
            return super().compute_loss(model, inputs, *others, **more)

    trainer = Counting(
        args=GKDConfig(
            **trl_arguments(settings), lmbda=float(drawn), max_new_tokens=settings.most_tokens, max_length=1024
        ),
        train_dataset=Dataset.from_list(json.loads(Path(settings.folder, "encoded.json").read_text())),
        **trl_models(settings),
    )
    return timed(trainer, counted, settings, idle)


def trl_distillation(settings: Settings, *, drawn: bool) -> Epoch:
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    assert drawn, "DistillationTrainer draws"
    idle = resident_bytes()
    counted: list[list[int]] = []

    class Counting(DistillationTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *others: Any, **more: Any) -> Any:
            counted.append(inputs["completion_mask"].sum(dim=1).tolist())
            return super().compute_loss(model, inputs, *others, **more)

    rows = json.loads(Path(settings.folder, "encoded.json").read_text())
    trainer = Counting(
        args=DistillationConfig(
            **trl_arguments(settings), top_p=1.0, top_k=0, max_completion_length=settings.most_tokens
        ),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        **trl_models(settings),
    )
    return timed(trainer, counted, settings, idle)


def timed(trainer: Any, counted: list[list[int]], settings: Settings, idle: int) -> Epoch:
    """The epoch; a row that has fewer tokens than the limit has stopped."""
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    assert len(counted) == settings.rows // settings.batch_rows
    lengths = [length for step in counted for length in step]
    stopped = sum(length < settings.most_tokens for length in lengths) / len(lengths)
    return Epoch(int(sum(lengths)), seconds, stopped, idle)


def main() -> None:
    runners = {"limbeck": limbeck, GKD: trl_gkd, STABLE: trl_distillation}
    compare(Path(__file__), options(__doc__).parse_args(), runners=runners, sides=SIDES)


if __name__ == "__main__":
    main()
