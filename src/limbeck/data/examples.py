"""Reading rows: files of JSON lines (or one JSON list), gzipped or not, and rows that Python users already hold.

Every error names the file and the line. Nothing is skipped in silence and nothing is written.
"""

from __future__ import annotations

import difflib
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from limbeck.data.formats import Row, detect, identity, parse, rename, text_of
from limbeck.errors import DataError
from limbeck.records import Example

_GZIP = b"\x1f\x8b"
_EXPECTED = "one JSON object a line is expected"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Examples in file order, the detected `format`, where they came from, and what a reader of papers should know."""

    examples: tuple[Example, ...]
    format: str
    source: str
    note: str = ""

    def __len__(self) -> int:
        return len(self.examples)

    def describe(self) -> str:
        """One line for people: source, rows, format, and what the rows hold.

        >>> from_rows([{"prompt": "2+2?", "completion": "4"}], corpus="sums").describe()
        'sums: 1 row, format prompt-completion'
        """
        rows = len(self.examples)
        parts = [f"{rows:,} row{'' if rows == 1 else 's'}", f"format {self.format}"]
        counts = {
            "with input": sum(any(message.input for message in example.messages) for example in self.examples),
            "with several turns": sum(_turns(example) > 1 for example in self.examples),
            "with a system message": sum(example.messages[0].role == "system" for example in self.examples),
            "with several references": sum(len(example.references) > 1 for example in self.examples),
        }
        parts += [f"{count:,} {what}" for what, count in counts.items() if count]
        categories = Counter(example.category for example in self.examples if example.category)
        parts += [f"{len(categories)} categories"] if categories else []
        return f"{self.source}: {', '.join(parts)}"


def read_examples(path: Path, *, columns: Mapping[str, str] | None = None, corpus: str = "") -> Dataset:
    """The rows of a JSON-lines file, or of a file with one JSON list, either perhaps gzipped.

    The first row decides the format. Rows without an id get `<file stem>-<line>`. `columns` maps a field of the format
    to the file's column. Raises `DataError` for a file that is missing, a folder, empty, not UTF-8, not gzip or not
    JSON; for wrong types, a row without a response, and an id that stands twice.
    """
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    rows = numbered_rows(file_content(path), path)
    return _dataset(rows, columns=columns or {}, corpus=corpus or stem, prefix=stem, source=str(path))


def from_rows(
    rows: Iterable[Mapping[str, object]],
    *,
    columns: Mapping[str, str] | None = None,
    corpus: str = "rows",
    source: str = "",
) -> Dataset:
    """The same from dictionaries that are already in memory; errors count rows from 1.

    >>> from_rows([{"instruction": "Say hello", "output": ["Hello.", "Hi."]}]).examples[0].references
    ('Hello.', 'Hi.')
    """
    source = source or corpus
    numbered = ((f"{source} row {number}", str(number), row) for number, row in enumerate(rows, start=1))
    return _dataset(numbered, columns=columns or {}, corpus=corpus, prefix=corpus, source=source)


def _turns(example: Example) -> int:
    return sum(message.role == "user" for message in example.messages)


def _dataset(
    rows: Iterable[tuple[str, str, object]], *, columns: Mapping[str, str], corpus: str, prefix: str, source: str
) -> Dataset:
    examples: list[Example] = []
    seen: dict[str, str] = {}
    format = ""
    for where, number, raw in rows:
        if not isinstance(raw, Mapping):
            raise DataError(f"the row is a {type(raw).__name__}, not an object; {_EXPECTED}.\n  in {where}")
        row: Row = rename(raw, columns=columns, where=where)
        format = format or detect(row, where=where)
        messages, references = parse(row, format=format, where=where)
        key = identity(row, default=f"{prefix}-{number}", where=where)
        if key in seen:
            raise DataError(
                f"the id '{key}' stands twice; ids tell rows apart in results.\n"
                f"  make it unique, or delete the ids (rows then get their line number)\n"
                f"  first in {seen[key]}\n  again in {where}"
            )
        seen[key] = where
        category = text_of(row, column="category", where=where)
        examples.append(
            Example(id=key, messages=messages, references=references, category=category, corpus=corpus, source=where)
        )
    if not examples:
        raise DataError(f"no rows; {_EXPECTED}.\n  in {source}")
    return Dataset(examples=tuple(examples), format=format, source=source)


def file_content(path: Path) -> bytes:
    """The bytes of a file, unpacked if it is gzipped, without a byte-order mark. Raises `DataError`."""
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if ".json" in entry.name)
        found = f"it holds {', '.join(inside[:5])}" if inside else "it holds no .jsonl file"
        raise DataError(f"{path} is a folder, not a file; {found}.\n  name one file")
    try:
        content = path.read_bytes()
        if path.suffix == ".gz" or content.startswith(_GZIP):
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else "" if siblings else " Its folder does not exist either."
        raise DataError(
            f"the data file {path} does not exist.{hint}\n  check the path, or data.root for a named corpus"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no intact gzip file: {error}.\n  pack it again with gzip") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return content.removeprefix(b"\xef\xbb\xbf")


def numbered_rows(content: bytes, path: Path) -> Iterator[tuple[str, str, object]]:
    """Where each row of a JSON-lines file, or of one JSON list, stands; its number; and its value."""
    if content.lstrip()[:1] == b"[":
        for number, row in enumerate(_list(content, path), start=1):
            yield f"{path} row {number}", str(number), row
        return
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            where = f"{path} line {number}"
            yield where, str(number), _json(utf8(line, where), where)


def _list(content: bytes, path: Path) -> list[object]:
    value = _json(utf8(content, str(path)), str(path))
    if not isinstance(value, list):
        raise DataError(f"the file begins with '[' but is no list of objects; {_EXPECTED}.\n  in {path}")
    return value


def utf8(line: bytes, where: str) -> str:
    """Bytes as text. Raises `DataError` that names the place."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
        raise DataError(f"not UTF-8: {found}.\n  {_as_utf8(line)}\n  in {where}") from error


def _as_utf8(line: bytes) -> str:
    # iconv takes any byte for Latin-1, so that the advice for it would turn UTF-16 and tables into other nonsense.
    is_utf16 = line.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in line and not is_utf16:
        return "it is no text; write its rows as JSON lines, e.g. by pandas: to_json(orient='records', lines=True)"
    return f"save the file as UTF-8, e.g. iconv -f {'utf-16' if is_utf16 else 'latin1'} -t utf-8"


def _json(text: str, where: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        why, place = str(error), ""
        if isinstance(error, json.JSONDecodeError):
            why = error.msg
            place = f" at column {error.colno}" if error.lineno == 1 else f" at line {error.lineno}"
        shown = text.strip()[:60]
        raise DataError(f"broken JSON: {why}{place}.\n  it begins: {shown}\n  {_EXPECTED}\n  in {where}") from error
    return value
