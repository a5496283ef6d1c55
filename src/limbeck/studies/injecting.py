"""An error put into the tokens of a response: which tokens carry it is known from how it was put there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.spans.pieces import TokenPieces
from limbeck.studies.error_kinds import ERROR_KINDS, Edit

Encode = Callable[[str], Sequence[int]]
"""A text as token ids, nothing added."""

# What a piece is encoded behind: alone, SentencePiece would put a space before it.
_CARRIERS = ("a", "\n", ".", "")


@dataclass(frozen=True, kw_only=True)
class Injection:
    """A response with one error in it: `tokens[place:end]` are not what the clean response has there.

    `place` is the first token that differs, so that everything before it is the clean response's; what follows `end`
    is the rest of the clean response again, as far as it fits.
    """

    kind: str
    tokens: tuple[int, ...]
    place: int
    end: int


def inject(
    ids: Sequence[int],
    *,
    kind: str,
    pieces: TokenPieces,
    encode: Encode,
    others: Sequence[str],
    draw: np.random.Generator,
    most: int,
) -> Injection | None:
    """The response with an error of this kind; None where it has nothing to spoil, or nothing that tokens can say.

    The words that change begin and end with tokens; their replacement is encoded, every other token stays as it was
    drawn. An edit is taken only if the new tokens stand for exactly the edited text, and if the error ends within
    `most` tokens, at which the response is cut. Raises `UnknownName` for an unknown kind.

    >>> from limbeck.testing import byte_tokenizer
    >>> from limbeck.models.pieces import token_pieces
    >>> tokenizer = byte_tokenizer()
    >>> encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    >>> rng = np.random.default_rng(0)
    >>> known = {"pieces": token_pieces(tokenizer), "encode": encode, "others": [], "draw": rng, "most": 64}
    >>> found = inject(encode("She is in."), kind="negation", **known)
    >>> tokenizer.decode(found.tokens), found.place, found.end
    ('She is not in.', 7, 11)
    >>> inject(encode("She is in."), kind="number", **known) is None
    True
    """
    text, intervals = pieces.text_of(ids)
    for edit in ERROR_KINDS[kind](text, others, draw):
        wanted = edit.applied(text)
        for changed in _spliced(ids, edit, text=text, intervals=intervals, pieces=pieces, encode=encode):
            place, end = changed_tokens(ids, changed)
            if pieces.text_of(changed)[0] == wanted and place < end <= most:
                return Injection(kind=kind, tokens=tuple(changed[:most]), place=place, end=end)
    return None


def changed_tokens(clean: Sequence[int], changed: Sequence[int]) -> tuple[int, int]:
    """The tokens [place, end) of `changed` that are not in `clean`: between their longest common beginning and, of
    what is left of both, their longest common end.

    >>> changed_tokens([1, 2, 3, 4], [1, 2, 9, 8, 4]), changed_tokens([1, 2, 5], [1, 2, 1, 2, 5])
    ((2, 4), (2, 4))
    """
    shorter = min(len(clean), len(changed))
    place = next((at for at in range(shorter) if clean[at] != changed[at]), shorter)
    rest = shorter - place
    kept = next((at for at in range(rest) if clean[len(clean) - 1 - at] != changed[len(changed) - 1 - at]), rest)
    return place, len(changed) - kept


def _spliced(
    ids: Sequence[int],
    edit: Edit,
    *,
    text: str,
    intervals: Sequence[tuple[int, int]],
    pieces: TokenPieces,
    encode: Encode,
) -> Iterator[list[int]]:
    """The ids with the edit in them, one way of encoding after the other; none where a token straddles its border."""
    written = [at for at, (start, end) in enumerate(intervals) if start < end]
    behind = [at for at in written if intervals[at][1] > edit.start]
    first = behind[0] if behind else (written[-1] + 1 if written else 0)
    # The beginning of a text may lose a space, and has no context that would make its first word an error.
    if first == 0 or (behind and intervals[first][0] < edit.start):
        return
    after = [at for at in behind if intervals[at][0] >= edit.end]
    inside = [at for at in behind if intervals[at][0] < edit.end]
    if edit.start < edit.end and (not inside or intervals[first][0] != edit.start):
        return
    if any(intervals[at][1] > edit.end for at in inside):
        return
    stop = inside[-1] + 1 if inside else first
    if after and after[0] < stop:
        return
    said = edit.text
    if inside:
        # The space before a word is a part of its first token.
        said = text[len(pieces.text_of(ids[:first])[0]) : edit.start] + said
    for carrier in _CARRIERS:
        head, whole = list(encode(carrier)) if carrier else [], list(encode(carrier + said))
        if whole[: len(head)] == head:
            yield [*ids[:first], *whole[len(head) :], *ids[stop:]]
