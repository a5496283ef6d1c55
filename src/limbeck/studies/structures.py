"""What kind of text a response is: one sentence, prose, list, code or maths, long."""

from __future__ import annotations

import re

STRUCTURES = ("one sentence", "prose", "list", "code or maths", "long")
_LONG_WORDS = 120
_ITEM = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.)]|[a-z][.)])\s+\S", re.M)
_CODE = re.compile(
    r"```|^\s*(?:def |class |import |from \w+ import|#include|public |return |for \(|while \(|SELECT |</?\w+>)", re.M
)
_MATHS = re.compile(r"\d\s*[-+*/×÷^=<>]=?\s*\(?-?\d|\\(?:frac|sqrt|sum)|[a-z]\s*=\s*-?\d")
_ENDS = re.compile(r"[.!?…。！？]+[\"')\]]*(?:\s+|$)")


def structure_of(text: str) -> str:
    """The first that fits: code or maths (a code mark, an equation), list (two items or more), long (more than 120
    words), one sentence, else prose. By rule, so that a table says the same on every machine; a person may differ.

    >>> [structure_of(text) for text in ("Paris.", "It is. It was.", "1. a\\n2. b", "x = 3 + 4")]
    ['one sentence', 'prose', 'list', 'code or maths']
    """
    if _CODE.search(text) or _MATHS.search(text):
        return "code or maths"
    if len(_ITEM.findall(text)) >= 2:
        return "list"
    if len(text.split()) > _LONG_WORDS:
        return "long"
    sentences = [part for part in _ENDS.split(text.strip()) if part.strip()]
    return "one sentence" if len(sentences) <= 1 else "prose"
