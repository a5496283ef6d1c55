"""Scores of one answer: functions of its row. A scorer of a user's own is one more function."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from limbeck.errors import DataError
from limbeck.evaluation.rouge import RougeL
from limbeck.evaluation.stems import Alphabet
from limbeck.records import AnswerRow

Scorer = Callable[[AnswerRow], float]
"""What an answer scores; `row.scores` holds what was scored before it."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Scorers:
    """Scores answers under these names, in this order, and puts the numbers into their rows.

    Raises `DataError` for a score that is not a finite number.
    """

    def __init__(self, scorers: dict[str, Scorer]) -> None:
        self._scorers = scorers

    @property
    def names(self) -> tuple[str, ...]:
        """What is scored."""
        return tuple(self._scorers)

    def lacks(self, scores: Mapping[str, float]) -> bool:
        """Whether a row with these scores would get more."""
        return not self._scorers.keys() <= scores.keys()

    def score(self, row: AnswerRow) -> None:
        """Fill `row.scores`; what stands there already is kept."""
        for name, scorer in self._scorers.items():
            if name in row.scores:
                continue
            value = float(scorer(row))
            if not math.isfinite(value):
                raise DataError(
                    f"the scorer '{name}' gives {value} for example '{row.id}' of {row.corpus}, seed {row.seed}\n"
                    "  a score is a finite number; give 0 where there is nothing to score"
                )
            row.scores[name] = value


def standard_scorers() -> dict[str, Scorer]:
    """The scorers of an evaluation, by name.

    `rouge_l`, `rouge_1`, `rouge_2` and `exact_match` compare with the references; `distinct_1`, `distinct_2` and
    `repetition` look at the answer alone; `stopped` is 1 where it ended by itself. Each call has its own memory.
    """
    rouge, unigrams, bigrams = RougeL(), RougeN(1), RougeN(2)
    return {
        "rouge_l": lambda row: rouge.score(row.text, row.references),
        "rouge_1": lambda row: unigrams.score(row.text, row.references),
        "rouge_2": lambda row: bigrams.score(row.text, row.references),
        "exact_match": lambda row: exact_match(row.text, row.references),
        "distinct_1": lambda row: distinct(row.tokens, 1),
        "distinct_2": lambda row: distinct(row.tokens, 2),
        "repetition": lambda row: repetition(row.tokens),
        "stopped": lambda row: float(row.stopped),
    }


class RougeN:
    """ROUGE-N of answers: how many of the best reference's n-grams of words an answer has, in [0, 1].

        c = Σ_g min(count in answer, count in reference), P = c/|answer|, R = c/|reference|, F = 2·P·R / (P + R)

    n-grams of Porter stems, best F over the references, as `rouge_score` 0.1.2 computes it, bit for bit (Lin 2004, §2).
    A text of fewer than n words scores 0.

    >>> RougeN(2).score("the cat sat", ["the cat sits down"])
    0.4
    """

    def __init__(self, n: int) -> None:
        from rouge_score.scoring import fmeasure

        self._n = n
        self._fmeasure = fmeasure
        self._alphabet = Alphabet()

    def score(self, prediction: str, references: Sequence[str]) -> float:
        """The score of one answer. Raises `DataError` without a reference."""
        if isinstance(references, str) or not references:
            raise DataError(f"ROUGE-{self._n} needs a list with at least one reference, not {references!r}")
        answer = self._grams(prediction)
        return max(self._one(answer, self._grams(reference)) for reference in references)

    def _grams(self, text: str) -> Counter[str]:
        letters = self._alphabet.spell(text)
        return Counter(letters[first : first + self._n] for first in range(len(letters) - self._n + 1))

    def _one(self, answer: Counter[str], reference: Counter[str]) -> float:
        common = (answer & reference).total()
        return float(self._fmeasure(common / max(answer.total(), 1), common / max(reference.total(), 1)))


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 where the answer is one of the references, else 0.

    Compared in lower case without ASCII punctuation, articles and surplus white space, as SQuAD does.

    >>> exact_match("The answer: Paris!", ["answer Paris"]), exact_match("Paris", ["Rome", "Lyon"])
    (1.0, 0.0)
    """
    said = _normalised(prediction)
    return float(any(said == _normalised(reference) for reference in references))


def _normalised(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def distinct(tokens: Sequence[int], n: int) -> float:
    """Distinct-n: different n-grams of tokens / n-grams of tokens (Li et al. 2016); 1 where there are none.

    >>> distinct([1, 2, 1, 2, 3], 1), distinct([1, 2, 1, 2, 3], 2), distinct([7], 2)
    (0.6, 0.75, 1.0)
    """
    grams = list(zip(*(tokens[first:] for first in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def repetition(tokens: Sequence[int], n: int = 4) -> float:
    """The share of n-grams of tokens that stood in the answer before: 1 − distinct-n.

    >>> repetition([1, 2, 3, 4] * 3)
    0.5555555555555556
    """
    return 1.0 - distinct(tokens, n)


def self_bleu(texts: Sequence[str], n: int = 4) -> list[float]:
    """How much each answer to one prompt repeats of the others: its BLEU against them, in [0, 1]. Low = diverse.

        BLEU = min(1, e^{1 − r/c}) · exp(Σ_k log p_k / n),  p_k = clipped matches / k-grams

    (Papineni et al. 2002; Zhu et al. 2018) over lower-cased words, k = 1 … n, c the answer's length, r the nearest one
    of the others; k-grams that an answer is too short for are left out, and 0.1 matches are counted where there is
    none. Two empty answers are equal: 1. Raises `DataError` for a single answer.

    >>> [round(value, 3) for value in self_bleu(["a b c d", "a b c d"])], self_bleu(["a b", "c d"])[0] < 0.1
    ([1.0, 1.0], True)
    """
    if len(texts) < 2:
        raise DataError(f"self-BLEU compares the answers to one prompt: it needs at least 2, not {len(texts)}")
    words = [text.lower().split() for text in texts]
    return [_bleu(own, [*words[:place], *words[place + 1 :]], n) for place, own in enumerate(words)]


def _bleu(own: list[str], others: list[list[str]], n: int) -> float:
    if not own:
        return float(any(not other for other in others))
    logs = []
    for k in range(1, min(n, len(own)) + 1):
        grams = _word_grams(own, k)
        most: Counter[tuple[str, ...]] = Counter()
        for other in others:
            most |= _word_grams(other, k)
        matched = (grams & most).total()
        logs.append(math.log((matched or 0.1) / grams.total()))
    nearest = min((abs(len(other) - len(own)), len(other)) for other in others)[1]
    return min(1.0, math.exp(1.0 - nearest / len(own))) * math.exp(sum(logs) / len(logs))


def _word_grams(words: list[str], k: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[first : first + k]) for first in range(len(words) - k + 1))
