"""Columns of text that fit a terminal."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

_GAP = 2


def lay_out(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[bool],
    notes: Sequence[str] = (),
    width: int = 80,
) -> str:
    """Headings, a rule and rows in aligned columns, at most `width` columns wide.

    Right-aligned columns hold numbers: their headings wrap, their cells only where one is too wide for a line. Where
    the narrowest columns do not fit beside each other, the table is cut into blocks that repeat the first column.
    """
    natural = [_widest([heading, *cells]) for heading, cells in zip(headings, _columns(headings, rows), strict=True)]
    least = [
        max([_longest_word(heading)] + [shown_width(cell) if is_right else _longest_word(cell) for cell in cells])
        for heading, cells, is_right in zip(headings, _columns(headings, rows), right, strict=True)
    ]
    beside = width - _GAP - max(least[1:], default=0)
    least[0] = min(least[0], max(8, min(width // 3, beside)))
    least[1:] = [min(one, width - _GAP - least[0]) for one in least[1:]]
    blocks = [
        _block(block, headings=headings, rows=rows, right=right, widths=_share(block, least, natural, width))
        for block in _blocks(least, width)
    ]
    notes_text = "\n".join(line for note in notes for line in _wrap(note, width))
    return "\n\n".join(block for block in [*blocks, notes_text] if block) + "\n"


def broken_at_spaces(text: str, *, width: int) -> str:
    """The text with lines of at most `width` columns, each continued two columns further in than it began.

    Words are never cut: a number, a path or an option that is longer than a line stays whole. A line that fits is left
    as it is.

    >>> print(broken_at_spaces("metrics: the same in all 12,345 steps", width=25))
    metrics: the same in all
      12,345 steps
    """
    return "\n".join(line if len(line) <= width else _broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    before = line[: len(line) - len(line.lstrip(" "))]
    return textwrap.fill(
        line.strip(),
        width=width,
        initial_indent=before,
        subsequent_indent=f"{before}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def shown_width(text: str) -> int:
    """Terminal columns that a text takes: two for wide characters, none for combining marks."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )


def _columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[row[position] for row in rows] for position in range(len(headings))]


def _widest(texts: Sequence[str]) -> int:
    return max(map(shown_width, texts))


def _longest_word(text: str) -> int:
    return max(map(shown_width, text.split()), default=0) + len(text) - len(text.rstrip())


def _blocks(least: Sequence[int], width: int) -> list[list[int]]:
    blocks, used = [[0]], least[0]
    for position in range(1, len(least)):
        if used + _GAP + least[position] > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = least[0]
        blocks[-1].append(position)
        used += _GAP + least[position]
    return blocks


def _share(block: Sequence[int], least: Sequence[int], natural: Sequence[int], width: int) -> dict[int, int]:
    widths = {position: least[position] for position in block}
    spare = width - sum(widths.values()) - _GAP * (len(block) - 1)
    while spare > 0 and any(widths[position] < natural[position] for position in block):
        for position in block:
            if spare > 0 and widths[position] < natural[position]:
                widths[position] += 1
                spare -= 1
    return widths


def _block(
    block: Sequence[int],
    *,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
    widths: dict[int, int],
) -> str:
    lines = _wrapped([headings[p] for p in block], [right[p] for p in block], [widths[p] for p in block], bottom=True)
    lines.append((" " * _GAP).join("-" * widths[position] for position in block))
    for row in rows:
        lines += _wrapped([row[p] for p in block], [right[p] for p in block], [widths[p] for p in block], bottom=False)
    return "\n".join(lines)


def _wrapped(cells: list[str], right: list[bool], widths: list[int], *, bottom: bool) -> list[str]:
    wrapped = [_wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, wrapped))
    padded = [
        [""] * (height - len(lines)) + lines if bottom else lines + [""] * (height - len(lines)) for lines in wrapped
    ]
    return [
        (" " * _GAP)
        .join(_pad(lines[line], width, is_right) for lines, width, is_right in zip(padded, widths, right, strict=True))
        .rstrip()
        for line in range(height)
    ]


def _wrap(cell: str, width: int) -> list[str]:
    """Lines of at most `width`, broken at blanks, or inside a word that is wider than a line."""
    if shown_width(cell) <= width:
        return [cell]
    # Trailing blanks keep a heading in line with numbers that carry a mark: every line gets them.
    marks = cell[len(cell.rstrip()) :]
    room = max(2, width - len(marks))
    lines = [""]
    for word in cell.split():
        if shown_width(f"{lines[-1]} {word}") <= room:
            lines[-1] = f"{lines[-1]} {word}"
            continue
        lines.append("")
        for sign in word:
            if shown_width(lines[-1] + sign) > room:
                lines.append("")
            lines[-1] += sign
    return [line.lstrip() + marks for line in lines if line]


def _pad(text: str, width: int, is_right: bool) -> str:
    filler = " " * max(0, width - shown_width(text))
    return filler + text if is_right else text + filler
