"""The same instruction, all arms' answers side by side."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import Literal

from limbeck.errors import DataError
from limbeck.reporting.anchors import RowAnchors
from limbeck.reporting.templating import render

# Matching is quadratic; longer texts are shown without their difference.
_MOST_WORDS = 1_500
# Longer lists are made in groups, each when it comes near the window.
_MOST_AT_ONCE, _GROUP = 200, 50
# Control characters and the marks that turn the direction of the text around them: they would garble the page.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one arm said; `scores` are shown as given ("ROUGE-L", "31.2")."""

    arm: str
    text: str
    scores: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One example with every arm's answer. `compare` names pairs of arms whose answers are shown word by word.

    `ident` is the id of its place on the page.
    """

    title: str
    instruction: str
    answers: tuple[Answer, ...]
    input: str = ""
    references: tuple[str, ...] = ()
    category: str = ""
    compare: tuple[tuple[str, str], ...] = ()
    ident: str = ""


@dataclass(frozen=True)
class Piece:
    """A run of words and whether both texts have it."""

    text: str
    kind: Literal["same", "removed", "added"]


def word_difference(before: str, after: str) -> tuple[Piece, ...]:
    """The words that turn `before` into `after`, in order; white space belongs to the word before it.

    Texts of more than 1,500 words are not compared: one removed, one added piece.

    >>> [(piece.text, piece.kind) for piece in word_difference("a red cat", "a cat")]
    [('a ', 'same'), ('red ', 'removed'), ('cat', 'same')]
    """
    old, new = re.findall(r"\s*\S+\s*", before), re.findall(r"\s*\S+\s*", after)
    if max(len(old), len(new)) > _MOST_WORDS:
        return (Piece(before, "removed"), Piece(after, "added"))
    bare_old, bare_new = [word.strip() for word in old], [word.strip() for word in new]
    pieces = []
    for tag, old_first, old_last, new_first, new_last in difflib.SequenceMatcher(
        None, bare_old, bare_new, autojunk=False
    ).get_opcodes():
        if tag == "equal":
            pieces.append(Piece("".join(new[new_first:new_last]), "same"))
            continue
        pieces.append(Piece("".join(old[old_first:old_last]), "removed"))
        pieces.append(Piece("".join(new[new_first:new_last]), "added"))
    pieces = [piece for piece in pieces if piece.text]
    # A text's last word has no white space after it, but in the difference something may follow.
    spaced = [Piece(piece.text if piece.text[-1].isspace() else piece.text + " ", piece.kind) for piece in pieces[:-1]]
    return (*spaced, *pieces[-1:])


def visible(text: str) -> str:
    """The text with control characters and direction marks replaced by signs that can be seen.

    >>> visible("bell\\x07, reversed\\u202e")
    'bell␇, reversed�'
    """
    return _INVISIBLE.sub(lambda found: _sign(found.group()), text.replace("\r\n", "\n"))


def cases_html(cases: tuple[Case, ...], *, open_first: int = 3, anchors: RowAnchors | None = None) -> str:
    """Cases as `<details>`, the first ones open; every text escaped and made visible, none of it executed.

    `anchors` are those of the page, for links to single cases. Of more than 200 cases none is open, and words are
    compared in the browser alone. Raises `DataError` where `compare` names an arm that did not answer.
    """
    anchors = anchors or RowAnchors()
    is_long = len(cases) > _MOST_AT_ONCE
    arms = dict.fromkeys(answer.arm for case in cases for answer in case.answers)
    shown = [
        _shown(case, is_compared=not is_long)
        | {"anchor": anchors.take(case.title), "is_open": place < open_first and not is_long}
        for place, case in enumerate(cases)
    ]
    size = _GROUP if is_long else max(1, len(cases))
    pairs = {case.compare[:1] for case in cases} if is_long else set()
    values = {
        "groups": [shown[first : first + size] for first in range(0, len(shown), size)],
        "is_long": is_long,
        "arms": json.dumps([*_first_reference(cases), *arms]),
        "compare": json.dumps(pairs.pop()[0]) if len(pairs) == 1 and pairs != {()} else "",
    }
    return render("cases.html.j2", values)


def _first_reference(cases: tuple[Case, ...]) -> list[str]:
    """What the first of a case's references is called."""
    numbers = {min(len(case.references), 2) for case in cases} - {0}
    return [{1: "Reference", 2: "Reference 1"}[number] for number in sorted(numbers)]


def _sign(character: str) -> str:
    # Unicode has a picture for each of the first 32 control characters.
    return chr(0x2400 + ord(character)) if ord(character) < 0x20 else "\ufffd"


def _shown(case: Case, *, is_compared: bool) -> dict[str, object]:
    texts = {answer.arm: visible(answer.text) for answer in case.answers}
    missing = [arm for pair in case.compare for arm in pair if arm not in texts]
    if missing:
        raise DataError(f"case '{case.title}' compares '{missing[0]}', which did not answer; it has {sorted(texts)}")
    return {
        "title": case.title,
        "ident": case.ident,
        "category": case.category,
        "instruction": visible(case.instruction),
        "input": visible(case.input),
        "references": [visible(reference) for reference in case.references],
        "answers": [
            {"arm": answer.arm, "text": visible(answer.text), "scores": answer.scores} for answer in case.answers
        ],
        "differences": [
            {"before": one, "after": other, "pieces": word_difference(texts[one], texts[other])}
            for one, other in (case.compare if is_compared else ())
        ],
    }
