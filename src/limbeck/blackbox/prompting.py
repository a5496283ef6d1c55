"""What a language model is told: versioned files with named slots, filled with texts that stay data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, TemplateError

from limbeck.blackbox.asking import Turn
from limbeck.blackbox.feedback import saturation
from limbeck.blackbox.items import Item
from limbeck.blackbox.writing import Assignment, Attempt, Example
from limbeck.errors import ConfigError

_FILES = (
    "solve",
    "author",
    "tutor",
    "refine_single",
    "refine_history",
    "rewrite",
    "summarise",
    "hint_answer",
    "hint_solution",
    "ending_numeric",
    "ending_choice",
    "ending_boolean",
    "ending_exact",
    "ending_latex",
)


@dataclass(frozen=True)
class Prompts:
    """The prompts by name, and a version that changes with any letter of them.

    >>> prompts = Prompts.load()
    >>> item = Item(id="1", question="What is 2+2?", gold="4", kind="numeric")
    >>> [turn.role for turn in prompts.turns(Assignment(item=item))], len(prompts.version)
    (['user'], 12)
    """

    texts: Mapping[str, str]

    @classmethod
    def load(cls, folder: Path | None = None) -> Prompts:
        """Limbeck's own prompts; files of the same names in `folder` take their place. Raises `ConfigError`."""
        own = resources.files("limbeck.blackbox") / "prompts"
        texts = {name: (own / f"{name}.j2").read_text(encoding="utf-8") for name in _FILES}
        if folder is not None:
            if not folder.is_dir():
                raise ConfigError(f"teacher.prompts is '{folder}', which is no folder")
            found = {path.stem: path for path in sorted(folder.glob("*.j2"))}
            unknown = sorted(set(found) - set(_FILES))
            if unknown or not found:
                what = f"holds {unknown[0]}.j2, which no prompt is called" if unknown else "holds no .j2 file"
                raise ConfigError(f"the folder {folder} {what}\n  known: {', '.join(f'{name}.j2' for name in _FILES)}")
            texts |= {name: path.read_text(encoding="utf-8") for name, path in found.items()}
        return cls(texts)

    @property
    def version(self) -> str:
        """A hash of all prompts."""
        body = "\0".join(f"{name}\0{text}" for name, text in sorted(self.texts.items()))
        return hashlib.blake2b(body.encode(), digest_size=6).hexdigest()

    def turns(self, assignment: Assignment) -> tuple[Turn, ...]:
        """The request for one rationale.

        What all requests of a round share (the probe, the summary) is in the system turn, equal byte for byte, so that
        a server can keep its prefix.
        """
        item = assignment.item
        previous, attempts = assignment.previous, assignment.attempts
        mark = _mark([item.asked(), previous, item.gold, item.rationale, *(each.text for each in attempts)])
        values = {
            "question": _fenced(item.asked(), mark),
            "previous": _fenced(previous, mark) if previous else "",
            "attempts": [_shown(each, mark) for each in attempts],
            "ending": self._filled(f"ending_{item.kind}", {}).strip(),
            "hint": self._hint(item, assignment.hint, mark),
        }
        if assignment.is_fresh:
            return (Turn(role="user", content=self._filled("solve", values)),)
        if not (attempts or assignment.probe or assignment.summary):
            system, user = self._filled("author", {}), self._filled("rewrite", values)
        else:
            system = self._tutor(assignment)
            user = self._filled("refine_history" if len(attempts) > 1 else "refine_single", values)
        return Turn(role="system", content=system), Turn(role="user", content=user)

    def summary_turns(self, examples: Sequence[Example], *, round: int) -> tuple[Turn, ...]:
        """The request for a summary of the probe."""
        values = {"examples": _examples(examples), "round": round}
        return (Turn(role="user", content=self._filled("summarise", values)),)

    def _tutor(self, assignment: Assignment) -> str:
        mark = _mark([assignment.summary])
        summary = _fenced(assignment.summary, mark) if assignment.summary else ""
        examples = _examples(assignment.probe)
        is_lost = saturation(assignment.probe) == "wrong"
        return self._filled("tutor", {"summary": summary, "examples": examples, "is_lost": is_lost})

    def _hint(self, item: Item, hint: str, mark: str) -> str:
        if hint == "none":
            return ""
        if hint == "answer":
            return self._filled("hint_answer", {"answer": _fenced(item.gold, mark)})
        return self._filled("hint_solution", {"solution": _fenced(item.rationale, mark)})

    def _filled(self, name: str, values: Mapping[str, Any]) -> str:
        try:
            return _compiled(self.texts[name]).render(values).strip() + "\n"
        except TemplateError as error:
            raise ConfigError(f"the prompt {name}.j2 cannot be filled: {error}") from error


@cache
def _compiled(text: str) -> Template:
    """A prompt is filled thousands of times; compiling it takes over ten times as long as filling it."""
    return Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(text)


def _examples(examples: Sequence[Example]) -> list[dict[str, Any]]:
    texts = [text for each in examples for text in (each.item.asked(), *each.rationales)]
    mark = _mark([*texts, *(attempt.text for each in examples for attempt in each.attempts)])
    return [
        {
            "question": _fenced(each.item.asked(), mark),
            "rationales": [_fenced(text, mark) for text in each.rationales],
            "attempts": [_shown(attempt, mark) for attempt in each.attempts],
        }
        for each in examples
    ]


def _shown(attempt: Attempt, mark: str) -> dict[str, Any]:
    return {"text": _fenced(attempt.text, mark), "round": attempt.round, "score": int(attempt.is_right)}


def _mark(texts: Sequence[str]) -> str:
    """A word that stands in none of the texts: they cannot close what is opened with it.

    It follows from the texts, so that equal requests are equal; a text that held its own hash would get another mark.
    """
    number = 0
    while True:
        body = repr((number, list(texts)))
        mark = hashlib.blake2b(body.encode("utf-8", errors="surrogatepass"), digest_size=4).hexdigest()
        if not any(mark in text for text in texts):
            return mark
        number += 1


def _fenced(text: str, mark: str) -> str:
    return f"<data-{mark}>\n{text}\n</data-{mark}>"
