"""Phrases by a spaCy pipeline, which is optional: nothing of it is loaded before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from limbeck.errors import ConfigError
from limbeck.spans.extractors import even_pieces, lines_of
from limbeck.spans.pieces import Interval

# What phrases are not read from; a pipeline is faster without.
_UNREAD = ("ner", "lemmatizer")
_VERBS = ("VERB", "AUX")
_BESIDE_VERBS = ("ADV", "PART")
_NOUN_PHRASE, _VERB_GROUP, _PREPOSITION = "noun phrase", "verb group", "preposition"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SpacyPhrases:
    """Noun, verb and prepositional phrases by a spaCy pipeline: the spans s_i of MGSR, arXiv 2407.10068, Eq. 9.

    `pipeline` is the name of an installed package (`en_core_web_sm`, `de_core_news_md`, …) with a tagger and a parser
    whose language has noun chunks in spaCy. Each line is parsed on its own. Then

    - a noun phrase is one of `Doc.noun_chunks`;
    - a verb group is a longest run of verbs, auxiliaries, particles and adverbs outside of noun phrases, less adverbs
      at its ends, that has a verb or auxiliary in it ("has not yet been seen"); "up" in "give up" belongs to it;
    - a preposition (a run of `ADP` words) has the noun phrase behind it with it if `attach_prepositions`, else it is a
      phrase alone.

    A phrase of more than `max_words` of spaCy's tokens is split into pieces as even as they can be. Results are those
    of the installed version of the pipeline. Raises `ConfigError`, when it is first asked, if spaCy or the pipeline is
    not installed, or the pipeline does not tag and parse; nothing is downloaded.

    >>> SpacyPhrases(pipeline="de_core_news_sm", max_words=8)
    SpacyPhrases(pipeline='de_core_news_sm', attach_prepositions=True, max_words=8)
    """

    pipeline: str = Field(default="en_core_web_sm", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    attach_prepositions: bool = True
    max_words: int = Field(default=12, ge=1)

    def __call__(self, text: str) -> tuple[Interval, ...]:
        """The phrases' intervals in the text."""
        pipeline = _pipeline(self.pipeline)
        lines = [(start, text[start:end]) for start, end in lines_of(text) if not text[start:end].isspace()]
        return tuple(
            (at + start, at + end)
            for (at, _), doc in zip(lines, pipeline.pipe([line for _, line in lines]), strict=True)
            for start, end in self._of_line(doc)
        )

    def _of_line(self, doc: Any) -> Iterator[Interval]:
        words = list(doc)
        for first, end in _phrases(words, _noun_chunks(doc), attached=self.attach_prepositions):
            for left, right in even_pieces(end - first, most=self.max_words):
                last = words[first + right - 1]
                yield words[first + left].idx, last.idx + len(last.text)


def _phrases(words: list[Any], chunks: list[Interval], *, attached: bool) -> Iterator[Interval]:
    """The phrases as runs [first, end) of words."""
    end_of = dict(chunks)
    inside = {place for first, end in chunks for place in range(first, end)}
    place = 0
    while place < len(words):
        if place in end_of:
            yield place, end_of[place]
            place = end_of[place]
            continue
        kind = "" if place in inside else _kind(words[place])
        end = place + 1
        while kind and end < len(words) and end not in inside and _kind(words[end]) == kind:
            end += 1
        if kind == _PREPOSITION:
            end = end_of.get(end, end) if attached else end
            yield place, end
        elif kind == _VERB_GROUP:
            yield from _verb_group(words, place, end)
        place = end


def _kind(word: Any) -> str:
    """Which phrase a word outside of noun phrases is of."""
    if word.pos_ in (*_VERBS, *_BESIDE_VERBS) or word.dep_ == "prt":
        return _VERB_GROUP
    return _PREPOSITION if word.pos_ == "ADP" else ""


def _verb_group(words: list[Any], first: int, end: int) -> Iterator[Interval]:
    """The run without adverbs at its ends; nothing if it has no verb."""
    while first < end and words[first].pos_ == "ADV" and words[first].dep_ != "prt":
        first += 1
    while first < end and words[end - 1].pos_ == "ADV" and words[end - 1].dep_ != "prt":
        end -= 1
    if any(word.pos_ in _VERBS for word in words[first:end]):
        yield first, end


def _noun_chunks(doc: Any) -> list[Interval]:
    """spaCy's noun chunks as runs of words, in order; of two that overlap, which no language should have, the first."""
    chunks: list[Interval] = []
    for chunk in sorted((chunk.start, chunk.end) for chunk in doc.noun_chunks):
        if not chunks or chunk[0] >= chunks[-1][1]:
            chunks.append(chunk)
    return chunks


@cache
def _pipeline(name: str) -> Any:
    """The pipeline of this name, loaded once in a process and tried on a sentence."""
    try:
        spacy = importlib.import_module("spacy")
    except ImportError as error:
        raise ConfigError(
            f"the extractor 'spacy' needs spaCy, which cannot be imported: {error}\n"
            f"  install it by: pip install spacy && python -m spacy download {name}\n"
            "  or take an extractor that needs nothing: phrases, sentences, window, whole, learned"
        ) from error
    try:
        pipeline = spacy.load(name)
    except OSError as error:
        raise ConfigError(
            f"extractor.pipeline is '{name}', which is no installed pipeline of spaCy.\n"
            f"  install it by: python -m spacy download {name}"
        ) from error
    unread = [part for part in _UNREAD if part in pipeline.pipe_names]
    if unread:
        pipeline.select_pipes(disable=unread)
    tried = pipeline("It is a test.")
    lacking = [what for what, mark in (("tagger", "POS"), ("parser", "DEP")) if not tried.has_annotation(mark)]
    if lacking:
        raise ConfigError(
            f"extractor.pipeline is '{name}', which has no {' and no '.join(lacking)}: it has {pipeline.pipe_names}.\n"
            "  Phrases need both; take a pipeline such as en_core_web_sm"
        )
    try:
        list(tried.noun_chunks)
    except (NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"extractor.pipeline is '{name}', whose language '{pipeline.lang}' has no noun chunks in spaCy.\n"
            "  Take sentences, window, whole or learned, which work for every language"
        ) from error
    return pipeline
