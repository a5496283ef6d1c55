from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from limbeck.errors import DataError
from limbeck.evaluation import RougeL, rouge_l, stems
from limbeck.evaluation import rouge as module

DOLLY = Path(__file__).parents[4] / "shared" / "data" / "dolly" / "test.jsonl"

ENDINGS = [
    "s",
    "sses",
    "ies",
    "ed",
    "eed",
    "ied",
    "ing",
    "ational",
    "ization",
    "fulness",
    "ousli",
    "aliti",
    "logi",
    "ement",
    "ful",
    "ll",
    "e",
    "y",
    "ic",
    "able",
    "'s",
]
words = st.one_of(
    st.sampled_from(
        ["the", "skies", "dying", "news", "innings", "proceed", "sky", "Ünïcode", "İstanbul", "naïve", "42"]
    ),
    st.builds("{}{}".format, st.text("abelotyz", min_size=1, max_size=5), st.sampled_from(ENDINGS)),
)
sentences = st.lists(words, max_size=12).map(" ".join)
texts = st.one_of(
    sentences, st.text(max_size=30), st.sampled_from(["", " ", "日本語", "...", "\n\t", "a\u00a0b", "\ud800"])
)


@functools.cache
def oracle() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)


def expected(prediction: str, references: list[str]) -> float:
    return float(oracle().score_multi(references, prediction)["rougeL"].fmeasure)


@settings(deadline=None)
@given(prediction=texts, references=st.lists(texts, min_size=1, max_size=3))
def test_equal_to_rouge_score_bit_for_bit(prediction: str, references: list[str]) -> None:
    assert rouge_l(prediction, references) == expected(prediction, references)


@settings(deadline=None)
@given(answer=sentences, other=sentences)
def test_symmetric_bounded_and_blind_to_outer_whitespace(answer: str, other: str) -> None:
    score = rouge_l(answer, [other])
    assert 0 <= score <= 1
    assert score == pytest.approx(rouge_l(other, [answer]), abs=1e-12)
    assert score == rouge_l(f"  {answer}\n", [f"\t{other} "])


def test_identity_is_one_and_nothing_is_zero() -> None:
    assert rouge_l("Five new answers.", ["five NEW answers"]) == 1
    assert rouge_l("", ["reference"]) == rouge_l("answer", [""]) == rouge_l("", [""]) == rouge_l("漢字", ["漢字"]) == 0


def test_the_best_reference_counts() -> None:
    assert rouge_l("a b c d", ["x", "a b c d", "a b"]) == 1


def test_order_matters() -> None:
    assert rouge_l("b a", ["a b"]) == pytest.approx(0.5)


def test_words_without_a_porter_ending_are_their_own_stems() -> None:
    tokenizer = oracle()._tokenizer
    letters = "abcdefghijklmnopqrstuvwxyz0"
    endings = ["".join(three) for three in itertools.product(letters, repeat=3)]
    plain = [body + ending for ending in endings for body in ("x", "orat") if not ending.endswith(stems._BENT)]
    plain = [word for word in plain if not word.endswith(stems._BENT)]
    assert len(plain) > 10_000
    assert tokenizer.tokenize(" ".join(plain)) == plain


def test_more_stems_than_characters_before_the_surrogates() -> None:
    scorer = RougeL()
    many = " ".join(f"w{i}" for i in range(70_000))
    assert scorer.score(many, ["w0 w69999"]) == pytest.approx(2 * (2 / 70_000) / (1 + 2 / 70_000))
    assert scorer.score("w55295 w55296 w69999", ["w55295 w69999"]) == expected(
        "w55295 w55296 w69999", ["w55295 w69999"]
    )


def test_memory_is_bounded_and_forgetting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_STEMS", 3)
    scorer = RougeL()
    for prediction, reference in itertools.product(["running far away", "ran farther", "go away now"], repeat=2):
        assert scorer.score(prediction, [reference]) == expected(prediction, [reference])
        assert len(scorer._alphabet) <= 3 + 6


def test_many_is_score_for_each() -> None:
    assert RougeL().many(["a b", "c"], [["a b"], ["d", "c"]]) == [1.0, 1.0]


@pytest.mark.parametrize("references", [[], "a text, not a list"])
def test_references_must_be_a_list_with_something_in_it(references: list[str] | str) -> None:
    with pytest.raises(DataError, match="at least one reference"):
        rouge_l("answer", references)


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="2 predictions"):
        RougeL().many(["a", "b"], [["a"]])


@pytest.mark.skipif(not DOLLY.exists(), reason="the data sets are not here")
def test_equal_on_real_answers() -> None:
    rows = [json.loads(line) for line in DOLLY.read_text(encoding="utf-8").splitlines()[:150]]
    outputs = [row["output"] for row in rows]
    references = [[outputs[i], outputs[i - 1]] for i in range(len(outputs))]
    predictions = outputs[2:] + outputs[:2]
    scores = RougeL().many(predictions, references)
    assert scores == [expected(text, known) for text, known in zip(predictions, references, strict=True)]
    assert 0 < sum(scores) / len(scores) < 0.5
