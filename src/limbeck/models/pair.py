"""A teacher and a student that number their tokens alike: the one home of the vocabulary rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.data.templates import choose_template, end_of_turn
from limbeck.errors import ConfigError, VocabularyMismatch
from limbeck.models.dropout import silence_dropout
from limbeck.models.loading import (
    Attention,
    LoraSettings,
    add_lora,
    load_model,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
)
from limbeck.models.quantizing import Bits


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """The token ids that teacher and student share, and those that are left out before the softmax.

    `size`: number of shared ids. `shared`: None where they are exactly 0 … size − 1 (a view of the logits), else a
    mask over the first `width` columns. `dropped_student`, `dropped_teacher`: every other column of each model, its
    padding included; the student's must never be generated. `dropped`: ids whose tokens differ, with a text to print.
    """

    size: int
    shared: Bool[Tensor, " W"] | None
    dropped_student: tuple[int, ...]
    dropped_teacher: tuple[int, ...] = ()
    dropped: tuple[tuple[int, str], ...] = ()

    @property
    def width(self) -> int:
        """Columns of the logits that are looked at: `logits[..., :width]`."""
        return self.size if self.shared is None else len(self.shared)

    def lines(self) -> str:
        """What was left out, for people; empty where only padding was."""
        if not self.dropped:
            return ""
        shown = "\n".join(f"  {id}: {text}" for id, text in self.dropped[:20])
        more = f"\n  … and {len(self.dropped) - 20} more" if len(self.dropped) > 20 else ""
        return (
            f"{len(self.dropped)} token ids differ; they are left out of the losses and of generation:\n{shown}{more}"
        )


def compare_vocabularies(
    *,
    teacher_tokenizer: PreTrainedTokenizerBase,
    student_tokenizer: PreTrainedTokenizerBase,
    teacher_width: int,
    student_width: int,
) -> Vocabulary:
    """The shared ids of two tokenizers, compared id by id; the widths are those of the models' logits.

    An id is shared if both name the same token there and both models have its column. Added or special tokens that
    differ are dropped; columns that no token names are padding. A regular token that differs raises
    `VocabularyMismatch`. Merges and normalisation are not compared: both models read the student's encoding.
    """
    teacher, student = _Names.of(teacher_tokenizer), _Names.of(student_tokenizer)
    width = min(teacher_width, student_width)
    shared, dropped = torch.zeros(width, dtype=torch.bool), []
    alike = {id for id, _ in teacher.tokens.items() & student.tokens.items() if id < width}
    shared[sorted(alike)] = True
    for id in sorted((teacher.tokens.keys() | student.tokens.keys()) - alike):
        t, s = teacher.tokens.get(id), student.tokens.get(id)
        if t != s and (_is_regular(teacher, id) or _is_regular(student, id)):
            raise _mismatch(teacher=teacher, student=student, id=id)
        dropped.append((id, f"teacher {_show(t, id, teacher_width)}, student {_show(s, id, student_width)}"))
    size = int(shared.sum())
    ids = shared.nonzero().flatten().tolist()
    is_prefix = size > 0 and ids[-1] == size - 1
    known = set(ids)
    return Vocabulary(
        size=size,
        shared=None if is_prefix else shared,
        dropped_student=tuple(id for id in range(student_width) if id not in known),
        dropped_teacher=tuple(id for id in range(teacher_width) if id not in known),
        dropped=tuple(dropped),
    )


@dataclass(frozen=True)
class _Names:
    """A tokenizer as a table: id → token, and which ids are added or special."""

    name: str
    tokens: dict[int, str]
    extra: frozenset[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> _Names:
        tokens = {id: token for token, id in tokenizer.get_vocab().items()}
        extra = frozenset([*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids])
        return cls(name=tokenizer.name_or_path or type(tokenizer).__name__, tokens=tokens, extra=extra)

    @property
    def count(self) -> int:
        return max(self.tokens, default=-1) + 1


def _is_regular(names: _Names, id: int) -> bool:
    return id in names.tokens and id not in names.extra


def _show(token: str | None, id: int, width: int) -> str:
    if token is None:
        return "nothing"
    return repr(token) if id < width else f"{token!r} (no column: the model has {width})"


def _mismatch(*, teacher: _Names, student: _Names, id: int) -> VocabularyMismatch:
    s, t = (repr(names.tokens[id]) if id in names.tokens else "no token" for names in (student, teacher))
    return VocabularyMismatch(
        "student and teacher number their tokens differently."
        f"\n  student {student.name}: {len(student.tokens)} tokens"
        f"    teacher {teacher.name}: {len(teacher.tokens)} tokens"
        f"    first difference: id {id}, {s} and {t}"
        "\n  Their distributions are compared id by id. Use a teacher of the same family,"
        " or a text method: seqkd, undo."
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """A frozen teacher (or none), a student, and what they agree on.

    `tokenizer` is the student's. `stop_ids`: every id that ends a response; `pad_id` fills batches of both models and
    is no mask. The teacher is in evaluation mode without gradients. With `teacher_is_base` it is the student, read with
    LoRA off; `teacher_home` is where one computes whose weights lie in main memory (`teaching.teacher_of` knows both).
    """

    teacher: PreTrainedModel | None
    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    vocabulary: Vocabulary
    stop_ids: frozenset[int]
    pad_id: int
    teacher_name: str = ""
    student_name: str = ""
    chat_template_kwargs: Mapping[str, object] = field(default_factory=dict)
    teacher_is_base: bool = False
    teacher_home: torch.device | None = None

    @classmethod
    def load(
        cls,
        *,
        teacher: str | PreTrainedModel | None,
        student: str | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        teacher_tokenizer: PreTrainedTokenizerBase | None = None,
        student_dtype: str = "auto",
        teacher_dtype: str = "auto",
        device: str = "auto",
        teacher_device: str = "auto",
        teacher_bits: Bits | None = None,
        teacher_offload: bool = False,
        teacher_is_base: bool = False,
        attention: Attention = "auto",
        lora: LoraSettings | None = None,
        dropout: bool = False,
        allow_bin: bool = False,
        chat_template_kwargs: Mapping[str, object] | None = None,
        seed: int = 0,
    ) -> Pair:
        """Load both models and check that they fit.

        Models may be given as objects, which keep their device and dtype; the tokenizers then come from their
        `name_or_path` unless given. `teacher_dtype` "auto" is bfloat16 on a CUDA device that computes in it, else
        float32. Dropout is set to 0 unless `dropout`. `seed` starts LoRA's matrices. A teacher that is loaded here may
        be quantised (`teacher_bits`), and lie in main memory until it is asked (`teacher_offload`; nothing on a CPU).
        With `teacher_is_base` it is the student's base. Raises `ModelError`, `ConfigError`, `VocabularyMismatch`.
        """
        assert not teacher_is_base or lora is not None, "the base of a student without LoRA is trained away"
        home = resolve_device(teacher_device)
        tokenizer = tokenizer or load_tokenizer(_name_of(student, "student"))
        if isinstance(student, str):
            student = load_model(student, dtype=student_dtype, device=device, attention=attention, allow_bin=allow_bin)
        if isinstance(teacher, str) and not teacher_is_base:
            teacher_tokenizer = teacher_tokenizer or load_tokenizer(teacher)
            teacher = load_model(
                teacher,
                dtype=str(resolve_dtype(teacher_dtype, device=home, frozen=True)).removeprefix("torch."),
                device="cpu" if teacher_offload else str(home),
                attention=attention,
                allow_bin=allow_bin,
                bits=teacher_bits,
            )
        if not dropout:
            silence_dropout(student)
        if lora is not None:
            student = add_lora(student, lora, seed=seed)
        if teacher_is_base:
            alone = cls.of(
                teacher=None, student=student, tokenizer=tokenizer, chat_template_kwargs=chat_template_kwargs
            )
            return replace(alone, teacher=student, teacher_name=alone.student_name, teacher_is_base=True)
        pair = cls.of(
            teacher=teacher,
            student=student,
            tokenizer=tokenizer,
            teacher_tokenizer=teacher_tokenizer,
            chat_template_kwargs=chat_template_kwargs,
        )
        return replace(pair, teacher_home=home) if teacher_offload and home.type != "cpu" else pair

    @classmethod
    def of(
        cls,
        *,
        teacher: PreTrainedModel | None,
        student: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        teacher_tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template_kwargs: Mapping[str, object] | None = None,
    ) -> Pair:
        """Check that two loaded models fit, and freeze the teacher. Raises `ConfigError`, `VocabularyMismatch`."""
        other, width = tokenizer, (own := logits_width(student))
        if teacher is not None:
            if teacher is student:
                raise ConfigError("teacher and student are one object; give the student a copy (shrink makes one)")
            teacher.eval().requires_grad_(False)
            other, width = teacher_tokenizer or load_tokenizer(_name_of(teacher, "teacher")), logits_width(teacher)
        vocabulary = compare_vocabularies(
            teacher_tokenizer=other,
            student_tokenizer=tokenizer,
            teacher_width=width,
            student_width=own,
        )
        kwargs = dict(chat_template_kwargs or {})
        return cls(
            teacher=teacher,
            student=student,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            stop_ids=stop_ids(student, tokenizer=tokenizer, vocabulary=vocabulary, chat_template_kwargs=kwargs),
            pad_id=_pad_id(tokenizer, width=min(width, own)),
            teacher_name="" if teacher is None else teacher.name_or_path,
            student_name=student.name_or_path,
            chat_template_kwargs=kwargs,
        )


def stop_ids(
    model: PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    chat_template_kwargs: Mapping[str, object],
) -> frozenset[int]:
    """Every shared id that ends a response: EOS of the tokenizer and of the generation_config, the end of a chat turn.

    Raises `VocabularyMismatch` if there is none: generation could only end at its length limit.
    """
    listed = None if model.generation_config is None else model.generation_config.eos_token_id
    ids = {listed} if isinstance(listed, int) else set(listed or ())
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        ids.add(end_of_turn(tokenizer, choose_template("auto", tokenizer, dict(chat_template_kwargs))))
    kept = frozenset(ids - set(vocabulary.dropped_student))
    if not kept:
        raise VocabularyMismatch(
            f"no token that ends a response is shared: {sorted(ids)} are missing in one of the two vocabularies"
            "\n  set an eos_token in the student's tokenizer that the teacher knows, or use a text method: seqkd, undo."
        )
    return kept


def logits_width(model: PreTrainedModel) -> int:
    """Columns of the model's logits, padding included."""
    return int(model.get_output_embeddings().weight.shape[0])


def _pad_id(tokenizer: PreTrainedTokenizerBase, *, width: int) -> int:
    # A padding token is often added to one tokenizer alone, or without a row in the embeddings.
    return next(id for id in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if id is not None and id < width)


def _name_of(model: str | PreTrainedModel, role: str) -> str:
    name = model if isinstance(model, str) else model.name_or_path
    if not name:
        raise ConfigError(
            f"the {role} was given as a model without a name, so its tokenizer is unknown"
            f"; pass {'tokenizer' if role == 'student' else 'teacher_tokenizer'}="
        )
    return name
