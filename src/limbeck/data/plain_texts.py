"""Plain text to learn from beside a method's rows: read from a file, cut into rows of tokens, all of them learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from limbeck.data.examples import file_content, numbered_rows, utf8
from limbeck.errors import DataError
from limbeck.records import EncodedRow

_COLUMN = "text"


def read_texts(path: Path) -> Iterator[str]:
    """The texts of a file: of a .txt file (gzipped or not) its whole content, of JSON lines the column "text".

    White space around a text is dropped, an empty text is left out. Raises `DataError` for a file that is missing, a
    folder, not UTF-8 or not JSON, for a row without text, and for a file without any.
    """
    content, found = file_content(path), 0
    for where, text in _texts(content, path):
        if not isinstance(text, str):
            raise DataError(f"the row has no text in the column '{_COLUMN}'.\n  in {where}")
        if text.strip():
            found += 1
            yield text.strip()
    if not found:
        raise DataError(f"{path} holds no text; data.plain_text is a .txt file, or JSON lines with '{_COLUMN}'")


def _texts(content: bytes, path: Path) -> Iterator[tuple[str, object]]:
    if path.name.removesuffix(".gz").endswith(".txt"):
        yield str(path), utf8(content, str(path))
        return
    for where, _, row in numbered_rows(content, path):
        yield where, row.get(_COLUMN) if isinstance(row, Mapping) else None


def plain_rows(path: Path, *, tokenizer: Any, max_length: int) -> tuple[EncodedRow, ...]:
    """The texts of a file as rows of at most `max_length` tokens without a prompt, every token to be learned.

    A text begins with BOS where the tokenizer begins one so, and ends with its EOS where it has one; it is cut every
    `max_length` tokens, and two texts never share a row. A row of a single token, which nothing precedes, is left out.
    Raises what `read_texts` raises, and `DataError` where no row is left.

    >>> from limbeck.testing import byte_tokenizer
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".txt") as file:
    ...     _ = Path(file.name).write_text("abcde")
    ...     [row.tokens for row in plain_rows(Path(file.name), tokenizer=byte_tokenizer(), max_length=4)]
    [(97, 98, 99, 100), (101, 258)]
    """
    rows = list[EncodedRow]()
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    for text in read_texts(path):
        ids = list(tokenizer(text, verbose=False)["input_ids"])
        ids += [] if ids[-1:] == end else end
        for first in range(0, len(ids), max_length):
            block = tuple(ids[first : first + max_length])
            if len(block) > 1:
                flags = (True,) * len(block)
                rows.append(EncodedRow(id=f"plain-{len(rows)}", prompt=(), tokens=block, is_response=flags))
    if not rows:
        raise DataError(f"no text of {path} has two tokens; data.plain_text teaches each token by those before it")
    return tuple(rows)
