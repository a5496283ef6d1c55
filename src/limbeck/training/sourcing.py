"""The source of a method, built for a run; and the teacher that writes answers, where the method asks one to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from limbeck.config import Recipe
from limbeck.data.loader import Loader
from limbeck.data.templates import ChatTemplate, choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.evaluation.identity import weights_fingerprint
from limbeck.methods import Method
from limbeck.models.decoders import CausalDecoder
from limbeck.models.loading import load_model, load_tokenizer
from limbeck.models.packaged import cache_folder
from limbeck.models.pair import Pair, logits_width
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.records import EncodedRow, Example
from limbeck.seeds import Seeds
from limbeck.sequences.answer_cache import Answer, AnswerCache
from limbeck.sequences.answering import Author, Reading, Share, write_answers
from limbeck.sequences.building import Foreseeing, Ground, Observing, SourceToBuild, Written
from limbeck.sequences.source import Rollouts
from limbeck.sequences.teacher import TeacherWritten
from limbeck.training.progress import Progress
from limbeck.training.world import World

# A look at a row is a forward of the student: about a fifth of what a step does with one.
_FEW_LOOKS = 4
# The length of a row of a teacher whose configuration does not say how much it reads.
_NO_LIMIT = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What a teacher writes with: the models, how rows become tokens, and the examples by their prompt tokens.

    `teacher` is None where no term reads its distributions; it is then loaded here, and let go afterwards.
    """

    recipe: Recipe
    world: World
    pair: Pair
    teacher: Scorer | None
    encoder: Encoder
    rollouts: Rollouts
    asked: Mapping[tuple[int, ...], Example]


def with_source(method: Method, desk: Desk, *, loader: Loader, steps: int) -> Method:
    """The method with its source built; answers of a teacher that are missing are written now, on every rank."""
    if not isinstance(method.sequences, SourceToBuild):
        return method
    batch_rows, world = desk.recipe.train.batch_rows, desk.world

    def written(source: TeacherWritten) -> Written:
        rows = {row.prompt: row for _, row in loader.take(0, steps * batch_rows)}
        return _written(source, desk, rows=list(rows.values()))

    ground = Ground(
        steps=steps,
        batch_rows=batch_rows,
        pad_id=desk.pair.pad_id,
        rank=world.rank,
        ranks=world.size,
        gather=world.gather,
        written=written,
    )
    return dataclasses.replace(method, sequences=method.sequences.build(ground))


def _written(source: TeacherWritten, desk: Desk, *, rows: Sequence[EncodedRow]) -> Written:
    author = _author(desk)
    folder = cache_folder() / "teacher-written" if source.cache is None else Path(source.cache).expanduser()
    world = desk.world
    return write_answers(
        source,
        author=author,
        rows=rows,
        cache=AnswerCache(folder, author.asked(source)),
        share=Share(rank=world.rank, ranks=world.size, gather=world.gather),
        note=Progress(steps=1, is_main=world.is_main).note,
    )


def _author(desk: Desk) -> Author:
    models, pair = desk.recipe.models, desk.pair
    assert models.teacher is not None, "a recipe whose source asks the teacher names one"
    if desk.teacher is not None:
        sampling = Sampling(stop_ids=pair.stop_ids, banned_ids=frozenset(pair.vocabulary.dropped_teacher))
        return _with(desk, desk.teacher, sampling=sampling, reading=_SharedTokens(desk.encoder), pad_id=pair.pad_id)
    device = str(desk.world.device) if models.teacher_device == "auto" else models.teacher_device
    tokenizer = load_tokenizer(models.teacher)
    model = load_model(
        models.teacher,
        dtype=models.teacher_dtype,
        device=device,
        attention=models.attention,
        allow_bin=models.allow_bin,
        frozen=True,
        bits=models.teacher_bits,
    ).requires_grad_(False)
    kwargs = dict(models.chat_template_kwargs) if tokenizer.chat_template else {}
    alone = Pair.of(teacher=None, student=model, tokenizer=tokenizer, chat_template_kwargs=kwargs)
    banned, stops = frozenset(alone.vocabulary.dropped_student), alone.stop_ids
    reading: Reading
    if _same_tokens(tokenizer, pair, width=logits_width(model)):
        reading, stops = _SharedTokens(desk.encoder), stops | pair.stop_ids
    else:
        reading = _OwnTokens.of(desk, tokenizer, kwargs)
    sampling = Sampling(stop_ids=stops, banned_ids=banned)
    return _with(
        desk, Scorer.of(model, vocabulary=alone.vocabulary), sampling=sampling, reading=reading, pad_id=alone.pad_id
    )


