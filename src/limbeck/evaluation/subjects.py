"""What is evaluated: a model with its tokenizer and template, and the teacher that it is compared with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from limbeck.data.templates import choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.errors import ConfigError
from limbeck.evaluation.answers import BATCH_ROWS
from limbeck.models.pair import Pair
from limbeck.models.saving import training_settings
from limbeck.models.scoring import Scorer


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated: the student, its teacher if there is one, and how rows become tokens."""

    name: str
    pair: Pair
    encoder: Encoder
    student: Scorer
    teacher: Scorer | None
    batch_rows: int = BATCH_ROWS


def load_subject(
    model: str | os.PathLike[str] | PreTrainedModel,
    *,
    teacher: str | PreTrainedModel | None,
    max_prompt: int,
    new_tokens: int,
    template: str = "auto",
    device: str = "auto",
    batch_rows: int = BATCH_ROWS,
    dtype: str = "auto",
) -> Subject:
    """Load a model, and a teacher if given, for evaluation. Raises `ConfigError` where the context is too short.

    `template` "auto" is the one that a student of Limbeck's was trained with; for other models the tokenizer's own.
    `dtype` is that of the weights of models that are loaded here; "auto" is float32, and bfloat16 for a teacher on a
    CUDA device that computes in it.
    """
    given = model if isinstance(model, PreTrainedModel) else _student_folder(model)
    # Evaluation mode is enough against dropout; a caller's own model must keep its probabilities.
    pair = Pair.load(
        teacher=teacher,
        student=given,
        student_dtype=dtype,
        teacher_dtype=dtype,
        device=device,
        teacher_device=device,
        dropout=True,
    )
    for role, part in (("model", pair.student), ("teacher", pair.teacher)):
        context = None if part is None else getattr(part.config, "max_position_embeddings", None)
        if context is not None and max_prompt + new_tokens > context:
            raise ConfigError(
                f"prompts of {max_prompt} tokens and answers of {new_tokens} do not fit into the {role}'s context"
                f" of {context}\n  lower max_prompt or the decoding's max_new_tokens"
            )
    used = training_settings(given) if isinstance(given, str) and template == "auto" else {}
    encoder = Encoder(
        pair.tokenizer,
        choose_template(used.get("template", template), pair.tokenizer, used.get("chat_template_kwargs")),
        max_prompt=max_prompt,
        max_length=max_prompt + new_tokens,
        long_prompt="cut",
    )
    return Subject(
        name=pair.student_name or type(pair.student).__name__,
        pair=pair,
        encoder=encoder,
        student=Scorer.of(pair.student, vocabulary=pair.vocabulary),
        teacher=None if pair.teacher is None else Scorer.of(pair.teacher, vocabulary=pair.vocabulary),
        batch_rows=batch_rows,
    )


def _student_folder(model: str | os.PathLike[str]) -> str:
    """A run's best student, or the name as it is."""
    name = os.fspath(model)
    student = Path(name) / "student"
    return str(student) if (student / "config.json").is_file() else name
