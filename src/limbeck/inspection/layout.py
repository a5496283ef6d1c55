"""An explanation as plain text that fits a narrow terminal and a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from limbeck.config.reading import scalar

if TYPE_CHECKING:
    from limbeck.inspection.composition import Entry, Explanation, Part
    from limbeck.inspection.formulas import Formula
    from limbeck.inspection.readings import Reading

_WIDEST = 100
_STEP = "  "
_OF_PART, _OF_FIELD = ": ", " = "
_MARKS = {"open": "open", "differs": "differs", "printed": "as printed"}
_LEGEND = (
    "p, t teacher · q, s student · y a response to x",
    "[open] the paper does not say, or says two things",
    "[differs] not as in the paper",
    "no mark: as in the paper · (…) is no field of a recipe",
)


def text_of(explanation: Explanation, *, width: int) -> str:
    """The whole text: what it is, its loss, its parts, the settings around it."""
    lines = _Lines(width=min(width, _WIDEST), paper=explanation.paper, base=explanation.base)
    return "\n".join(line.rstrip() for line in lines.whole(explanation)) + "\n"


class _Lines:
    """Lines of parts and entries; sources of the explained paper by their equation alone."""

    def __init__(self, *, width: int, paper: str, base: str) -> None:
        self.width, self.paper, self.base = width, paper, base

    def whole(self, explanation: Explanation) -> Iterator[str]:
        """The lines of an explanation, from its title to its notes."""
        yield from self._wrapped(explanation.title, "")
        if self.base and self.base not in explanation.title:
            yield from self._wrapped(f"base: {self.base}", "")
        if explanation.meaning:
            yield from self._wrapped(explanation.meaning, "")
        if self.paper:
            yield from self._wrapped(f"paper: {self.paper}", "")
        yield ""
        yield from self._formula(explanation.loss._replace(text=f"loss = {explanation.loss.text}"), "")
        yield ""
        legend = _LEGEND if self.paper else _LEGEND[:1]
        changed = (f"[changed] not as in {self.base}",) if self.base else ()
        for line in (*legend, *changed):
            yield from self._wrapped(line, "")
        for part in explanation.parts:
            yield ""
            yield from self._part(part, "")
        if explanation.settings:
            yield ""
            yield "around the method"
            for entry in explanation.settings:
                yield from self._entry(entry, _STEP, _OF_FIELD)

    def _part(self, part: Part, indent: str) -> Iterator[str]:
        inner = indent + _STEP
        yield from self._entry(part.entry, indent, _OF_PART)
        if part.meaning:
            yield from self._wrapped(part.meaning, inner)
        for formula in part.formulas:
            yield from self._formula(formula, inner)
        for entry in part.fields:
            yield from self._entry(entry, inner, _OF_FIELD)
        for reading in part.beside:
            yield from self._wrapped(f"({reading.about}) {_mark(reading)}", inner)
            yield from self._reading(reading, inner + _STEP)
        for each in part.parts:
            yield from self._part(each, inner)

    def _entry(self, entry: Entry, indent: str, between: str) -> Iterator[str]:
        shown = f"{entry.name}{between}{_shown(entry.value, between)}" if entry.is_given else entry.name
        changed = f"[changed: {_shown(entry.was, between)} in {self.base}]" if entry.is_changed else ""
        yield from self._wrapped(" ".join([shown, *filter(None, [changed, _mark(entry.reading)])]), indent)
        yield from self._reading(entry.reading, indent + _STEP)

    def _reading(self, reading: Reading | None, indent: str) -> Iterator[str]:
        if reading is not None and reading.paper:
            yield from self._wrapped(f"paper: {reading.paper}", indent)
        if reading is not None and reading.reason:
            yield from self._wrapped(f"here: {reading.reason}", indent)

    def _formula(self, formula: Formula, indent: str) -> Iterator[str]:
        source = formula.source.removeprefix(f"{self.paper}, ")
        whole = f"{formula.text}   ({source})" if source else formula.text
        if len(indent) + len(whole) <= self.width:
            yield indent + whole
            return
        yield from self._wrapped(formula.text, indent)
        if source:
            yield from self._wrapped(f"({source})", indent + 2 * _STEP)

    def _wrapped(self, text: str, indent: str) -> Iterator[str]:
        """The text from `indent` on, further lines two columns more to the right."""
        yield from textwrap.wrap(
            text, self.width, initial_indent=indent, subsequent_indent=indent + _STEP, break_on_hyphens=False
        )


def _shown(value: object, between: str) -> str:
    """A field's value as a recipe writes it; of a part its kind."""
    return "none" if value is None and between == _OF_PART else scalar(value)


def _mark(reading: Reading | None) -> str:
    """How it stands to the paper; nothing where it is as printed and there is nothing to say."""
    if reading is None or (reading.standing == "printed" and not reading.paper):
        return ""
    return f"[{_MARKS[reading.standing]}]"
