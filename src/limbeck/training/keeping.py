"""What a run writes of its weights: checkpoints, the best student, and the rows of a step that went wrong."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from limbeck.evaluation.identity import weights_fingerprint
from limbeck.models.loading import has_lora
from limbeck.models.saving import save_student
from limbeck.training import checkpoint
from limbeck.training.caching import cache_state
from limbeck.training.rundir import CLIP_NETWORK, RunDirectory
from limbeck.training.session import Session
from limbeck.training.world import whole
from limbeck.types import Sequences


def save_checkpoint(session: Session, directory: RunDirectory, *, position: Mapping[str, Any]) -> float:
    """Write a checkpoint and return the seconds it took; every rank must call it."""
    started = time.monotonic()
    weights, moments = checkpoint.collect(session.distiller, session.optimizer)
    kept = cache_state(session.cache, session.world)
    if session.world.is_main:
        directory.flush()
        state = {
            "position": dict(position),
            "logs": directory.sizes(),
            "source": dict(session.source.state()),
            "micro_rows": session.auto["micro_rows"],
            **kept,
        }
        checkpoint.write(
            directory.path / "checkpoints",
            step=int(position["step"]),
            recipe=session.recipe.dump(),
            weights=weights,
            optimizer=moments,
            state=state,
        )
    session.world.barrier()
    return time.monotonic() - started


def save_best(session: Session, directory: RunDirectory) -> None:
    """Write the student as it is now as the run's student, a clip network beside it; every rank must call it."""
    student = session.pair.student
    gathered = None
    if session.world.strategy == "fsdp":
        gathered = {name: whole(tensor) for name, tensor in student.state_dict().items()}
    if session.world.is_main:
        save_student(
            student if gathered is None else _with_weights(student, gathered),
            session.pair.tokenizer,
            directory.student,
            dropped_ids=session.pair.vocabulary.dropped_student,
            stop_ids=session.pair.stop_ids,
            pad_id=session.pair.pad_id,
            settings={
                "template": session.encoder.template.kind,
                "chat_template_kwargs": dict(session.recipe.models.chat_template_kwargs),
                "max_prompt": session.encoder.max_prompt,
                "max_length": session.encoder.max_length,
            },
            # Evaluations name the same digest: which of them are of this student can be told without loading it.
            fingerprint=weights_fingerprint,
        )
    terms = {name: whole(tensor) for name, tensor in session.distiller.terms.named_parameters()}
    if terms and session.world.is_main:
        draft = directory.path / f".{CLIP_NETWORK}.draft"
        save_file({name: tensor.contiguous() for name, tensor in terms.items()}, draft)
        os.replace(draft, directory.path / CLIP_NETWORK)
    session.world.barrier()


def save_batch(session: Session, directory: RunDirectory, *, step: int, drawn: Sequences) -> str:
    """Save the rows of a step that went wrong, as they were drawn, and say where, with what usually helps."""
    path = directory.path / "failed" / f"step-{step:06d}-rank-{session.world.rank}.safetensors"
    path.parent.mkdir(exist_ok=True)
    tensors = {"tokens": drawn.tokens, "attended": drawn.attended, "is_response": drawn.is_response}
    about = {"origin": json.dumps(drawn.origin), "keys": json.dumps(drawn.keys)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=about)
    return (
        f"its rows are saved in {path}; no weight was moved by them.\n"
        "  A lower train.learning_rate, a train.warmup, or a lower train.clip_norm usually helps."
    )


def _with_weights(student: Any, weights: Mapping[str, Tensor]) -> Any:
    """A model like a sharded student, LoRA's matrices included, that holds these whole weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        copy = AutoModelForCausalLM.from_config(student.config)
        for name, adapter in (student.peft_config if has_lora(student) else {}).items():
            copy.add_adapter(adapter, adapter_name=name)
    copy.load_state_dict(dict(weights), assign=True)
    copy.tie_weights()
    return copy
