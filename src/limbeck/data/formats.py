"""What one row of a data file means: four shapes of rows, recognised by their columns.

    instruction         {"instruction", "input"?, "output": str | [str, ...], "category"?, "id"?}
                        (Alpaca is this without ids; "context" and "response" are taken for input and output)
    prompt-completion   {"prompt", "completion" | "response", "category"?, "id"?}
    messages            {"messages": [{"role", "content"}, ...], "category"?, "id"?}
    conversations       {"conversations": [{"from", "value"} | {"role", "content"}, ...], "category"?, "id"?}

Columns of other names are left alone. Nothing here reads files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from limbeck.errors import DataError, UnknownName
from limbeck.records import Message, Role

FIELDS = (
    "instruction",
    "input",
    "output",
    "prompt",
    "completion",
    "response",
    "messages",
    "conversations",
    "category",
    "id",
)
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "human": "user",
    "gpt": "assistant",
}
_WAY_OUT = (
    "name your columns with data.columns, e.g. {instruction: question, output: answer}"
    " (limbeck evaluate and init have no such setting: rename them in the file)"
)

Row = Mapping[str, object]
Content = tuple[tuple[Message, ...], tuple[str, ...]]


def rename(row: Row, *, columns: Mapping[str, str], where: str) -> Row:
    """The row with the user's columns under the names of a format; `columns` maps field -> column of the file.

    Raises `UnknownName` for a field that no format has, `DataError` for a column that the row lacks.

    >>> rename({"question": "2+2?"}, columns={"prompt": "question"}, where="a.jsonl line 1")
    {'prompt': '2+2?'}
    """
    if not columns:
        return row
    for field in columns:
        if field not in FIELDS:
            raise UnknownName.among("field of a data row", field, FIELDS, where="data.columns (field: column)")
    missing = [column for column in columns.values() if column not in row]
    if missing:
        raise DataError(
            f"data.columns names the column '{missing[0]}', which this row lacks.\n"
            f"  columns of the row: {', '.join(map(str, row)) or 'none'}\n"
            f"  write data.columns as {{field: column}}, with columns that every row has\n  in {where}"
        )
    taken = set(columns.values())
    kept = {name: value for name, value in row.items() if name not in taken and name not in columns}
    return {**kept, **{field: row[column] for field, column in columns.items()}}


def detect(row: Row, *, where: str) -> str:
    """The format of a row, from its columns; `DataError` where they fit none.

    >>> detect({"prompt": "a", "completion": "b"}, where="a.jsonl line 1")
    'prompt-completion'
    """
    for column, name in _BY_COLUMN.items():
        if column in row:
            return name
    raise DataError(
        f"no known format has these columns: {', '.join(map(str, row)) or 'none'}.\n"
        f"  known: instruction + output, prompt + completion, messages, conversations\n  {_WAY_OUT}\n  in {where}"
    )


def parse(row: Row, *, format: str, where: str) -> Content:
    """Messages up to the last assistant turn, and the references for that turn.

    Raises `DataError` for wrong types, for a row without a response and for turns in an impossible order.

    >>> parse({"instruction": "Add", "input": "1 2", "output": "3"}, format="instruction", where="")
    ((Message(role='user', content='Add', input='1 2'),), ('3',))
    """
    return _PARSERS[format](row, where)


def identity(row: Row, *, default: str, where: str) -> str:
    """The row's id as text, `default` where it has none."""
    value = row.get("id")
    if value is None or value == "":
        return default
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"'id' is {_shown(value)}; text or a whole number is expected.\n  in {where}")
    return str(value)


def text_of(row: Row, *, column: str, where: str) -> str:
    """A text column; "" where it is absent or null."""
    value = row.get(column)
    return "" if value is None else _text(value, column, where)


def _instruction(row: Row, where: str) -> Content:
    instruction = _needed(row, "instruction", where)
    context = "input" if "input" in row else "context"
    output = "output" if "output" in row else "response"
    message = Message(role="user", content=instruction, input=text_of(row, column=context, where=where))
    return (message,), _references(row.get(output), output, where)


