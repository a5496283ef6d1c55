"""Docstrings as Markdown: formulas and doctests become blocks of code, whose lines, spaces and signs stay as they are.

In Markdown a doctest would be a quotation in a quotation, and a formula directly below a sentence a part of it. What a
component can be given is told below its docstring, since only pydantic knows that its fields are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import griffe

_PROMPT = re.compile(r">>>( |$)")
_CONSTANT = re.compile(r"\b_[A-Z][A-Z_]*\b")
_COMPONENT = "pydantic.dataclasses.dataclass"


class DocstringBlocks(griffe.Extension):
    """Rewrites each docstring when it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe with every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called by griffe with every class once its members are known."""
        if cls.docstring is None or not any(each.callable_path == _COMPONENT for each in cls.decorators):
            return
        fields = [
            _field(each) for each in cls.members.values() if "instance-attribute" in each.labels and each.annotation
        ]
        if fields:
            cls.docstring.value += "\n\nFields:\n\n" + "\n".join(["```python", *fields, "```"])


def _field(attribute: Any) -> str:
    """`name: type = default`, with the value of a private constant in its name's place."""
    default = "" if attribute.value is None else f" = {attribute.value}"
    constants = attribute.module.members

    def value(found: re.Match[str]) -> str:
        constant = constants.get(found[0])
        return found[0] if constant is None or constant.is_alias else str(getattr(constant, "value", found[0]))

    return f"{attribute.name}: {attribute.annotation}{_CONSTANT.sub(value, default)}"


def as_markdown(docstring: str) -> str:
    """The docstring with its doctests and indented formulas fenced.

    >>> as_markdown("A mean:\\n    Σ x / n\\n\\n>>> 1 + 1\\n2").splitlines()
    ['A mean:', '', '```text', 'Σ x / n', '```', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    blocks = []
    for kind, lines in _blocks(docstring):
        while lines and not lines[-1].strip():
            lines.pop()
        if kind == "prose":
            blocks.append("\n".join(lines))
        else:
            blocks.append("\n".join([f"```{kind}", *_dedented(lines), "```"]))
    return "\n\n".join(block for block in blocks if block.strip())


def _blocks(docstring: str) -> Iterator[tuple[str, list[str]]]:
    """(prose, text or pycon; lines), in order. An empty line ends a doctest and no formula."""
    kinds, kind = [], "prose"
    for line in docstring.splitlines():
        if _PROMPT.match(line.strip()):
            kind = "pycon"
        elif not line.strip():
            kind = "prose" if kind == "pycon" else kind
        elif kind != "pycon":
            kind = "text" if line.startswith("    ") else "prose"
        kinds.append((kind, line))
    for found, group in groupby(kinds, key=lambda entry: entry[0]):
        yield found, [line for _, line in group]


def _dedented(lines: list[str]) -> list[str]:
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[margin:] for line in lines]
