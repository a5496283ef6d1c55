"""The loop's rules one by one: stopping, hygiene, acceptance, mixing, feedback, splits. No model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.blackbox.acquiring import acquire
from limbeck.blackbox.asking import Answer, Completion, Refusal
from limbeck.blackbox.feedback import (
    Feedback,
    assignments,
    attempts_by_item,
    choose_probe,
    remembered,
    saturation,
    shuffled,
)
from limbeck.blackbox.hygiene import refused
from limbeck.blackbox.items import Item
from limbeck.blackbox.judging import judged
from limbeck.blackbox.mixing import capped, current, own_traces, training_rows
from limbeck.blackbox.presets import Preset
from limbeck.blackbox.sections import MethodSection, StopSection, TaskSection
from limbeck.blackbox.splits import Splits, make_splits, text_of, without_long
from limbeck.blackbox.stopping import RoundScores, decide, paired
from limbeck.blackbox.students import steps_for
from limbeck.blackbox.writing import Assignment, Attempt, Example
from limbeck.errors import DataError
from limbeck.seeds import Seeds


def item(name: str = "1", question: str = "What is 6 times 7?", gold: str = "42", **rest: Any) -> Item:
    return Item(id=name, question=question, gold=gold, kind=rest.pop("kind", "numeric"), **rest)


def scores(right: str, *, accepted: float | None = 1.0, **ood: str) -> RoundScores:
    def of(text: str) -> dict[str, float]:
        return {str(place): float(letter) for place, letter in enumerate(text)}

    return RoundScores(stop=of(right), ood={name: of(text) for name, text in ood.items()}, accepted=accepted)


class TestStopping:
    def test_the_best_round_is_given_back_not_the_last(self) -> None:
        rounds = [scores("0000000000"), scores("1111111100"), scores("1111110000")]
        found = decide(rounds, stop=StopSection(), most=5)
        assert (found.goes_on, found.best) == (False, 1)
        assert found.reason == "no gain of 0.5 points or one standard error in 1 round"

    def test_of_equals_the_earliest(self) -> None:
        assert decide([scores("0110"), scores("1010"), scores("0011")], stop=StopSection(patience=9), most=9).best == 0

    def test_it_goes_on_while_it_gains(self) -> None:
        rising = [scores("0" * (20 - count) + "1" * count) for count in (0, 8, 16)]
        assert decide(rising, stop=StopSection(), most=5) == decide(rising, stop=StopSection(patience=2), most=9)
        assert decide(rising, stop=StopSection(), most=5).goes_on
        assert decide(rising, stop=StopSection(), most=2).reason == "all 2 rounds are done"

    def test_a_gain_within_the_noise_is_none(self) -> None:
        # +3 −2 of 100: a gain of one point, of a standard error of √(5/99 − …) ≈ 2.2 points.
        then = "0" * 3 + "1" * 2 + "0" * 95
        now = "1" * 3 + "0" * 2 + "0" * 95
        gain, error = paired(scores(now).stop, scores(then).stop)
        assert gain == pytest.approx(0.01)
        assert error == pytest.approx(math.sqrt((5 / 100 - 0.01**2) * 100 / 99 / 100))
        found = decide([scores(then), scores(now)], stop=StopSection(), most=5)
        assert (found.goes_on, found.best) == (False, 1)

    def test_patience(self) -> None:
        flat = [scores("01")] * 3
        assert decide(flat[:2], stop=StopSection(patience=2), most=5).goes_on
        assert decide(flat, stop=StopSection(patience=2), most=5).reason.endswith("in 2 rounds")

    def test_few_accepted_rationales_end_it(self) -> None:
        found = decide([scores("00"), scores("11", accepted=0.19)], stop=StopSection(), most=5)
        assert found.reason == "only 19% of the rationales were accepted, less than 20%"
        assert decide([scores("00"), scores("11", accepted=0.2)], stop=StopSection(), most=5).goes_on

    def test_a_loss_elsewhere_ends_it(self) -> None:
        start = scores("0000", history="1" * 20)
        worse = scores("1111", history="0" * 10 + "1" * 10)
        assert decide([start, worse], stop=StopSection(), most=5).reason == "history lost more than 2 standard errors"
        slightly = scores("1111", history="0" + "1" * 19)
        assert decide([start, slightly], stop=StopSection(), most=5).goes_on

    def test_no_round_is_asked_for(self) -> None:
        assert decide([scores("1")], stop=StopSection(), most=0).reason == "no round is asked for"


class TestHygiene:
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("6 * 7 = 42.\n#### 42", ""),
            ("First 6 * 7: six sevens are 42.\n#### 42", ""),
            ("The student forgot to multiply. 6 * 7 = 42.\n#### 42", "aside"),
            ("Your previous answer was wrong. 6 * 7 = 42.\n#### 42", "aside"),
            ("Unlike the earlier attempt, 6 * 7 = 42.\n#### 42", "aside"),
            ("With a score of 0 so far, 6 * 7 = 42.\n#### 42", "aside"),
            ("Following the hint, 6 * 7 = 42.\n#### 42", "aside"),
            ("As an AI, I know that 6 * 7 = 42.\n#### 42", "aside"),
            ("#### 42\nThis is because 6 times 7 makes 42.", "answer_first"),
            ("The answer is 42, since six times seven is that.", "answer_first"),
            ("#### 42", ""),
            ("<think>Six sevens, 42 then.\n#### 42", "thinking"),
            ("6 * 7 = 42. <THINK>Really?</THINK>\n#### 42", "thinking"),
            ("6 * 7 =\0 42.\n#### 42", "control"),
        ],
    )
    def test_what_is_refused(self, text: str, why: str) -> None:
        assert refused(item(), text) == why

    def test_words_of_the_question_are_allowed(self) -> None:
        about = item(question="The student has a score of 6. Seven times that?")
        assert refused(about, "The student has 6, 7 times that is 42.\n#### 42") == ""

    def test_a_copied_solution(self) -> None:
        gold = "First take six then add six again and again until there are seven of them"
        asked = item(rationale=gold)
        assert refused(asked, gold + " #### 42", hint="solution") == "copied"
        assert refused(asked, gold + " #### 42", hint="answer") == ""
        assert refused(asked, "Seven sixes are forty-two, as five of them are thirty. #### 42", hint="solution") == ""


class Letters:
    def length(self, item: Item, text: str) -> int | None:
        return len(text) if len(text) <= 60 else None


class Script:
    """Says the scripted answers of each question one after another; keeps what it was asked."""

    name = "script"

    def __init__(self, **answers: Sequence[str | Answer]) -> None:
        self._answers = {key: list(value) for key, value in answers.items()}
        self.asked: list[Assignment] = []

    def write(self, assignments: Sequence[Assignment]) -> list[Answer]:
        self.asked += assignments
        given = [self._answers[each.item.id].pop(0) for each in assignments]
        return [Completion(text=one, finish="stop") if isinstance(one, str) else one for one in given]


GOOD = "6 * 7 = 42\n#### 42"


class TestAcquiring:
    def acquire(self, teacher: Script, *items: Item, **method: Any) -> Any:
        longest = method.pop("longest", None)
        wanted = [Assignment(item=each) for each in items]
        return acquire(teacher, wanted, method=MethodSection(**method), measures=Letters(), longest=longest)

    def test_wrong_ones_are_asked_for_again(self) -> None:
        teacher = Script(a=["#### 41", "no idea", GOOD], b=[GOOD])
        found = self.acquire(teacher, item("a"), item("b"))
        assert {id: row["sample"] for id, row in found.accepted.items()} == {"a": 2, "b": 0}
        assert found.reasons() == {"wrong": 2}
        assert found.asked == 4
        assert [each.sample for each in teacher.asked] == [0, 0, 1, 2]

    def test_given_up_after_the_retries(self) -> None:
        found = self.acquire(Script(a=["#### 41"] * 3), item("a"))
        assert not found.accepted
        assert found.asked == 3

    def test_the_hints_follow_the_retries(self) -> None:
        bare = item("b")
        teacher = Script(a=["#### 1"] * 3 + [GOOD], b=["#### 1"] * 2)
        found = self.acquire(teacher, item("a", rationale="six sevens"), bare, retries=0, hints="answer+solution")
        assert [(each.item.id, each.hint) for each in teacher.asked] == [
            ("a", "none"),
            ("b", "none"),
            ("a", "answer"),
            ("b", "answer"),
            ("a", "solution"),
        ]
        assert not found.accepted

    def test_gold_on_retry(self) -> None:
        teacher = Script(a=["#### 1", GOOD])
        found = self.acquire(teacher, item("a"), gold_visible="on_retry")
        assert (found.accepted["a"]["hint"], teacher.asked[0].hint) == ("answer", "none")

    def test_an_empty_answer_is_asked_for_once_more_and_an_impossible_one_not(self) -> None:
        empty, long = Refusal(reason="empty", message=""), Refusal(reason="context", message="")
        teacher = Script(a=[empty, empty, GOOD], b=[long, GOOD])
        found = self.acquire(teacher, item("a"), item("b"), retries=5)
        assert not found.accepted
        assert [each.item.id for each in teacher.asked] == ["a", "b", "a"]
        assert found.reasons() == {"context": 1, "empty": 2}

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (Completion(text=GOOD, finish="length"), "truncated"),
            (Completion(text=GOOD, finish="abort"), "truncated"),
            (Completion(text="it is 42", finish="stop"), "no_final"),
            (Completion(text=f"<think>so {GOOD}", finish="stop"), "thinking"),
            (Completion(text=f"<think>so {GOOD}</think>\n", finish="stop"), "empty"),
            (Completion(text=f"<think>so {GOOD}</think>\n6 * 7 = 41\n#### 41", finish="stop"), "wrong"),
            (Completion(text=f"\0{GOOD}", finish="stop"), "control"),
            (Completion(text="x " * 40 + "\n#### 42", finish="stop"), "too_long"),
            (Completion(text="six sevens, that is 42\n#### 42", finish="stop"), "longer_than_before"),
            (Completion(text="The student errs: 42\n#### 42", finish="stop"), "aside"),
            (Completion(text="  ", finish="stop"), "empty"),
        ],
    )
    def test_reasons(self, answer: Completion, reason: str) -> None:
        found = self.acquire(Script(a=[answer]), item("a"), retries=0, longest=20.0)
        assert found.reasons() == {reason: 1}

    @pytest.mark.parametrize("thoughts", ["<think>\nThe student errs.\n</think>\n\n", "The hint.\n</think>\n"])
    def test_thoughts_before_the_answer_are_not_learned(self, thoughts: str) -> None:
        found = self.acquire(Script(a=[thoughts + GOOD]), item("a"), retries=0, longest=float(len(GOOD)))
        assert found.accepted["a"]["text"] == GOOD

    def test_the_shortest_of_several(self) -> None:
        teacher = Script(a=["six sevens = 42\n#### 42", GOOD, "#### 41"])
        found = self.acquire(teacher, item("a"), candidates=3, candidate="shortest_correct")
        assert found.accepted["a"]["text"] == GOOD
        assert found.asked == 3

    def test_the_likeliest_of_several_is_asked_of_the_student_once_for_all_questions(self) -> None:
        other, asked = "42 = 6 * 7\n#### 42", []

        def unlikeliness(rows: Sequence[Any]) -> dict[str, float]:
            asked.append([(row["item_id"], row["text"]) for row in rows])
            return {row["id"]: 0.5 if row["text"] == other else 1.5 for row in rows}

        teacher = Script(a=[GOOD, other, "#### 41"], b=[GOOD, "#### 41", "#### 41"], c=["#### 1"] * 3)
        method = MethodSection(candidates=3, candidate="student_likelihood", retries=0)
        wanted = [Assignment(item=item(name)) for name in "abc"]
        found = acquire(teacher, wanted, method=method, measures=Letters(), unlikeliness=unlikeliness)
        assert {id: (row["text"], row.get("nll")) for id, row in found.accepted.items()} == {
            "a": (other, 0.5),
            "b": (GOOD, None),
        }
        assert asked == [[("a", GOOD), ("a", other)]]
        again = Script(a=[GOOD, other, other])
        found = acquire(again, wanted[:1], method=method, measures=Letters())
        assert found.accepted["a"]["text"] == GOOD


def rationale(id: str, text: str, number: int = 0) -> dict[str, Any]:
    return {"id": f"{id}{text}", "item_id": id, "text": text, "num_tokens": len(text), "round": number}


class TestMixing:
    versions = ({"a": rationale("a", "a0"), "b": rationale("b", "b0")}, {"a": rationale("a", "a1", 1)})

    def texts(self, arm: Preset, solved: Sequence[frozenset[str]] = ()) -> list[tuple[str, str]]:
        return [(str(row["text"]), kind) for row, kind in current(arm, versions=self.versions, solved=solved)]

    def test_policies(self) -> None:
        assert self.texts(Preset(carry="none")) == [("a1", "new")]
        assert self.texts(Preset()) == [("a1", "new"), ("b0", "carried")]
        assert self.texts(Preset(policy="accumulate")) == [("a0", "earlier"), ("a1", "new"), ("b0", "earlier")]

    def test_the_best_version_is_the_last_after_which_it_was_solved(self) -> None:
        best = Preset(policy="best_version")
        assert self.texts(best, [frozenset("a")]) == [("a0", "earlier"), ("b0", "earlier")]
        assert self.texts(best, [frozenset()]) == [("a1", "new"), ("b0", "earlier")]
        assert self.texts(best, [frozenset("a"), frozenset("a")]) == [("a1", "new"), ("b0", "earlier")]

    def test_own_traces_are_right_clean_and_one_a_question(self) -> None:
        def row(id: str, text: str, draw: int = 0, **rest: Any) -> dict[str, Any]:
            base = {"id": f"{id}{draw}", "item_id": id, "draw": draw, "text": text, "round": 0}
            return base | {"strict": True, "finish": "stop"} | rest

        rows = [
            row("a", GOOD, 1),
            row("a", "first " + GOOD),
            row("b", GOOD, finish="length"),
            row("c", GOOD, strict=False),
            row("d", "The student says\n#### 42"),
        ]
        found = own_traces(rows, {name: item(name) for name in "abcd"}, measures=Letters())
        assert [(each["item_id"], each["text"]) for each in found] == [("a", "first " + GOOD)]

    @given(traces=st.integers(0, 30), teachers=st.integers(0, 30), share=st.floats(0, 0.99), seed=st.integers(0, 5))
    def test_the_cap_holds(self, traces: int, teachers: int, share: float, seed: int) -> None:
        rows = [{"id": str(place)} for place in range(traces)]
        kept = capped(rows, teachers=teachers, share=share, seeds=Seeds(seed))
        assert len(kept) <= share * (len(kept) + teachers) + 1e-6
        assert kept == capped(rows, teachers=teachers, share=share, seeds=Seeds(seed))
        assert len({row["id"] for row in kept}) == len(kept)

    def test_equal_pairs_are_one_row(self) -> None:
        items = {"a": item("a")}
        found = training_rows(
            [(rationale("a", GOOD), "new")], [rationale("a", GOOD), rationale("a", "x")], items, prompt_tokens={"a": 5}
        )
        assert [(row["completion"], row["kind"]) for row in found] == [(GOOD, "new"), ("x", "student")]

    @given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20), steps=st.integers(1, 40))
    def test_steps_come_nearest_to_the_tokens(self, lengths: list[int], steps: int) -> None:
        rows = [{"prompt_tokens": 1, "num_tokens": each} for each in lengths]
        a_step = 4 * (1 + sum(lengths) / len(lengths))
        assert steps_for(rows, tokens=steps * a_step, batch_rows=4) == steps


class TestFeedback:
    attempts: ClassVar[dict[str, tuple[Attempt, ...]]] = {
        name: (Attempt(item_id=name, round=0, text=f"said {name}", finish="stop", is_right=False),) for name in "abcde"
    }

    @given(seed=st.integers(0, 50), names=st.sets(st.sampled_from("abcde"), min_size=2))
    def test_nobody_keeps_its_own(self, seed: int, names: set[str]) -> None:
        given_ = {name: self.attempts[name] for name in names}
        mixed = shuffled(given_, seeds=Seeds(seed))
        assert all(mixed[name][0].text != f"said {name}" for name in names)
        assert all(mixed[name][0].item_id == name for name in names)
        assert sorted(each[0].text for each in mixed.values()) == sorted(f"said {name}" for name in names)

    def test_a_lone_question_gets_nothing(self) -> None:
        assert shuffled({"a": self.attempts["a"]}, seeds=Seeds(0)) == {"a": ()}

    def test_the_window_keeps_the_newest(self) -> None:
        history = [
            Attempt(item_id="a", round=number, text="x" * 40, finish="stop", is_right=False) for number in range(5)
        ]
        window = MethodSection(history="window", history_tokens=25)
        assert [each.round for each in remembered(history, window)] == [3, 4]
        assert [each.round for each in remembered(history, MethodSection(history="last"))] == [4]
        assert len(remembered(history, MethodSection(history="all"))) == 5
        assert remembered([], window) == ()

    def test_attempts_are_cut_and_only_the_first_draw_is_shown(self) -> None:
        row = {"item_id": "a", "round": 0, "text": "x" * 5000, "finish": "length", "correct": False, "error": "e"}
        found = attempts_by_item(
            [[{**row, "draw": 0}, {**row, "draw": 1, "text": "y"}], [{**row, "draw": 0, "round": 1}]]
        )
        assert [(each.round, len(each.text)) for each in found["a"]] == [(0, 1024), (1, 1024)]

    @pytest.mark.parametrize(
        ("shown", "own", "common"),
        [
            ("validation", False, True),
            ("instance", True, True),
            ("validation+instance", True, True),
            ("hybrid", True, True),
            ("none", False, False),
        ],
    )
    def test_what_an_assignment_shows(self, shown: Any, own: bool, common: bool) -> None:
        asked = assignments(
            [item("a")],
            round=1,
            shown=shown,
            previous={"a": "before"},
            attempts=self.attempts,
            feedback=Feedback(summary="it forgets"),
            method=MethodSection(),
        )[0]
        assert (bool(asked.attempts), bool(asked.summary), asked.previous) == (own, common, "before")

    def test_the_probe_of_a_round(self) -> None:
        items = [item(str(number)) for number in range(12)]
        errors = {each.id: "slip" if int(each.id) < 9 else "empty" for each in items}
        fixed = choose_probe(items, count=4, policy="fixed", errors={}, seeds=Seeds(0))
        assert [each.id for each in fixed] == ["0", "1", "2", "3"]
        drawn = [choose_probe(items, count=4, policy="resample", errors={}, seeds=Seeds(seed)) for seed in (0, 1)]
        assert drawn[0] != drawn[1]
        right = {each.id: "ok" for each in items} | {"7": "slip", "9": "empty"}
        for seed in range(20):
            redrawn = choose_probe(items, count=4, policy="resample", errors=right, seeds=Seeds(seed))
            assert {"7", "9"} & {each.id for each in redrawn}
            assert len({each.id for each in redrawn}) == 4
        even = choose_probe(items, count=4, policy="stratified_errors", errors=errors, seeds=Seeds(0))
        assert sorted(errors[each.id] for each in even) == ["empty", "empty", "slip", "slip"]

    def test_a_probe_that_is_all_right_or_all_wrong_is_told(self) -> None:
        def probe(*rounds: str) -> tuple[Example, ...]:
            tries = [
                [
                    Attempt(item_id="1", round=n, text="", finish="stop", is_right=letter == "1")
                    for n, letter in enumerate(one)
                ]
                for one in rounds
            ]
            return tuple(Example(item=item(), rationales=(), attempts=tuple(each)) for each in tries)

        assert [saturation(probe(*each)) for each in (["01", "11"], ["10", "00"], ["01", "10"], [""], [])] == [
            "right",
            "wrong",
            "",
            "",
            "",
        ]


class TestSplits:
    def write(self, path: Path, count: int, *, first: int = 0) -> str:
        rows = [{"question": f"How much is {n} plus 1?", "answer": n + 1} for n in range(first, first + count)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def test_parts_are_disjoint_and_depend_on_the_seed(self, tmp_path: Path) -> None:
        file = self.write(tmp_path / "a.jsonl", 100)
        task = TaskSection(file=file, probe=5, stop=10, test=20)
        splits = make_splits(task)
        assert {name: len(items) for name, items in splits.parts().items()} == {
            "train": 65,
            "probe": 5,
            "stop": 10,
            "test": 20,
        }
        texts = [text_of(each) for items in splits.parts().values() for each in items]
        assert len(set(texts)) == 100
        assert make_splits(task) == splits
        assert make_splits(TaskSection(file=file, probe=5, stop=10, test=20, seed=1)).probe != splits.probe
        assert make_splits(TaskSection(file=file, probe=5, probe_policy="resample", stop=10, test=20)).probe[:5]

    def test_what_stands_in_a_test_is_not_learned_from(self, tmp_path: Path) -> None:
        file, test = self.write(tmp_path / "a.jsonl", 60), self.write(tmp_path / "b.jsonl", 30, first=45)
        splits = make_splits(TaskSection(file=file, test_file=test, probe=5, stop=5))
        assert len(splits.train) == 45 - 10
        assert splits.notes == ("15 training questions stand in the data twice or in a test; left out",)
        found = splits.overlap()
        assert found["test"] == {"exact": 0, "numbers_masked": 30, "thirteen_words": 0}

    def test_too_few_questions(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"are too few for 20 of task\.probe"):
            make_splits(TaskSection(file=self.write(tmp_path / "a.jsonl", 20), stop=2))

    def test_a_mixture_is_refused_by_id_and_by_text(self) -> None:
        def splits(stop: Item) -> Splits:
            return Splits(train=(item("a"),), probe=(item("b", "1+1?"),), stop=(stop,), test=(item("d", "3?"),), ood={})

        splits(item("c", "2?")).check()
        with pytest.raises(DataError, match="the id of 'a' stands in train and in stop"):
            splits(item("a", "2?")).check()
        with pytest.raises(DataError, match="the question of 'c' stands in train and in stop"):
            splits(item("c", "what  is 6 times 7?")).check()

    def test_long_questions_are_left_out_and_counted(self, tmp_path: Path) -> None:
        splits = make_splits(TaskSection(file=self.write(tmp_path / "a.jsonl", 60), probe=5, stop=5, test=5))
        every = {each.id: True for items in splits.parts().values() for each in items}
        every[splits.train[0].id] = False
        kept = without_long(splits, every)
        assert len(kept.train) == len(splits.train) - 1
        assert kept.notes == ("1 questions are longer than student.max_prompt; left out",)
        with pytest.raises(DataError, match="no question of train fits"):
            without_long(splits, dict.fromkeys(every, False))


@pytest.mark.parametrize(
    ("text", "finish", "error"),
    [
        ("#### 42", "stop", ""),
        (" ", "stop", "empty"),
        ("so on and " * 12, "length", "repetition"),
        ("it goes on and", "length", "truncated"),
        ("no number at all", "stop", "no_final"),
    ],
)
def test_classes_of_errors_that_need_no_steps(text: str, finish: str, error: str) -> None:
    assert judged(item(), text, finish=finish)[1] == error
