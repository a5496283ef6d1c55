from __future__ import annotations

from limbeck.blackbox import Item
from limbeck.blackbox.asking import Completion, Refusal, Request, Teacher, Turn
from limbeck.blackbox.writing import Assignment, RationaleTeacher
from limbeck.testing import ScriptedTeacher, ScriptedWriter

ITEM = Item(id="1", question="6 * 7?", gold="42", kind="numeric")
CUT = Completion(text="6 * 7 =", finish="length")


def test_a_scripted_teacher_answers_in_order_and_remembers() -> None:
    said = {"a": "A", "b": CUT, "c": " "}
    teacher = ScriptedTeacher(lambda request: said[request.turns[0].content], name="mine")
    requests = [Request(turns=(Turn(role="user", content=each),), max_tokens=1) for each in "abc"]
    first, second, third = teacher.complete(requests)
    assert (first, second) == (Completion(text="A", finish="stop"), CUT)
    assert isinstance(third, Refusal)
    assert teacher.requests == requests
    assert isinstance(teacher, Teacher)
    assert teacher.name == "mine"


def test_a_scripted_writer_sees_whole_assignments() -> None:
    refusal = Refusal(reason="content_filter", message="no")
    writer = ScriptedWriter(lambda assignment: f"#### {assignment.item.gold}" if assignment.is_fresh else refusal)
    assignments = [Assignment(item=ITEM), Assignment(item=ITEM, round=1, previous="#### 42")]
    assert writer.write(assignments) == [Completion(text="#### 42", finish="stop"), refusal]
    assert writer.assignments == assignments
    assert isinstance(writer, RationaleTeacher)
