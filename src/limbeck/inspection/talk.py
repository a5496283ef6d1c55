"""`limbeck chat`: talking to a student, and to its teacher beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from limbeck.config import Recipe
from limbeck.errors import ConfigError, DataError, VocabularyMismatch
from limbeck.evaluation.answers import Answerer, Decoding
from limbeck.evaluation.subjects import Subject, load_subject
from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import evaluating
from limbeck.models.loading import load_config
from limbeck.records import Example, Message

_HELP = "/new: a new conversation · /system TEXT: and with this system message · /quit or Ctrl-D: end"
# Prompts longer than this are cut, oldest turns first, however much more a model could read.
_LONGEST = 4_096
_BESIDE, _GAP = 80, 3


@dataclass(kw_only=True)
class Speaker:
    """A model with its own side of the conversation."""

    name: str
    model: nn.Module
    answerer: Answerer
    history: list[Message] = field(default_factory=list)

    def say(self, text: str, *, turn: int, decoding: Decoding, seed: int) -> str:
        """The answer to what was said so far and to `text`; both become a part of the conversation.

        The noise belongs to the turn's number and the seed: the same conversation goes the same way again. Raises
        `DataError` where the template refuses the turns; the conversation is then as it was.
        """
        asked = (*self.history, Message(role="user", content=text))
        example = Example(id=f"turn-{turn}", messages=asked, references=("",), corpus="chat")
        with evaluating(self.model):
            ((row,),) = self.answerer.answers([example], corpus="chat", seeds=[seed], decoding=decoding)
        self.history = [*asked, Message(role="assistant", content=row.text)]
        return row.text


@dataclass(frozen=True, kw_only=True)
class Talk:
    """One or two speakers who are asked the same."""

    speakers: tuple[Speaker, ...]
    decoding: Decoding
    seed: int

    def turn(self, text: str, *, number: int) -> list[str]:
        """What each speaker answers."""
        return [speaker.say(text, turn=number, decoding=self.decoding, seed=self.seed) for speaker in self.speakers]

    def restart(self, system: str = "") -> None:
        """Forget what was said; `system` is the first message of the new conversation, if there is one."""
        for speaker in self.speakers:
            speaker.history = [Message(role="system", content=system)] if system else []


def open_talk(
    model: Path | str,
    *,
    side_by_side: bool = False,
    teacher: str | None = None,
    decoding: Decoding | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Talk:
    """Load a run's student (or any model) to talk to, with the template that it was trained with.

    `side_by_side` adds the teacher: `teacher`, else the one of the run's recipe. It reads the student's tokens, as in
    training; where its vocabulary is another one, its own tokens and template. Raises `ConfigError` where there is no
    teacher to be had, `ModelError` as loading does.
    """
    folder = Path(model)
    is_run = (folder / "recipe.yaml").is_file()
    name = str(folder / "student") if is_run and (folder / "student" / "config.json").is_file() else str(model)
    if is_run and name == str(model):
        raise ConfigError(f"the run {folder} has no student yet; wait for its first validation")
    decoding = decoding or Decoding()
    other = (teacher or (Recipe.recorded(folder).models.teacher if is_run else None)) if side_by_side else None
    if side_by_side and other is None:
        raise ConfigError(f"{model} names no teacher to put beside it; name one with --teacher")
    try:
        subject, decoding = _subject(name, teacher=other, decoding=decoding, device=device)
        theirs = None if subject.teacher is None else replace(subject, student=subject.teacher)
    except VocabularyMismatch:
        subject, decoding = _subject(name, teacher=None, decoding=decoding, device=device)
        assert other is not None, "a pair of one model has one vocabulary"
        theirs, _ = _subject(other, teacher=None, decoding=decoding, device=device)
    speakers = [_speaker("student" if side_by_side else "", subject)]
    speakers += [] if theirs is None else [_speaker("teacher", theirs)]
    return Talk(speakers=tuple(speakers), decoding=decoding, seed=seed)


def _subject(name: str, *, teacher: str | None, decoding: Decoding, device: str) -> tuple[Subject, Decoding]:
    """The models, with room for a prompt and an answer in the shorter context."""
    limits = [
        int(limit)
        for each in (name, teacher)
        if each is not None and (limit := getattr(load_config(each).get_text_config(), "max_position_embeddings", None))
    ]
    context = min([_LONGEST, *limits])
    new = min(decoding.max_new_tokens, context // 2)
    subject = load_subject(name, teacher=teacher, max_prompt=context - new, new_tokens=new, device=device)
    return subject, replace(decoding, max_new_tokens=new)


def _speaker(name: str, subject: Subject) -> Speaker:
    answerer = Answerer(
        decoder=CausalDecoder(subject.student),
        encoder=subject.encoder,
        stop_ids=subject.pair.stop_ids,
        banned_ids=frozenset(subject.pair.vocabulary.dropped_student),
        pad_id=subject.pair.pad_id,
        device=subject.student.device,
        batch_rows=1,
    )
    return Speaker(name=name, model=subject.student.model, answerer=answerer)


def chat(
    talk: Talk, *, read: Callable[[], str], write: Callable[[str], object], width: int = 80, help: bool = False
) -> int:
    """Read what a person says, line by line, and write what the speakers answer, until the input ends; returns turns.

    `read` raises `EOFError` at the end. Ctrl-C while an answer is drawn drops that answer; at the prompt it ends the
    talk. A line that begins with / is a command.
    """
    turns = 0
    if help:
        write(_HELP)
    while True:
        try:
            said = read().strip()
        except (EOFError, KeyboardInterrupt):
            return turns
        command, _, rest = said.partition(" ")
        if command in ("/quit", "/exit"):
            return turns
        if command in ("/new", "/system"):
            talk.restart(rest.strip() if command == "/system" else "")
            write("a new conversation")
        elif said.startswith("/"):
            write(_HELP)
        elif said:
            before = [list(speaker.history) for speaker in talk.speakers]
            try:
                write(beside(talk.turn(said, number=turns), [s.name for s in talk.speakers], width=width))
                turns += 1
            except (KeyboardInterrupt, DataError) as error:
                for speaker, history in zip(talk.speakers, before, strict=True):
                    speaker.history = history
                write("dropped" if isinstance(error, KeyboardInterrupt) else f"error: {error}")


def beside(texts: Sequence[str], names: Sequence[str], *, width: int) -> str:
    """Answers beside each other where there is room, else below each other; a single one as it is, wrapped.

    >>> print(beside(["yes", "no, never"], ["student", "teacher"], width=80))
    student                                teacher
    yes                                    no, never
    """
    if len(texts) == 1:
        return "\n".join(_wrapped(texts[0], width))
    if width < _BESIDE:
        return "\n".join(
            line for name, text in zip(names, texts, strict=True) for line in (f"{name}:", *_wrapped(text, width))
        )
    each = (width - _GAP * (len(texts) - 1)) // len(texts)
    columns = [[name, *_wrapped(text, each)] for name, text in zip(names, texts, strict=True)]
    rows = max(map(len, columns))
    padded = [column + [""] * (rows - len(column)) for column in columns]
    return "\n".join((" " * _GAP).join(cell.ljust(each) for cell in row).rstrip() for row in zip(*padded, strict=True))


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width`; the text's own line breaks stay, and control characters are shown, not obeyed."""
    clean = "".join(sign if sign.isprintable() or sign == "\n" else "·" for sign in text.expandtabs(4))
    lines = [part for line in clean.split("\n") for part in (textwrap.wrap(line, width, drop_whitespace=True) or [""])]
    return lines or [""]
