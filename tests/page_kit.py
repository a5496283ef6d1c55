"""What the tests of pages share: the eight answers, read from the HTML as a person reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_VOID = {"meta", "br", "hr", "input", "img", "link"}


@dataclass
class Told:
    """One answer: its sentences, its command, and where it leads."""

    lines: list[str] = field(default_factory=list)
    command: str = ""
    links: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All sentences."""
        return " ".join(self.lines)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Told] = {}
        self.ids: set[str] = set()
        self._name = ""
        self._tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if tag in _VOID:
            return
        self._tags.append(tag)
        if tag == "li":
            self._name = (given.get("id") or "").removeprefix("answer-") if given.get("id") else ""
            if self._name:
                self.answers[self._name] = Told()
        if self._name and tag == "a":
            self.answers[self._name].links.append(str(given["href"]))
        if self._name and tag == "p":
            self.answers[self._name].lines.append("")

    def handle_endtag(self, tag: str) -> None:
        self._tags.pop()
        if tag == "li":
            self._name = ""

    def handle_data(self, data: str) -> None:
        if not self._name:
            return
        told = self.answers[self._name]
        if "code" in self._tags:
            told.command += data
        elif "p" in self._tags:
            told.lines[-1] += data


def answers_of(page: Path) -> dict[str, Told]:
    """The eight answers of a page by name; every link of theirs leads to a place that the page has."""
    html = page.read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(html)
    names = ["best", "sft", "checkpoint", "rows", "drawn", "watch", "cost", "repeat"]
    assert list(reader.answers) == names
    for name, told in reader.answers.items():
        told.lines = [line for line in told.lines if not line.startswith("Read from")]
        assert told.lines, name
        assert all(link.startswith("#") and link[1:] in reader.ids for link in told.links), (name, told.links)
    leads = set(re.findall(r'href="#([^"]*)"', html))
    assert leads <= reader.ids, leads - reader.ids
    return reader.answers
