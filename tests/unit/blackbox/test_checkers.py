"""What counts as an answer, and as a right one."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.blackbox import CHECKERS, Choice, Item, read_items
from limbeck.blackbox.numbers import numbers_in, read_number, same_number
from limbeck.errors import DataError, UnknownName

DATA = Path(__file__).parents[4] / "shared" / "data"
OPTIONS = tuple(
    Choice(label=label, text=text) for label, text in zip("ABC", ("ice", "ice cream", "a race track"), strict=True)
)


def item(gold: str, kind: str = "numeric", choices: tuple[Choice, ...] = ()) -> Item:
    return Item(id="1", question="?", gold=gold, kind=kind, choices=choices)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,234,567 and 1.5", ["1234567", "3/2"]),
        ("$-3 or -$3 or −3", ["-3", "-3", "-3"]),
        ("3/4 of 2 1/2", ["3/4", "5/2"]),
        ("50% off .5", ["50", "1/2"]),
        ("10 - 4 = 6", ["10", "4", "6"]),
        ("48/2=24", ["24", "24"]),
        ("3-5 days, $4.", ["3", "5", "4"]),
        ("1,2,3 and 12,34", ["1", "2", "3", "12", "34"]),
        ("1,2345", ["1", "2345"]),
        ("5kg, x=6, (7), a8, 9b", ["5", "6", "7", "9"]),
        ("on 12/05/2024", []),
        ("version 1.2.3", []),
        ("1e5", []),
        ("1/0", []),
        (r"\frac{3}{4}, \dfrac12 and -\frac{1}{2}", ["3/4", "1/2", "-1/2"]),
        (r"2\frac{1}{2} \text{ tons}", ["5/2"]),
        ("1{,}234 and 1\\,234 and 1\u2009234", ["1234", "1234", "1234"]),
        (r"\$5 or 20\%", ["5", "20"]),
        ("1'234'567 and 1’234.5 and 10_000, 5'10", ["1234567", "2469/2", "10000", "5", "10"]),
        ("2^3, 10^{-4}, 1,234^2", []),
        ("x^2 = 4 and x_{1} = 3", ["4", "3"]),
        (r"3 \times 10^5 or 2*10^3 or 6.02 x 10^23", []),
        (r"\sqrt{2} + 2\sqrt{3} + \sqrt[3]{8} + √2", []),
        (r"3\pi, 3π and 3 pi", []),
        ("3 pipes", ["3"]),
        ("12:30 or 3:4", []),
        ("a ratio: 3", ["3"]),
        ("$15/hour", ["15"]),
        ("1e-7", []),
        ("**42**", ["42"]),
        ("no digits", []),
    ],
)
def test_numbers_as_people_write_them(text: str, values: list[str]) -> None:
    assert [str(value) for value in numbers_in(text)] == values


@given(value=st.integers(-(10**9), 10**9))
def test_any_integer_is_read_back(value: int) -> None:
    assert read_number(f"{value:,}") == value
    assert read_number(f"{value}") == value
    assert CHECKERS["numeric"](f"so the answer is ${value:,}.", item(str(value))).strict


@given(top=st.integers(-500, 500), bottom=st.integers(1, 500))
def test_any_decimal_is_read_near_enough(top: int, bottom: int) -> None:
    said = read_number(f"{top / bottom:.9f}")
    assert said is not None
    assert same_number(said, Fraction(top, bottom)) or abs(top / bottom) < 1e-3


@pytest.mark.parametrize(
    ("text", "mode", "correct"),
    [
        ("5 + 3 = 8\n#### 8", "marker", True),
        ("#### 7\nNo: #### 8", "marker", True),
        ("it is \\boxed{\\text{about } 8} ok 9", "boxed", True),
        ("\\boxed{8} then \\boxed{9}", "boxed", False),
        ("\\boxed{8", "fallback", True),
        ("The answer is 9. No, the answer is: $8.00, since 4 x 2.", "phrase", True),
        ("Answer: eight", "none", False),
        ("first 9 then 8", "fallback", True),
        ("#### none, but 8", "marker", True),
        ("#### none\\boxed{8}", "marker", True),
        ("", "none", False),
        ("The answer is 2*4=8", "phrase", True),
        ("#### 7 + 1 = 8", "marker", True),
        ("#### 8 (7 + 1 = 8)", "marker", True),
        ("#### x = 8, as 9 = 9", "marker", True),
        ("#### 8 + 1", "fallback", False),
        ("\\boxed{8 \\times 2}", "fallback", False),
        ("\\boxed{8, 9}", "fallback", False),
        ("#### - 8", "marker", False),
        ("The answer is minus 8.", "phrase", False),
        ("The answer is not 8 but 9", "fallback", False),
        ("####\n- 8 apples", "marker", True),
        ("#### 8 000", "marker", False),
        ("#### 8^2", "none", False),
        ("#### Step 1: 3 and 5\nSo \\boxed{8}", "boxed", True),
        ("#### 8\n#### Check: 3", "marker", False),
        ("#### **8**", "marker", True),
        ("The answer is 8!", "phrase", True),
        ("#### 16/2", "marker", True),
        ("#### $\\frac{16}{2}$", "marker", True),
    ],
)
def test_where_a_number_is_read(text: str, mode: str, correct: bool) -> None:
    verdict = CHECKERS["numeric"](text, item("8"))
    assert (verdict.mode, verdict.correct) == (mode, correct)
    assert verdict.strict == (correct and mode != "fallback")


@pytest.mark.parametrize(
    ("text", "extracted", "mode"),
    [
        ("The answer is (B).", "B", "phrase"),
        ("The answer is B, since A melts.", "B", "phrase"),
        ("#### C", "C", "marker"),
        ("Answer: A race track", "C", "phrase"),
        ("Answer: A since it melts", "A", "phrase"),
        ("Answer: A.", "A", "phrase"),
        ("The answer is B, not (A).", "B", "phrase"),
        ("The answer is (B) because (A) is wrong", "B", "phrase"),
        ("The answer is B because a race track is long", "B", "phrase"),
        ("So \\boxed{\\text{B}}", "B", "boxed"),
        ("So \\boxed{\\mathrm{(B)}}", "B", "boxed"),
        ("The answer is option B.", "B", "phrase"),
        ("The correct answer is choice (B)", "B", "phrase"),
        ("**Answer:** B", "B", "phrase"),
        ("The answer is not (B).", "", "none"),
        ("The answer is not ice cream.", "", "none"),
        ("The answer is not (A) but (B).", "B", "phrase"),
        ("#### b", "B", "marker"),
        ("#### (b)", "B", "marker"),
        ("#### b or c", "", "none"),
        ("Answer: A or B", "", "none"),
        ("Answer: Bananas", "", "none"),
        ("Answer: a race track", "C", "phrase"),
        ("Answer: ice cream", "B", "phrase"),
        ("Answer: ice", "A", "phrase"),
        ("I like (A) and (A).", "A", "fallback"),
        ("(A) or (B)", "", "none"),
        ("A cat sat.", "", "none"),
        ("Answer: D", "", "none"),
    ],
)
def test_which_label_is_read(text: str, extracted: str, mode: str) -> None:
    verdict = CHECKERS["choice"](text, item("B", "choice", OPTIONS))
    assert (verdict.extracted, verdict.mode) == (extracted, mode)
    assert verdict.correct == (extracted == "B")


@pytest.mark.parametrize(
    ("text", "extracted"),
    [
        ("Yes. Though no one knows.", "yes"),
        ("It depends. Yes.", ""),
        ("Cows fly? The answer is no.", "no"),
        ("Answer: True or false", ""),
        ("#### yes", "yes"),
        ("nobody knows", ""),
        ("The answer is not true", "no"),
        ("Answer: it isn't false", "yes"),
        ("No, it is not true.", "no"),
        ("#### Yes, no doubt", "yes"),
        ("Yes, but no", ""),
        ("\\boxed{\\text{No}}", "no"),
    ],
)
def test_yes_or_no(text: str, extracted: str) -> None:
    assert CHECKERS["boolean"](text, item("yes", "boolean")).extracted == extracted


def test_exact() -> None:
    check = CHECKERS["exact"]
    assert check('The answer is "Ab  C".', item("ab c", "exact")).strict
    assert check("ab c\nbecause", item("ab c", "exact")).correct
    assert not check("", item("ab", "exact")).correct
    for said in ("#### **nk**", "#### `nk`.", "**Answer:** nk", "**Answer: nk**", "\\boxed{\\text{nk}}", "#### __NK__"):
        assert check(said, item("nk", "exact")).strict, said
    assert not check("#### a*", item("a", "exact")).correct
    assert check("#### *a*", item("*a*", "exact")).strict
    assert check("#### cafe\u0301", item("café", "exact")).strict


def test_a_gold_answer_that_cannot_be_checked_is_an_error() -> None:
    with pytest.raises(DataError, match="the gold answer 'many' is no number"):
        CHECKERS["numeric"]("3", item("many"))
    with pytest.raises(UnknownName):
        CHECKERS["number"]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_kinds_follow_from_the_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl",
        {"question": "1+1?", "answer": 2, "equation": "1 + 1"},
        {"question": "Is it?", "answer": "True", "id": "t"},
        {"question": "Where?", "answer": "B", "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}]},
        {"question": "Say", "answer": "hello", "rationale": "as asked"},
    )
    items = read_items(path)
    assert [each.kind for each in items] == ["numeric", "boolean", "choice", "exact"]
    assert [each.id for each in items] == ["1", "t", "3", "4"]
    assert (items[0].expression, items[1].gold, items[3].rationale) == ("1 + 1", "yes", "as asked")
    assert items[2].source.endswith("q.jsonl line 3")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("42", "numeric"), ("-3.5", "numeric"), ("$1,000.00", "numeric"), ("50%", "numeric"), ("5kg", "numeric"),
        ("12 apples", "numeric"), ("60 km/h", "numeric"), ("20 °C", "numeric"), ("1/2", "numeric"),
        ("2 1/2", "numeric"), (r"\frac{3}{4}", "numeric"), (1e-7, "numeric"), (1e20, "numeric"), (-0.5, "numeric"),
        (r"\sqrt{2}", "exact"), (r"3\pi", "exact"), ("x^2", "exact"), ("3x", "exact"), ("5!", "exact"),
        ("Apollo 11", "exact"), ("World War 2", "exact"), ("-3i", "exact"), ("2:30", "exact"), ("(3,4)", "exact"),
        ("3 < x", "exact"), ("log_2(8)", "exact"), ("3 out of 4", "exact"), ("H2O", "exact"), ("yes", "boolean"),
    ],
)  # fmt: skip
def test_only_what_is_a_number_is_checked_as_one(answer: object, kind: str, tmp_path: Path) -> None:
    found = read_items(write(tmp_path / "q.jsonl", {"question": "?", "answer": answer}))[0]
    assert found.kind == kind
    if kind == "numeric":
        assert CHECKERS[kind](f"#### {found.gold}", found).strict
        assert not CHECKERS[kind]("#### 77", found).correct


def test_a_row_may_name_the_kind_that_its_answer_does_not_look_like(tmp_path: Path) -> None:
    rows = [{"question": "?", "answer": "Apollo 11", "kind": "numeric"}, {"question": "?", "answer": "1", "kind": None}]
    assert [each.kind for each in read_items(write(tmp_path / "q.jsonl", *rows))] == ["numeric", "numeric"]


def test_questions_are_read_as_other_rows_are(tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": 1, "id": None}, {"question": "b", "answer": 2, "id": None}]
    plain = "".join(json.dumps(row) + "\r\n" for row in rows).encode()
    (tmp_path / "mark.jsonl").write_bytes(b"\xef\xbb\xbf" + plain)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "list.json").write_text(json.dumps(rows))
    for name in ("mark.jsonl", "packed.jsonl.gz", "list.json"):
        assert [(each.id, each.gold) for each in read_items(tmp_path / name)] == [("1", "1"), ("2", "2")]


def test_questions_that_are_no_utf8_or_hold_half_a_character_are_named_by_their_line(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "a", "answer": 1}\n{"question": "caf\xe9", "answer": 1}\n')
    with pytest.raises(DataError, match=r"not UTF-8(?s:.*)latin\.jsonl line 2"):
        read_items(tmp_path / "latin.jsonl")
    (tmp_path / "half.jsonl").write_text('{"question": "a \\ud83d", "answer": 1}\n')
    with pytest.raises(DataError, match=r"half\.jsonl line 1: 'question' holds half of a surrogate pair"):
        read_items(tmp_path / "half.jsonl")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{broken", "broken JSON: .*(?s:.*)q.jsonl line 2"),
        ("[1]", "line 2 is list"),
        ({"question": "a"}, "line 2: 'answer' is None"),
        ({"question": " ", "answer": "1"}, "line 2: 'question' is ' '"),
        ({"question": "a", "answer": "1", "id": "first"}, "id 'first' stands in line 1 already"),
        ({"question": "a", "answer": "C", "choices": [{"label": "A", "text": "x"}]}, "none of the labels A"),
        ({"question": "a", "answer": "A", "choices": [{"label": "A"}]}, "no object with label and text"),
        ({"question": "a", "answer": "A", "choices": "AB"}, "a list of objects"),
        ({"question": "a", "answer": "1 + 1 = 2.\n#### 2"}, r"line 2: the answer has several lines[\s\S]*'rationale'"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(row: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {"question": "a", "answer": "1", "id": "first"}, row)
    with pytest.raises(DataError, match=message):
        read_items(path)


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file of questions"):
        read_items(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no question"):
        read_items(write(tmp_path / "empty.jsonl", ""))


SETS = {
    "gsm8k": ("numeric", 7_473),
    "svamp": ("numeric", 700),
    "strategyqa": ("boolean", 2_060),
    "commonsenseqa": ("choice", 9_741),
    "arc_easy": ("choice", 2_248),
}


@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not here")
@pytest.mark.parametrize("name", SETS)
def test_real_sets_are_read_and_their_gold_answers_are_right(name: str) -> None:
    kind, count = SETS[name]
    items = read_items(DATA / name / "train.jsonl")
    assert len(items) == count
    assert {each.kind for each in items} == {kind}
    for each in items:
        assert CHECKERS[each.kind](f"Because.\n#### {each.gold}", each).strict
        said = f"({each.gold})" if each.kind == "choice" else each.gold
        assert CHECKERS[each.kind](f"So the answer is {said}.", each).strict