def _prompt(row: Row, where: str) -> Content:
    column = "completion" if "completion" in row else "response"
    message = Message(role="user", content=_needed(row, "prompt", where))
    return (message,), _references(row.get(column), column, where)


def _chat(row: Row, where: str) -> Content:
    column = "messages" if "messages" in row else "conversations"
    turns = row.get(column)
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise DataError(f"'{column}' is {_shown(turns)}; a list of turns is expected.\n  in {where}")
    messages = [_turn(turn, f"{column}[{index}]", where) for index, turn in enumerate(turns)]
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        raise _no_response(f"no turn of '{column}' has the role assistant", where)
    before, answer = messages[: answers[-1]], messages[answers[-1]]
    _check_order(before, column, where)
    return tuple(before), _references(answer.content, f"{column}[{answers[-1]}].content", where)


def _turn(turn: object, place: str, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"'{place}' is {_shown(turn)}; an object with role and content is expected.\n  in {where}")
    role, content = ("role", "content") if "role" in turn else ("from", "value")
    name = turn.get(role)
    if not isinstance(name, str) or name not in _ROLES:
        raise DataError(
            f"'{place}.{role}' is {_shown(name)}.\n"
            f"  allowed: system, user (human), assistant (gpt); tool turns are not supported\n  in {where}"
        )
    return Message(role=_ROLES[name], content=_text(turn.get(content), f"{place}.{content}", where))


def _check_order(before: Sequence[Message], column: str, where: str) -> None:
    roles = [message.role for message in before]
    if "system" in roles[1:]:
        raise DataError(
            f"'{column}[{roles.index('system', 1)}]' is a system turn; only the first turn may be.\n  in {where}"
        )
    if not roles or roles[-1] != "user":
        raise DataError(f"the last assistant turn of '{column}' does not follow a user turn.\n  in {where}")
    if not before[-1].content.strip():
        raise _empty(f"{column}[{len(before) - 1}].content", where)


def _references(value: object, column: str, where: str) -> tuple[str, ...]:
    if value is None:
        raise _no_response(f"'{column}' is missing or null", where)
    several = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
    texts = tuple(_text(text, column, where, "text or a list of texts") for text in several)
    if not texts or not all(text.strip() for text in texts):
        raise _no_response(f"'{column}' is empty", where)
    return texts


def _no_response(why: str, where: str) -> DataError:
    return DataError(
        f"a row without a response: {why}.\n"
        f"  every row needs the text to learn from; delete the row, or {_WAY_OUT}\n  in {where}"
    )


def _needed(row: Row, column: str, where: str) -> str:
    text = _text(row.get(column), column, where)
    if not text.strip():
        raise _empty(column, where)
    return text


def _empty(column: str, where: str) -> DataError:
    return DataError(f"'{column}' is empty; delete the row or fill it in.\n  in {where}")


def _text(value: object, column: str, where: str, expected: str = "text") -> str:
    if not isinstance(value, str):
        raise DataError(f"'{column}' is {_shown(value)}; {expected} is expected.\n  in {where}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"'{column}' holds half of a surrogate pair at character {error.start}, which no tokenizer takes.\n"
            f"  write the character in full or delete the row\n  in {where}"
        ) from error
    return value


def _shown(value: object) -> str:
    kinds = {bool: "a truth value", int: "a number", float: "a number", str: "text", dict: "an object", list: "a list"}
    if value is None:
        return "missing or null"
    text = repr(value)
    return f"{kinds.get(type(value), type(value).__name__)} ({text if len(text) <= 40 else text[:37] + '...'})"


_BY_COLUMN = {
    "messages": "messages",
    "conversations": "conversations",
    "instruction": "instruction",
    "prompt": "prompt-completion",
}
_PARSERS: dict[str, Callable[[Row, str], Content]] = {
    "instruction": _instruction,
    "prompt-completion": _prompt,
    "messages": _chat,
    "conversations": _chat,
}
