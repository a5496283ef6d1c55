"""Words as `rouge_score` reads them, one character for each distinct stem."""

from __future__ import annotations

import re

# What `rouge_score` keeps of a lower-cased text; everything else separates words.
_WORDS = re.compile("[a-z0-9]+")
# Every rule of Porter's (and of NLTK's extensions) asks for one of these endings: a word without one is its own stem.
_BENT = ("s", "ed", "ing", "y", "i", "e", "al", "ful", "ll", "ic", "er", "ator", "ion", "ism", "ou", "ant", "ent")
_FIRST_SURROGATE, _NUM_SURROGATES = 0xD800, 0x800


class Alphabet:
    """One character for each distinct stem, by word; words are learnt as they are met."""

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._tokenizer = DefaultTokenizer(use_stemmer=True)
        self._of_stem: dict[str, str] = {}
        self._of_word: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._of_word)

    def spell(self, text: str) -> str:
        """The text as a string with one character a word: equal characters, equal stems."""
        words = _WORDS.findall(text.lower())
        unknown = set(words).difference(self._of_word)
        if unknown:
            self._learn(unknown)
        return "".join(map(self._of_word.__getitem__, words))

    def _learn(self, words: set[str]) -> None:
        bent = [word for word in words if word.endswith(_BENT)]
        for word in words.difference(bent):
            self._of_word[word] = self._character(word)
        for word, stem in zip(bent, self._tokenizer.tokenize(" ".join(bent)), strict=True):
            self._of_word[word] = self._character(stem)

    def _character(self, stem: str) -> str:
        if stem not in self._of_stem:
            index = len(self._of_stem)
            # Surrogates are no characters of their own; the rest of Unicode is alphabet enough.
            self._of_stem[stem] = chr(index if index < _FIRST_SURROGATE else index + _NUM_SURROGATES)
        return self._of_stem[stem]
