"""Questions with one right answer, as records, and how they are read from JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from limbeck.blackbox.numbers import is_number, read_number
from limbeck.data.examples import file_content, numbered_rows
from limbeck.errors import DataError

Kind = Literal["numeric", "choice", "boolean", "exact", "latex"]
_TRUTH = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One option of a multiple-choice question."""

    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question and its gold answer. `kind` says how answers to it are checked.

    `gold` is a choice's label, "yes" or "no", a number as text, or any text. `rationale` and `expression` are what the
    data has of a way to the answer ("" where it has none), `steps` its equations one by one ("48/2=24"), `facts` what
    one has to know. `source` says where the row stands.
    """

    id: str
    question: str
    gold: str
    kind: Kind
    choices: tuple[Choice, ...] = ()
    rationale: str = ""
    expression: str = ""
    steps: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    source: str = ""

    def asked(self) -> str:
        """The question as text, its options on lines of their own.

        >>> options = (Choice(label="A", text="a barn"), Choice(label="B", text="the moon"))
        >>> print(Item(id="1", question="Where do cows sleep?", gold="A", kind="choice", choices=options).asked())
        Where do cows sleep?
        (A) a barn
        (B) the moon
        """
        return "\n".join([self.question, *(f"({choice.label}) {choice.text}" for choice in self.choices)])


def read_items(path: Path) -> tuple[Item, ...]:
    """The questions of a file of JSON lines, or of one JSON list, perhaps gzipped: `question`, `answer`, and what it
    may have of `choices`, `rationale`, `equation`, `steps`, `facts`, `kind` and `id`.

    Without a `kind` it follows from the row: with choices "choice"; yes, no, true and false are "boolean"; what is a
    number, with currency, percent or a unit at most, is "numeric"; else "exact". A missing id is the line's number.
    Raises `DataError` with file and line.
    """
    if not path.is_file():
        raise DataError(f"no file of questions at '{path}'; give a .jsonl file with question and answer in each line")
    items: list[Item] = []
    numbers_by_id: dict[str, str] = {}
    for where, number, row in numbered_rows(file_content(path), path):
        if not isinstance(row, Mapping):
            raise DataError(f"{where} is {type(row).__name__}; a line is a JSON object with question and answer")
        item = read_row(row, where=where, default_id=number)
        if item.id in numbers_by_id:
            raise DataError(f"{where}: the id '{item.id}' stands in line {numbers_by_id[item.id]} already")
        numbers_by_id[item.id] = number
        items.append(item)
    if not items:
        raise DataError(f"{path} holds no question; each line is a JSON object with question and answer")
    return tuple(items)


def read_row(row: Mapping[str, Any], *, where: str, default_id: str) -> Item:
    """The question of one row; `where` it stands is said in errors. Raises `DataError`.

    >>> read_row({"question": "Is it?", "answer": True}, where="a list", default_id="7").gold
    'yes'
    """
    question, answer = (_text(row, key, where) for key in ("question", "answer"))
    choices = _choices(row.get("choices") or (), where)
    gold = answer
    if choices:
        labels = [choice.label for choice in choices]
        if answer not in labels:
            raise DataError(f"{where}: the answer '{answer}' is none of the labels {', '.join(labels)}")
        kind: Kind = "choice"
    elif answer.lower() in _TRUTH:
        kind, gold = "boolean", _TRUTH[answer.lower()]
    else:
        kind = "numeric" if is_number(answer) else "exact"
    if row.get("kind") is not None and (not choices or row["kind"] != "choice"):
        kind = _said_kind(row["kind"], answer=answer, where=where)
    if kind == "exact" and ("\n" in answer or "####" in answer):
        raise DataError(
            f"{where}: the answer has several lines or a ####, and nothing would ever equal it: {answer[-60:]!r}\n"
            "  'answer' is the final answer alone, what stands behind #### in GSM8K; the way to it is 'rationale'"
        )
    rationale, expression = (str(row.get(key) or "") for key in ("rationale", "equation"))
    return Item(
        id=default_id if row.get("id") is None else str(row["id"]),
        question=question,
        gold=gold,
        kind=kind,
        choices=choices,
        rationale=rationale,
        expression=expression,
        steps=_texts(row, "steps", where),
        facts=_texts(row, "facts", where),
        source=where,
    )


def _said_kind(kind: Any, *, answer: str, where: str) -> Kind:
    """A kind that a row names itself, where the answer is one of it."""
    if kind == "exact":
        return "exact"
    if kind == "latex":
        return "latex"
    if kind == "numeric" and read_number(answer) is not None:
        return "numeric"
    if kind == "boolean" and answer.lower() in _TRUTH:
        return "boolean"
    raise DataError(
        f"{where}: 'kind' is {kind!r} and the answer '{answer}'\n  allowed: numeric with a number, boolean with yes or"
        " no, exact or latex with any text; choice needs 'choices'"
    )


def _texts(row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    given = row.get(key) or ()
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise DataError(f"{where}: '{key}' is {given!r}; it is a list of texts")
    return tuple(each.strip() for each in given if each.strip())


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, int | float):
        # Without an exponent, which no checker reads.
        value = format(Decimal(repr(value)), "f")
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: '{key}' is {value!r}; it is a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: '{key}' holds half of a surrogate pair at character {error.start}") from error
    return value.strip()


def _choices(given: Any, where: str) -> tuple[Choice, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise DataError(f"{where}: 'choices' is {given!r}; it is a list of objects with label and text")
    choices = []
    for each in given:
        if not isinstance(each, Mapping) or not {"label", "text"} <= each.keys():
            raise DataError(f"{where}: the choice {each!r} is no object with label and text")
        choices.append(Choice(label=str(each["label"]), text=str(each["text"])))
    if len({choice.label for choice in choices}) < len(choices):
        raise DataError(f"{where}: two choices have one label")
    return tuple(choices)