def _with(desk: Desk, scorer: Scorer, *, sampling: Sampling, reading: Reading, pad_id: int) -> Author:
    model, recipe = scorer.model, desk.recipe
    reads = int(getattr(model.config, "max_position_embeddings", None) or _NO_LIMIT)
    is_shared = isinstance(reading, _SharedTokens)
    rollouts = Rollouts(
        decoder=CausalDecoder(scorer),
        sampling=sampling,
        max_new_tokens=recipe.sampling.max_new_tokens,
        max_length=min(recipe.data.max_length, reads) if is_shared else reads,
        group_rows=desk.rollouts.group_rows,
        pad_id=pad_id,
        seeds=Seeds(0),
        device=scorer.device,
    )
    identity = {
        "name": recipe.models.teacher,
        "weights": weights_fingerprint(model),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
    }
    return Author(rollouts=rollouts, reading=reading, identity=identity)


def _same_tokens(tokenizer: PreTrainedTokenizerBase, pair: Pair, *, width: int) -> bool:
    """Whether both tokenizers name the same tokens by the same ids, and both models have a column for each."""
    tokens = tokenizer.get_vocab()
    highest = max(tokens.values(), default=-1)
    return tokens == pair.tokenizer.get_vocab() and highest < min(width, logits_width(pair.student))


@dataclass(frozen=True)
class _SharedTokens:
    """Teacher and student read the same tokens: the student's prompt, and the ids as the teacher drew them."""

    encoder: Encoder

    @property
    def name(self) -> str:
        """The prompt's tokens say everything else."""
        return "the student's tokens"

    def prompt(self, row: EncodedRow) -> tuple[int, ...]:
        """As the student reads it."""
        return row.prompt

    def text(self, tokens: Sequence[int]) -> str:
        """Without special tokens and outer white space."""
        return self.encoder.decode(tokens)

    def learned(self, row: EncodedRow, answer: Answer) -> EncodedRow:
        """The ids as they are."""
        flags = (*[False] * len(row.prompt), *[True] * len(answer.tokens))
        tokens = (*row.prompt, *answer.tokens)
        return EncodedRow(id=row.id, prompt=row.prompt, tokens=tokens, is_response=flags, cut=not answer.stopped)


@dataclass(frozen=True)
class _OwnTokens:
    """The teacher reads a template and tokenizer of its own; the student encodes the text of the answer anew."""

    teacher: Encoder
    student: Encoder
    asked: Mapping[tuple[int, ...], Example]

    @classmethod
    def of(cls, desk: Desk, tokenizer: PreTrainedTokenizerBase, kwargs: Mapping[str, object]) -> _OwnTokens:
        """Encoders with the recipe's lengths; the student's counts nothing that is printed."""
        data, own = desk.recipe.data, desk.encoder
        template = choose_template(data.template, tokenizer, kwargs)
        teacher, student = (
            Encoder(
                each,
                layout,
                max_prompt=data.max_prompt,
                max_length=data.max_length,
                long_prompt=data.long_prompt,
            )
            for each, layout in ((tokenizer, template), (own.tokenizer, own.template))
        )
        return cls(teacher=teacher, student=student, asked=desk.asked)

    @property
    def name(self) -> str:
        """The prompt's tokens say everything else."""
        return f"the teacher's own: {self.teacher.template.kind}"

    def prompt(self, row: EncodedRow) -> tuple[int, ...]:
        """The messages behind the student's prompt in the teacher's template."""
        return self.teacher.prompt(self.asked[row.prompt])

    def text(self, tokens: Sequence[int]) -> str:
        """Without special tokens and outer white space."""
        return self.teacher.decode(tokens)

    def learned(self, row: EncodedRow, answer: Answer) -> EncodedRow:
        """The text in the student's tokens; without its end of turn where the teacher's answer was cut."""
        asked_with = self.teacher.template
        text = asked_with.with_opening(answer.text) if isinstance(asked_with, ChatTemplate) else answer.text
        encoded = self.student.row(self.asked[row.prompt], response=text)
        assert encoded is not None, "a prompt that was kept is kept again"
        if answer.stopped or encoded.cut:
            return encoded
        return dataclasses.replace(encoded, tokens=encoded.tokens[:-1], is_response=encoded.is_response[:-1], cut=True)


def source_notes(recipe: Recipe, source: object, *, steps: int, observed: int) -> list[str]:
    """What the source foresees, and a schedule's looks at the validation loss where they read a good part of what the
    run learns from."""
    notes = source.notes() if isinstance(source, Foreseeing) else []
    trained = steps * recipe.train.batch_rows
    looks = sum(source.observes(step) for step in range(steps + 1)) if isinstance(source, Observing) else 0
    read = looks * observed
    if read * _FEW_LOOKS <= trained:
        return notes
    return [
        *notes,
        f"the schedule looks at the loss of {observed} validation rows {looks} times: {read:,} rows are read for it"
        f" beside {trained:,} that are trained; a larger check_every looks less often",
    ]
