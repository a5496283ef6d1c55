"""Scores of answers against `rouge_score`, NLTK and plain counting."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate import bleu_score as bleu
from rouge_score.rouge_scorer import RougeScorer

from limbeck.errors import DataError
from limbeck.evaluation.scorers import RougeN, distinct, exact_match, repetition, self_bleu

words = st.sampled_from(["the", "cat", "cats", "sitting", "sits", "dying", "skies", "Ünïcode", "42", "a"])
texts = st.one_of(st.lists(words, max_size=12).map(" ".join), st.text(max_size=20))
answers = st.lists(words, min_size=4, max_size=9).map(" ".join)


@functools.cache
def _oracle() -> RougeScorer:
    return RougeScorer(["rouge1", "rouge2"], use_stemmer=True)


@given(prediction=texts, references=st.lists(texts, min_size=1, max_size=3), n=st.sampled_from([1, 2]))
def test_rouge_n_equals_rouge_score_bit_for_bit(prediction: str, references: list[str], n: int) -> None:
    expected = _oracle().score_multi(references, prediction)[f"rouge{n}"].fmeasure
    assert RougeN(n).score(prediction, references) == expected


def test_rouge_n_needs_references() -> None:
    for references in ([], "the cat"):
        with pytest.raises(DataError, match="ROUGE-1 needs a list"):
            RougeN(1).score("a", references)


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("  The  Eiffel-Tower. ", ["eiffeltower"], 1.0),
        ("An apple a day", ["apple day", "x"], 1.0),
        ("apple", ["apples"], 0.0),
        ("", ["the"], 1.0),
        ("theatre", ["atre"], 0.0),
    ],
)
def test_exact_match(prediction: str, references: list[str], expected: float) -> None:
    assert exact_match(prediction, references) == expected


@given(tokens=st.lists(st.integers(0, 3), max_size=20), n=st.integers(1, 4))
def test_distinct_by_counting(tokens: list[int], n: int) -> None:
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens)) if i + n <= len(tokens)]
    seen_before = sum(gram in grams[:place] for place, gram in enumerate(grams))
    assert distinct(tokens, n) == pytest.approx(1 - seen_before / len(grams) if grams else 1.0)
    assert repetition(tokens, n) == pytest.approx(seen_before / len(grams) if grams else 0.0)


@given(said=st.lists(answers, min_size=2, max_size=4))
def test_self_bleu_equals_nltk(said: list[str]) -> None:
    split = [text.lower().split() for text in said]
    smooth = bleu.SmoothingFunction(epsilon=0.1).method1
    for place, value in enumerate(self_bleu(said)):
        others = [*split[:place], *split[place + 1 :]]
        matched = any(word in other for word in split[place] for other in others)
        expected = bleu.sentence_bleu(others, split[place], smoothing_function=smooth) if matched else None
        if expected is not None:
            assert value == pytest.approx(expected)
        assert 0.0 <= value <= 1.0


def test_self_bleu_of_few_and_empty_answers() -> None:
    assert self_bleu(["", ""]) == [1.0, 1.0]
    assert self_bleu(["", "a"])[0] == 0.0
    with pytest.raises(DataError, match="at least 2"):
        self_bleu(["a"])
