"""Extractors: what finds spans, in a text or among tokens; and the phrases of textblob."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from limbeck.spans.pieces import Interval

# textblob's tokenizer splits "doesn't" into "does" and "n't", which its lexicon has, and then the apostrophe off too,
# which makes "n" and "t" nouns. Not so "'s": whole, it is in no phrase, and "the dog's ball" would lose a pair.
_CONTRACTION = re.compile(r"(?<= )(?:n ' t|' (?:d|m|ll|re|ve))(?= |$)")

_LINE = re.compile(r"[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


@runtime_checkable
class TextExtractor(Protocol):
    """A text -> the spans that have a meaning of their own, as disjoint character intervals [start, end) in order.

    The empty text has no span; being asked for it, an extractor raises `ConfigError` if it lacks what it needs.
    """

    def __call__(self, text: str) -> tuple[Interval, ...]:
        """Disjoint intervals, none empty, in order."""
        ...


@runtime_checkable
class TokenExtractor(Protocol):
    """Tokens -> spans as disjoint runs [first, end) of them, in order. It sees ids and no text: any language will do,
    and any tokenizer."""

    def of_tokens(self, ids: Sequence[int]) -> tuple[Interval, ...]:
        """Runs of `ids`, which hold no special token. One of a single token is of no use, but allowed."""
        ...


@runtime_checkable
class FittedExtractor(TokenExtractor, Protocol):
    """A token extractor that was learned from responses, and can be kept in a file."""

    def state(self) -> dict[str, Any]:
        """What was learned, as values that JSON holds exactly."""
        ...


@runtime_checkable
class ExtractorToFit(Protocol):
    """A component whose extractor is learned once, from the references that a run trains on, and kept with the run."""

    def fit(self, stretches: Iterable[Sequence[int]]) -> FittedExtractor:
        """The extractor that these runs of tokens teach, whatever their order. Raises `ConfigError` if it is none."""
        ...

    def restored(self, state: Mapping[str, Any]) -> FittedExtractor:
        """The extractor that had this state, without learning again."""
        ...


ReadyExtractor: TypeAlias = TextExtractor | TokenExtractor
Extractor: TypeAlias = TextExtractor | TokenExtractor | ExtractorToFit


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Phrases:
    """Noun, verb and prepositional phrases of English text: the spans s_i of MGSR, arXiv 2407.10068, Eq. 9.

    Chunks of textblob's offline parser (a tagger with a lexicon, and patterns over the tags). A prepositional phrase
    has its noun phrase with it if `attach_prepositions`, else it is the preposition alone. Each line is parsed on its
    own; punctuation, list marks and symbols are in no phrase. A phrase of more than `max_words` words is split
    into pieces as even as they can be, so that no word of it is lost. In text of another language or in code
    the phrases mean little, but they are still disjoint and in order.

    >>> text = "The old house stands in the quiet valley."
    >>> [text[start:end] for start, end in Phrases()(text)]
    ['The old house', 'stands', 'in the quiet valley']
    >>> [text[start:end] for start, end in Phrases(attach_prepositions=False, max_words=2)(text)]
    ['The', 'old house', 'stands', 'in', 'the', 'quiet valley']
    """

    attach_prepositions: bool = True
    max_words: int = Field(default=12, ge=1)

    def __call__(self, text: str) -> tuple[Interval, ...]:
        """The phrases' intervals in the text."""
        return tuple(
            (phrase[first].start, phrase[end - 1].end)
            for run in _runs(text)
            for phrase in self._phrases(run)
            for first, end in even_pieces(len(phrase), most=self.max_words)
        )

    def _phrases(self, run: list[_Word]) -> Iterator[list[_Word]]:
        """The words of each phrase: the maximal stretches of one kind, cut where the parser says that one begins."""
        phrase: list[_Word] = []
        last = ""
        for word in run:
            begins, _, kind = self._label(word).partition("-")
            if phrase and (kind != last or begins == "B"):
                yield phrase
                phrase = []
            if kind:
                phrase.append(word)
            last = kind
        if phrase:
            yield phrase

    def _label(self, word: _Word) -> str:
        """`B-NP` for the first word of a noun phrase, `I-NP` for another, and so on; empty outside of phrases."""
        # What the tagger does not know is a noun to it: bullets, bars of tables, emoji.
        if word.tag.startswith("NN") and not any(map(str.isalnum, word.written)):
            return ""
        if self.attach_prepositions and word.preposition != "O":
            return word.preposition
        return word.chunk if word.chunk.endswith(("-NP", "-VP", "-PP")) else ""


class _Word(NamedTuple):
    """A word with the parser's labels: part of speech, chunk, and prepositional phrase with its noun phrase."""

    start: int
    end: int
    written: str
    tag: str
    chunk: str
    preposition: str


def _runs(text: str) -> Iterator[list[_Word]]:
    """Words of the text that follow one another: a run ends with its sentence, or where a word cannot be located."""
    parser = _parser()
    # A line is a sentence to the parser if an empty line follows. Its lexicon has straight apostrophes.
    sentences = parser.find_tokens(text.replace("\n", "\n\n").replace("’", "'"))
    whole = [_CONTRACTION.sub(lambda found: found[0].replace(" ", ""), sentence) for sentence in sentences]
    # The parser moves white space and leaves out a few characters ("....." becomes "..."), but keeps their order:
    # the first place where a word is found never lies behind its own.
    solid = "".join(text.split()).replace("’", "'")
    place_of = [place for place, character in enumerate(text) if not character.isspace()]
    at = 0
    for sentence in parser.parse(whole, tokenize=False, collapse=False):
        run: list[_Word] = []
        for written, *labels in sentence:
            found = solid.find(written, at)
            if found != at and run:
                yield run
                run = []
            if found >= 0:
                at = found + len(written)
                run.append(_Word(place_of[found], place_of[at - 1] + 1, written, *labels))
        if run:
            yield run


@cache
def _parser() -> Any:
    """textblob's parser with its lexicon read: half a second, once in a process."""
    with warnings.catch_warnings():
        # textblob leaves the lexicon's file to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        from textblob.en import parser

        parser.parse("a")
    return parser


def even_pieces(size: int, *, most: int) -> Iterator[Interval]:
    """0 … size cut into as few stretches [first, end) of at most `most` as there can be, of nearly equal length.

    >>> list(even_pieces(9, most=4))
    [(0, 3), (3, 6), (6, 9)]
    """
    count = -(-size // most)
    for piece in range(count):
        yield size * piece // count, size * (piece + 1) // count


def lines_of(text: str) -> Iterator[Interval]:
    """The lines of a text without their breaks, and none that is empty.

    >>> list(lines_of("one\\r\\n\\ntwo"))
    [(0, 3), (6, 9)]
    """
    return (line.span() for line in _LINE.finditer(text))
