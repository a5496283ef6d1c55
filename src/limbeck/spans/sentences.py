"""Sentences by a small rule over punctuation: offline, without a model, for most scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from limbeck.spans.extractors import even_pieces, lines_of
from limbeck.spans.pieces import Interval

_CLOSING = r"[\"'’”»›)\]}」』）】》〉]*"
# Marks that end a sentence where white space follows, and marks of scripts that need none.
_END = re.compile(rf"(?P<spaced>[.!?…‼⁇⁈⁉]+){_CLOSING}(?=\s|$)|(?:[。！？｡।॥؟۔։።፧။។]|．(?!\d))+{_CLOSING}")
_OPENING = "\"'‘’“”«»‹›([{—–-*_¿¡ \t"
# Words that a full stop belongs to: before a name, before anything, and before a number.
_TITLES = frozenset(
    ["mr", "mrs", "ms", "mx", "dr", "prof", "st", "mt", "rev", "hon", "gen", "col", "capt", "lt", "sgt", "sen", "gov"]
)
_LINKS = frozenset(["vs", "cf", "al"])
_NUMBERED = frozenset(["no", "nos", "nr", "fig", "figs", "eq", "eqs", "vol", "vols", "p", "pp", "ch", "sec", "art"])
_INITIAL = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
# Han, kana, Thai, Lao, Burmese and Khmer are written without spaces; a character of theirs counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}][^\w\s]*|[^\s{_UNSPACED}]+")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Sentences:
    """Sentences with their punctuation, by rule: a line's parts up to each mark that ends a sentence.

    `. ! ? …` end one where white space follows, closing quotes and brackets included, unless the next word begins with
    a small letter ("etc. and", "“Stop!” he said"). A full stop ends none after a title (Mr., Dr.), vs., cf. or al., an
    initial (J., e.g., U.S.; but not I.), a word for a number before a number (Fig. 3, No. 5), or a number alone
    (1. Apples); decimals (3.14) and dotted names have no white space behind. Always do 。！？ and the marks of
    Devanagari, Arabic, Urdu, Armenian, Ethiopic, Burmese and Khmer. So does a line break: a list's items are apart, and
    a text with hard line breaks is cut there. What has no letter and no digit is no sentence.

    A sentence of more than `max_words` words is split into pieces as even as they can be, so that a text without marks
    is not one span; where a script has no spaces, a character counts as a word. Limbeck's own rule: wrong where an
    abbreviation before a capital is not listed (it cuts), or a sentence ends with an initial (it does not).

    >>> text = "Dr. Li paid 3.50 Euro. “Why?” she asked.\\n真的吗？是的。"
    >>> [text[start:end] for start, end in Sentences()(text)]
    ['Dr. Li paid 3.50 Euro.', '“Why?” she asked.', '真的吗？', '是的。']
    >>> [text[start:end] for start, end in Sentences(max_words=3)(text)][:2]
    ['Dr. Li', 'paid 3.50 Euro.']
    """

    max_words: int = Field(default=40, ge=1)

    def __call__(self, text: str) -> tuple[Interval, ...]:
        """The sentences' intervals in the text."""
        return tuple(piece for line in lines_of(text) for piece in self._of_line(text, *line))

    def _of_line(self, text: str, start: int, end: int) -> Iterator[Interval]:
        for first, last in _sentences(text[start:end]):
            words = [word.span() for word in _WORD.finditer(text, start + first, start + last)]
            if not any(map(str.isalnum, text[start + first : start + last])):
                continue
            for left, right in even_pieces(len(words), most=self.max_words):
                yield words[left][0], words[right - 1][1]


def _sentences(line: str) -> Iterator[Interval]:
    """The line cut behind each mark that ends a sentence."""
    first = 0
    for mark in _END.finditer(line):
        if mark["spaced"] is None or _ends(line, first, mark):
            yield first, mark.end()
            first = mark.end()
    yield first, len(line)


def _ends(line: str, first: int, mark: re.Match[str]) -> bool:
    """Whether a sentence that begins at `first` ends with this mark."""
    following = line[mark.end() :].lstrip(_OPENING)
    if following[:1].islower():
        return False
    if mark["spaced"] != ".":
        return True
    words = line[first : mark.start()].split()
    word = words[-1].lstrip(_OPENING) if words else ""
    is_initial = _INITIAL.fullmatch(word) is not None and word != "I"
    is_numbered = word.lower() in _NUMBERED and following[:1].isdigit()
    is_list_mark = len(words) == 1 and word.isdigit() and bool(following)
    return not (word.lower() in _TITLES | _LINKS or is_initial or is_numbered or is_list_mark)
