"""Black-box teachers that are plain functions, for tests of what is done with their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from limbeck.blackbox.asking import Answer, Completion, Refusal, Request
from limbeck.blackbox.writing import Assignment

Said = str | Answer


class ScriptedTeacher:
    """Answers each request with `script(request)`: a text, or a whole `Completion` or `Refusal`. A `Teacher`.

    An empty text is a `Refusal`, as from a server. `requests` are all that it was asked, in order.

    >>> from limbeck.blackbox.asking import Turn
    >>> teacher = ScriptedTeacher(lambda request: request.turns[-1].content.upper())
    >>> teacher.complete([Request(turns=(Turn(role="user", content="hello"),), max_tokens=4)])[0].text
    'HELLO'
    """

    def __init__(self, script: Callable[[Request], Said], *, name: str = "scripted") -> None:
        self._script = script
        self._name = name
        self.requests: list[Request] = []

    @property
    def name(self) -> str:
        """What tells it from other teachers."""
        return self._name

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in order. What the script raises goes through."""
        answers = []
        for request in requests:
            self.requests.append(request)
            answers.append(_answer(self._script(request)))
        return answers


class ScriptedWriter:
    """Writes `script(assignment)` for each assignment. A `RationaleTeacher`.

    An empty text is a `Refusal`. `assignments` are all that it was given, in order.

    >>> from limbeck.blackbox import Item
    >>> writer = ScriptedWriter(lambda assignment: f"#### {assignment.item.gold}")
    >>> writer.write([Assignment(item=Item(id="1", question="6 * 7?", gold="42", kind="numeric"))])[0].text
    '#### 42'
    """

    def __init__(self, script: Callable[[Assignment], Said], *, name: str = "scripted") -> None:
        self._script = script
        self._name = name
        self.assignments: list[Assignment] = []

    @property
    def name(self) -> str:
        """What tells it from other teachers."""
        return self._name

    def write(self, assignments: Sequence[Assignment]) -> list[Answer]:
        """One rationale an assignment, in order. What the script raises goes through."""
        answers = []
        for assignment in assignments:
            self.assignments.append(assignment)
            answers.append(_answer(self._script(assignment)))
        return answers


def _answer(said: Said) -> Answer:
    if not isinstance(said, str):
        return said
    if not said.strip():
        return Refusal(reason="empty", message="the script says nothing")
    return Completion(text=said, finish="stop")
