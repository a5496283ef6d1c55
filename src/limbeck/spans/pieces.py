"""Where each generated token lies in the text: from the tokens' bytes, because a text may be encoded in several ways.

Encoding the decoded text again can give other ids than those that were generated, and spans of other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

Interval = tuple[int, int]  # [start, end)


@dataclass(frozen=True)
class TokenPieces:
    """A vocabulary as bytes: token id → the bytes that the token adds to the text.

    `special`: ids that stand for no text and belong to no span; their bytes are not looked at. `drops_first_space`:
    one space at the beginning of a text is left out, as SentencePiece does that marks the first word like any other.

    >>> cafe = TokenPieces(pieces=(b" caf", b"\\xc3", b"\\xa9", b""), special=frozenset({3}))
    >>> cafe.text_of([0, 1, 2, 3])
    (' café', ((1, 4), (4, 5), (4, 5), (5, 5)))
    """

    pieces: tuple[bytes, ...]
    special: frozenset[int]
    drops_first_space: bool = False

    def is_special(self, id: int) -> bool:
        """Whether the token stands for no text: padding, end of text, a mark of a template."""
        return id in self.special

    def text_of(self, ids: Sequence[int]) -> tuple[str, tuple[Interval, ...]]:
        """The text of the ids, and the characters [start, end) of it that each token takes part in.

        Bytes that are no UTF-8 (a character cut off at the length limit) become U+FFFD. A token that has only some
        bytes of a character gets the whole character. White space in front of a token's word is not its own; a token
        of white space alone keeps it, since it may stand inside of a span. Special tokens get an empty interval.
        """
        parts = [b"" if id in self.special else self.pieces[id] for id in ids]
        if self.drops_first_space:
            first = next((place for place, part in enumerate(parts) if part), None)
            if first is not None:
                parts[first] = parts[first].removeprefix(b" ")
        data = b"".join(parts)
        text, character = _decode(data)
        intervals, start = [], 0
        for part in parts:
            end = start + len(part)
            if not part:
                place = character[start] if start < len(data) else len(text)
                intervals.append((place, place))
                continue
            left, right = character[start], character[end - 1] + 1
            written = text[left:right]
            word = written.lstrip()
            intervals.append((right - len(word) if word else left, right))
            start = end
        return text, tuple(intervals)


def _decode(data: bytes) -> tuple[str, Sequence[int]]:
    """The bytes as text, with U+FFFD for what is no UTF-8, and for each byte the index of its character."""
    if data.isascii():
        return data.decode("ascii"), range(len(data))
    begins = [byte & 0xC0 != 0x80 for byte in data]
    checked = 0
    while True:
        try:
            data[checked:].decode("utf-8")
            break
        except UnicodeDecodeError as error:
            # Python writes one U+FFFD for each range that it reports.
            begins[checked + error.start : checked + error.end] = [True] + [False] * (error.end - error.start - 1)
            checked += error.end
    return data.decode("utf-8", errors="replace"), [count - 1 for count in accumulate(begins)]
