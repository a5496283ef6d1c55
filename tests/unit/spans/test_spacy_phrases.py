"""spaCy is not needed: a small module with its documented interface stands in its place."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType, SimpleNamespace

import pytest
from pydantic import ValidationError

from limbeck.config import Recipe
from limbeck.errors import ConfigError
from limbeck.methods import METHODS
from limbeck.models.pieces import token_pieces
from limbeck.spans import EXTRACTORS, SpacyPhrases, SpanFinder, spacy_phrases
from limbeck.spans.packing import try_out
from limbeck.testing import byte_tokenizer

# Word: part of speech; a noun chunk is a longest run of determiners, adjectives and nouns, or a pronoun.
TAGS = {
    "DET": "the The a", "ADJ": "old quiet", "NOUN": "house valley test café dog", "PRON": "It it She",
    "VERB": "seen gave stands see", "AUX": "has been is would", "PART": "not n't", "ADV": "yet quickly here never",
    "ADP": "in of out near up",
}  # fmt: skip
POS = {word: tag for tag, words in TAGS.items() for word in words.split()}
NOMINAL = ("DET", "ADJ", "NOUN", "PROPN")


class Word(SimpleNamespace):
    """A token: `text`, `idx`, `pos_`, `dep_`."""


class Doc:
    """Words with their places, `noun_chunks` and `has_annotation`."""

    def __init__(self, text: str, marks: tuple[str, ...], *, has_chunks: bool) -> None:
        self.text, self._marks, self._has_chunks = text, marks, has_chunks
        self._words = [self._word(found) for found in re.finditer(r"n't|\w+?(?=n't)|\w+|[^\w\s]|(?<=\s)\s+", text)]

    def _word(self, found: re.Match[str]) -> Word:
        tag = POS.get(found[0], "SPACE" if found[0].isspace() else "PROPN" if found[0].isalnum() else "PUNCT")
        tag = tag if "POS" in self._marks else ""
        dep = "prt" if found[0] == "up" else ""
        return Word(text=found[0], idx=found.start(), pos_=tag, dep_=dep)

    def __iter__(self) -> Iterator[Word]:
        return iter(self._words)

    def has_annotation(self, mark: str) -> bool:
        return mark in self._marks

    @property
    def noun_chunks(self) -> Iterator[SimpleNamespace]:
        if not self._has_chunks:
            raise NotImplementedError("[E894] The 'noun_chunks' syntax iterator is not implemented for language 'xx'.")
        first = 0
        for place in range(len(self._words) + 1):
            tag = self._words[place].pos_ if place < len(self._words) else ""
            if tag not in NOMINAL:
                if place > first:
                    yield self._span(first, place)
                if tag == "PRON":
                    yield self._span(place, place + 1)
                first = place + 1

    def _span(self, start: int, end: int) -> SimpleNamespace:
        last = self._words[end - 1]
        characters = {"start_char": self._words[start].idx, "end_char": last.idx + len(last.text)}
        return SimpleNamespace(start=start, end=end, **characters)


class Language:
    """A pipeline: called with a text, `pipe`, `pipe_names`, `select_pipes`."""

    def __init__(self, *names: str, has_chunks: bool = True) -> None:
        self.pipe_names, self.lang, self._has_chunks = list(names), "en" if has_chunks else "xx", has_chunks
        self.lines: list[str] = []

    def __call__(self, text: str) -> Doc:
        marks = [mark for name, mark in (("tagger", "POS"), ("parser", "DEP")) if name in self.pipe_names]
        return Doc(text, tuple(marks), has_chunks=self._has_chunks)

    def pipe(self, texts: Iterable[str]) -> Iterator[Doc]:
        self.lines += texts
        return (self(text) for text in texts)

    def select_pipes(self, *, disable: list[str]) -> None:
        assert set(disable) <= set(self.pipe_names), "spaCy refuses names that a pipeline does not have"
        self.pipe_names = [name for name in self.pipe_names if name not in disable]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Language]]:
    """The pipelines of a spaCy that stands in `sys.modules`."""
    pipelines = {
        "en_core_web_sm": Language("tok2vec", "tagger", "parser", "ner"),
        "no_parser": Language("tagger"),
        "blank": Language(),
        "no_chunks": Language("tagger", "parser", has_chunks=False),
    }
    module = ModuleType("spacy")

    def load(name: str) -> Language:
        if name not in pipelines:
            raise OSError(f"[E050] Can't find model '{name}'.")
        return pipelines[name]

    module.load = load
    monkeypatch.setitem(sys.modules, "spacy", module)
    spacy_phrases._pipeline.cache_clear()
    yield pipelines
    spacy_phrases._pipeline.cache_clear()


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "spacy", None)
    spacy_phrases._pipeline.cache_clear()
    yield
    spacy_phrases._pipeline.cache_clear()


def found(text: str, **settings: object) -> list[str]:
    return [text[start:end] for start, end in SpacyPhrases(**settings)(text)]


@pytest.mark.usefixtures("installed")
def test_phrases_are_noun_chunks_verb_groups_and_prepositions_with_theirs() -> None:
    text = "The old house stands here in the quiet valley."
    assert found(text) == ["The old house", "stands", "in the quiet valley"]
    assert found(text, attach_prepositions=False) == ["The old house", "stands", "in", "the quiet valley"]
    assert found("It has not yet been seen.") == ["It", "has not yet been seen"]
    assert found("It quickly gave up the house") == ["It", "gave up", "the house"]
    assert found("She would never see it near the house of Anna") == [
        "She", "would never see", "it", "near the house", "of Anna",
    ]  # fmt: skip
    assert found("out of the house") == ["out of the house"]
    assert found("It is in, not out") == ["It", "is", "in", "out"], "a particle without a verb is no verb group"
    assert found("It wouldn't stands") == ["It", "wouldn't stands"]


@pytest.mark.usefixtures("installed")
def test_phrases_of_many_words_are_split_evenly() -> None:
    assert found("the old quiet house", max_words=2) == ["the old", "quiet house"]
    assert found("in the old quiet house", max_words=4) == ["in the", "old quiet house"]
    assert [len(each.split()) for each in found(" ".join(["dog"] * 25))] == [8, 8, 9]


def test_each_line_is_parsed_on_its_own(installed: dict[str, Language]) -> None:
    text = "the old\nhouse\r\n\n  \n a dog"
    assert found(text) == ["the old", "house", "a dog"]
    assert installed["en_core_web_sm"].lines == ["the old", "house", " a dog"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("text", ["", " ", "\n \n", "?!", "."])
def test_a_text_without_words_has_no_spans(text: str) -> None:
    assert found(text) == []


@pytest.mark.usefixtures("installed")
def test_spans_of_generated_bytes() -> None:
    ids = [*"The café stands\nnear Zürich 😀.".encode(), 258]
    spans = SpanFinder(SpacyPhrases(), token_pieces(byte_tokenizer())).spans(ids)
    assert [bytes(ids[first:end]).decode() for first, end in spans] == ["The café", "stands", "near Zürich"]


def test_what_is_not_read_is_not_computed(installed: dict[str, Language]) -> None:
    found("the house")
    assert installed["en_core_web_sm"].pipe_names == ["tok2vec", "tagger", "parser"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        ("fr_core_news_sm", r"is no installed pipeline of spaCy(.|\n)*python -m spacy download fr_core_news_sm"),
        ("no_parser", r"has no parser: it has \['tagger'\]"),
        ("blank", r"has no tagger and no parser"),
        ("no_chunks", r"language 'xx' has no noun chunks"),
    ],
)
def test_a_pipeline_that_will_not_do_is_refused_at_the_start(pipeline: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        try_out(SpacyPhrases(pipeline=pipeline))


@pytest.mark.usefixtures("missing")
def test_without_spacy_the_command_is_named_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"pip install spacy && python -m spacy download en_core_web_sm") as refused:
        try_out(SpacyPhrases())
    assert refused.value.exit_code == 2


@pytest.mark.usefixtures("missing")
def test_a_recipe_is_read_and_explained_without_spacy() -> None:
    method = {"base": "mgsr", "span": {"kind": "correlation", "extractor": "spacy"}}
    recipe = Recipe.load({"method": method, "models": {"teacher": "big", "student": "small"}})
    assert recipe.built_method().span.extractor == SpacyPhrases()
    assert METHODS["mgsr"]().span.extractor != SpacyPhrases()


def test_a_pipeline_is_a_name_and_no_path() -> None:
    for wrong in ({"pipeline": "./mine"}, {"pipeline": ""}, {"pipeline": "a.b"}, {"max_words": 0}, {"model": "x"}):
        with pytest.raises(ValidationError):
            EXTRACTORS["spacy"](**wrong)


def test_a_blank_pipeline_of_spacy_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spacy = pytest.importorskip("spacy")
    monkeypatch.setattr(spacy, "load", lambda name: spacy.blank("en"))
    spacy_phrases._pipeline.cache_clear()
    with pytest.raises(ConfigError, match="has no tagger and no parser"):
        try_out(SpacyPhrases())
    spacy_phrases._pipeline.cache_clear()
