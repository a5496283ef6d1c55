"""Tables and verdicts from rows that were made by hand: what may be said, and what may not."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from limbeck.errors import ConfigError, DataError, UnknownName
from limbeck.reporting.reduce import Interval
from limbeck.reporting.tables import Number, Table
from limbeck.studies import paper
from limbeck.studies.measured import Measured
from limbeck.studies.printing import printed
from limbeck.studies.published import published_table
from limbeck.studies.rows import Ledger, LedgerArm, RunRows, rows_path, write_rows
from limbeck.studies.tables import distils, result_of, scores_table
from limbeck.studies.verdicts import Compared, Verdict

IDS = [f"e{i}" for i in range(40)]
Scores = Callable[[str, str, int], float]


def save_run(
    rows: Path, stem: str, value: Scores, *, start: str = "s0", corpora: Sequence[str] = ("a",), content: str = "c"
) -> None:
    """A run with two decoding seeds; `value` of corpus, id and seed."""
    lines = [
        {"measure": "answers", "corpus": corpus, "seed": seed, "id": id, "tokens": 5,
         "scores": {"rouge_l": value(corpus, id, seed), "distinct_2": 0.5}}
        for corpus in corpora for seed in (10, 20) for id in IDS
    ]  # fmt: skip
    lines += [
        {"measure": "references", "corpus": corpus, "seed": 10, "id": id, "tokens": 5, "structure": "prose",
         "scores": {"kl_teacher_student": 1.0 + value(corpus, id, 10)}}
        for corpus in corpora for id in IDS
    ]  # fmt: skip
    about = {"run": stem, "start": start, "corpora": {corpus: {"rows": 40, "content": content} for corpus in corpora}}
    write_rows(rows / f"{stem}.jsonl.gz", about=about, rows=lines)


def noisy(level: float, *, seed: int) -> Scores:
    """An even difficulty of each example, that all arms share, and an arm's own noise."""
    hard = {id: random.Random(id).uniform(0.0, 0.3) for id in IDS}
    return lambda corpus, id, decoding: (
        hard[id] + level + random.Random(f"{seed}{corpus}{id}{decoding}").uniform(-0.02, 0.02)
    )


def ledger(study: str, arms: Mapping[str, Mapping[str, str]], **fields: object) -> Ledger:
    made = tuple(LedgerArm(name=name, runs=dict(runs)) for name, runs in arms.items())
    return Ledger(**{"study": study, "title": study, "baseline": next(iter(arms)), "arms": made, **fields})  # type: ignore[arg-type]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """sft, a better and an equal arm, and three controls at the level of sft."""
    levels = {"sft": 0.30, "better": 0.35, "equal": 0.30, "c1": 0.30, "c2": 0.29, "c3": 0.30}
    arms: dict[str, dict[str, str]] = {}
    for number, (name, level) in enumerate(levels.items()):
        arms[name] = {}
        for seed in (0, 1):
            stem = f"{name}{seed}-x"
            save_run(tmp_path, stem, noisy(level, seed=10 * number + seed))
            arms[name][str(seed)] = stem
    ledger("mine", arms, controls=("c1", "c2", "c3")).write(tmp_path)
    return tmp_path


def cell(table: Table, arm: str, title: str) -> object:
    place = [column.title for column in table.columns].index(title)
    return next(row.cells[place] for row in table.rows if row.cells[0] == arm)


def test_means_and_differences_are_those_of_the_rows(rows: Path) -> None:
    table = scores_table(Measured.read(rows, "mine"))
    runs = [RunRows(rows / f"better{seed}-x.jsonl.gz") for seed in (0, 1)]
    values = [row["scores"]["rouge_l"] for run in runs for row in run.rows if row["measure"] == "answers"]
    found = cell(table, "better", "average")
    assert isinstance(found, Number)
    assert found.value == pytest.approx(100 * sum(values) / len(values), rel=1e-9)
    gap = cell(table, "better", "− sft")
    assert isinstance(gap, Number)
    assert gap.value == pytest.approx(5.0, abs=0.5)
    assert gap.low is not None
    assert gap.low > 0
    assert cell(table, "sft", "− sft") is None
    assert cell(table, "better", "seeds") == "0, 1"
    assert cell(table, "better", "rows") == "better0-x better1-x"


def test_only_what_beats_every_control_distils(rows: Path) -> None:
    measured = Measured.read(rows, "mine")
    assert [distils(measured, arm) for arm in ("better", "equal", "c1")] == ["yes", "not shown", None]


def test_controls_that_learned_from_other_data_show_nothing_of_an_arm(tmp_path: Path) -> None:
    for stem, level, corpus in (("dolly", 0.4, "dolly"), ("gsm8k", 0.5, "gsm8k"), ("control", 0.3, "dolly")):
        save_run(tmp_path, stem, noisy(level, seed=1))
        run = RunRows(tmp_path / f"{stem}.jsonl.gz")
        write_rows(run.path, about={**run.about, "recipe": {"data": {"corpus": corpus}}}, rows=run.rows)
    arms = {name: {"0": name} for name in ("dolly", "gsm8k", "control")}
    ledger("mine", arms, controls=("control",)).write(tmp_path)
    measured = Measured.read(tmp_path, "mine")
    assert (distils(measured, "dolly"), distils(measured, "gsm8k")) == ("yes", None)


def test_an_average_is_over_corpora_whatever_their_sizes(tmp_path: Path) -> None:
    for name, level in (("sft", 0.0), ("kd", 0.1)):
        lines = [
            {"measure": "answers", "corpus": corpus, "seed": 10, "id": f"{i}", "scores": {"rouge_l": level + value}}
            for corpus, count, value in (("big", 30, 0.2), ("small", 10, 0.6))
            for i in range(count)
        ]
        about = {"start": "s", "corpora": {corpus: {"rows": 1, "content": "c"} for corpus in ("big", "small")}}
        write_rows(tmp_path / f"{name}.jsonl.gz", about=about, rows=lines)
    ledger("mine", {"sft": {"0": "sft"}, "kd": {"0": "kd"}}).write(tmp_path)
    measured = Measured.read(tmp_path, "mine")
    found = cell(scores_table(measured), "sft", "average")
    assert isinstance(found, Number)
    assert found.value == pytest.approx(40.0)
    gap = measured.gap("kd", "sft")
    assert gap is not None
    assert gap.mean == pytest.approx(0.1)


def test_runs_of_other_starts_are_shown_and_never_compared(tmp_path: Path) -> None:
    save_run(tmp_path, "sft0", noisy(0.3, seed=1), start="one")
    save_run(tmp_path, "kd0", noisy(0.4, seed=2), start="two")
    save_run(tmp_path, "kd1", noisy(0.4, seed=3), start="one")
    ledger("mine", {"sft": {"0": "sft0"}, "kd": {"0": "kd0", "1": "kd1"}}).write(tmp_path)
    measured = Measured.read(tmp_path, "mine")
    assert measured.gap("kd", "sft") is None
    text = printed(tmp_path, "mine")
    assert "2 different starts (one, two)" in text
    table = scores_table(measured)
    assert cell(table, "kd", "− sft") is None
    assert isinstance(cell(table, "kd", "average"), Number)


def test_of_several_starts_each_run_stands_against_the_one_of_its_own(tmp_path: Path) -> None:
    # Within the starts kd gains 0.10 and loses 0.04; of "three" there is no sft. Across starts it would look worse.
    levels = {"one": (0.3, 0.4), "two": (0.6, 0.56)}
    for number, (start, (sft, kd)) in enumerate(levels.items()):
        save_run(tmp_path, f"sft-{start}", noisy(sft, seed=number), start=start)
        save_run(tmp_path, f"kd-{start}", noisy(kd, seed=10 + number), start=start)
    save_run(tmp_path, "kd-three", noisy(0.0, seed=20), start="three")
    arms = {"sft": {"0": "sft-one", "1": "sft-two"}, "kd": {"0": "kd-one", "1": "kd-two", "2": "kd-three"}}
    ledger("mine", arms).write(tmp_path)
    measured = Measured.read(tmp_path, "mine")
    for gap in (measured.gap("kd", "sft"), measured.group_gap(["kd"], ["sft"])):
        assert gap is not None
        assert gap.mean == pytest.approx((0.10 - 0.04) / 2, abs=0.005)


def test_a_table_of_arms_with_different_runs_says_that_its_means_are_not_comparable(tmp_path: Path) -> None:
    for seed in (0, 1):
        for arm in ("sft", "kd"):
            save_run(tmp_path, f"{arm}{seed}-x", noisy(0.3, seed=seed))
    arms = {"sft": {"0": "sft0-x", "1": "sft1-x"}, "kd": {"0": "kd0-x", "1": "kd1-x"}}
    told = "their means are not comparable with each other; the difference from sft is"
    ledger("mine", arms).write(tmp_path)
    assert told not in printed(tmp_path, "mine")
    ledger("mine", {**arms, "kd": {"1": "kd1-x"}}).write(tmp_path)
    assert told in " ".join(printed(tmp_path, "mine").split())


def test_arms_that_score_alike_on_every_prompt_tell_no_smallest_difference(tmp_path: Path) -> None:
    save_run(tmp_path, "sft0-x", noisy(0.3, seed=0))
    save_run(tmp_path, "kd0-x", noisy(0.3, seed=1))
    arms = {"sft": {"0": "sft0-x"}, "same": {"0": "sft0-x"}, "again": {"0": "sft0-x"}}
    told = "The smallest difference from sft that these rows show at 80 % power: "
    ledger("mine", arms).write(tmp_path)
    assert told not in printed(tmp_path, "mine")
    ledger("mine", {**arms, "kd": {"0": "kd0-x"}}).write(tmp_path)
    assert told in printed(tmp_path, "mine")
    assert told + "0.0" not in printed(tmp_path, "mine")


def test_any_arm_may_be_the_one_that_the_others_are_compared_with(tmp_path: Path) -> None:
    for number, (name, level) in enumerate({"sft": 0.3, "kd": 0.4, "gkd": 0.6}.items()):
        save_run(tmp_path, name, noisy(level, seed=number))
    ledger("table1", {name: {"0": name} for name in ("sft", "kd", "gkd")}).write(tmp_path)
    plain, other = (result_of(tmp_path, "table1", against=arm) for arm in ("", "kd"))
    assert other.verdicts == plain.verdicts
    (_, table), *_ = other.tables
    assert cell(table, "kd", "− kd") is None
    for arm, expected in (("sft", -10.0), ("gkd", 20.0)):
        found = cell(table, arm, "− kd")
        assert isinstance(found, Number)
        assert found.value == pytest.approx(expected, abs=1.5)
    assert "Difference from kd with" in printed(tmp_path, "table1", against="kd")
    with pytest.raises(UnknownName, match=r"no arm with rows is called 'kdd'\. Did you mean 'kd'"):
        printed(tmp_path, "table1", against="kdd")
    with pytest.raises(ConfigError, match="no arm that others are compared with"):
        printed(tmp_path, "injected-errors", against="kd")


def test_a_stage_is_compared_with_arms_of_any_start(tmp_path: Path) -> None:
    save_run(tmp_path, "teacher", noisy(0.5, seed=1), start="its own")
    save_run(tmp_path, "kd0", noisy(0.4, seed=2), start="one")
    ledger("mine", {"teacher": {"-": "teacher"}, "kd": {"0": "kd0"}}, baseline="kd").write(tmp_path)
    gap = Measured.read(tmp_path, "mine").gap("teacher", "kd")
    assert gap is not None
    assert gap.mean == pytest.approx(0.1, abs=0.01)


def test_rows_of_other_examples_under_one_name_are_refused(tmp_path: Path) -> None:
    save_run(tmp_path, "sft0", noisy(0.3, seed=1))
    save_run(tmp_path, "kd0", noisy(0.3, seed=2), content="other")
    ledger("mine", {"sft": {"0": "sft0"}, "kd": {"0": "kd0"}}).write(tmp_path)
    with pytest.raises(DataError, match="scored on different rows of a"):
        result_of(tmp_path, "mine")


def test_a_damaged_file_of_rows_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(b"no gzip")
    ledger("mine", {"sft": {"0": "x"}}).write(tmp_path)
    with pytest.raises(DataError, match="remove it, and its arm is run again"):
        result_of(tmp_path, "mine")


def test_without_rows_there_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows of the study table1"):
        printed(tmp_path, "table1")
    ledger("mine", {"sft": {"0": "nothing"}}).write(tmp_path)
    with pytest.raises(DataError, match="no arm of the study mine has rows"):
        printed(tmp_path, "mine")


def test_an_id_may_hold_line_breaks_that_json_leaves(tmp_path: Path) -> None:
    line = {"measure": "answers", "corpus": "c", "seed": 10, "id": "a\u2028b\x85", "scores": {"rouge_l": 0.5}}
    write_rows(tmp_path / "r.jsonl.gz", about={"start": "s"}, rows=[line])
    assert RunRows(tmp_path / "r.jsonl.gz").rows == [line]


def test_equal_rows_are_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_run(tmp_path, "x", noisy(0.3, seed=1))
        (tmp_path / "x.jsonl.gz").rename(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert rows_path(tmp_path, key="k", scoring="s").name == "k-s.jsonl.gz"


TABLE1 = ("teacher", "sft", "kd", "seqkd", "imitkd", "gkd", "minillm", "distillm", "mgsr")


def table1(folder: Path, levels: Mapping[str, float]) -> dict[int, str]:
    arms = {}
    for number, name in enumerate(TABLE1):
        seed = "-" if name == "teacher" else "0"
        save_run(folder, f"{name}-t", noisy(levels.get(name, 0.3), seed=number), start=seed)
        arms[name] = {seed: f"{name}-t"}
    ledger("table1", arms, baseline="sft").write(folder)
    return {verdict.number: verdict.judgement for verdict in result_of(folder, "table1").verdicts}


def test_the_claims_of_table_1_where_they_hold(tmp_path: Path) -> None:
    levels = {"mgsr": 0.60, "imitkd": 0.5, "gkd": 0.5, "minillm": 0.5, "distillm": 0.5, "teacher": 0.2}
    assert table1(tmp_path, levels) == {1: "holds", 6: "holds", 7: "holds", 8: "holds"}


def test_the_claims_of_table_1_where_they_do_not(tmp_path: Path) -> None:
    levels = {"mgsr": 0.30, "kd": 0.5, "seqkd": 0.5, "sft": 0.5, "teacher": 0.9}
    assert table1(tmp_path, levels) == {1: "does not", 6: "does not", 7: "does not", 8: "does not"}


def test_the_claims_of_table_1_where_nothing_can_be_told(tmp_path: Path) -> None:
    found = table1(tmp_path, {})
    assert found[1] == found[6] == found[7] == "cannot be told"
    assert found[8] == "does not"


def save_distances(
    folder: Path, name: str, *, seed: str, references: Scores, own: Scores, distinct_2: float = 0.95
) -> None:
    """A run of the study `methods`: both KLs, and distinct-2 of answers beside the references' 1."""
    values = [
        ("answers", "distinct_2", lambda *_: distinct_2),
        ("references", "kl_teacher_student", references),
        ("references", "distinct_2", lambda *_: 1.0),
        ("own", "kl_student_teacher", own),
    ]
    lines = [
        {"measure": measure, "corpus": "a", "seed": 10, "id": id, "tokens": 5, "scores": {score: value("a", id, 10)}}
        for measure, score, value in values
        for id in IDS
    ]
    about = {"run": name, "start": seed, "corpora": {"a": {"rows": 40, "content": "c"}}}
    write_rows(folder / f"{name}.jsonl.gz", about=about, rows=lines)


def test_nearer_to_the_teacher_is_two_standard_errors_in_one_of_two_distances(tmp_path: Path) -> None:
    students = ("sft", "kd", "seqkd", "imitkd", "gkd", "minillm", "distillm", "mgsr")
    arms = {"start": {"-": "start"}, **{name: {"0": name} for name in (*students, "control")}}
    far, near, one_side = noisy(1.0, seed=1), noisy(0.9, seed=2), noisy(1.1, seed=3)
    save_distances(tmp_path, "start", seed="-", references=far, own=far)
    for name in (*students, "control"):
        save_distances(tmp_path, name, seed="0", references=far, own=far)
    save_distances(tmp_path, "kd", seed="0", references=near, own=one_side)
    save_distances(tmp_path, "gkd", seed="0", references=one_side, own=one_side, distinct_2=0.7)
    ledger("methods", arms, baseline="start", controls=("control",)).write(tmp_path)
    found = {each.number: each for each in result_of(tmp_path, "methods").verdicts}
    assert [found[number].judgement for number in (1, 4)] == ["holds", "does not"]
    assert found[2].judgement == "cannot be told"
    assert found[8].judgement == "does not"
    assert found[8].deciding is not None
    assert found[8].deciding.what.startswith("gkd")
    nearer = found[1].deciding
    assert nearer is not None
    assert nearer.interval is not None
    gaps = [far("a", id, 10) - near("a", id, 10) for id in IDS]
    mean = sum(gaps) / len(gaps)
    error = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1) / len(gaps))
    assert math.isclose(nearer.interval.low, mean - 2 * error, abs_tol=1e-5)
    # A control that comes as near without the teacher leaves nothing to say of the teacher.
    save_distances(tmp_path, "control", seed="0", references=near, own=far)
    again = {each.number: each for each in result_of(tmp_path, "methods").verdicts}
    assert again[1].judgement == "cannot be told"


def test_a_claim_without_its_arms_cannot_be_told(tmp_path: Path) -> None:
    save_run(tmp_path, "mgsr0", noisy(0.9, seed=1))
    ledger("table2", {"mgsr": {"0": "mgsr0"}}).write(tmp_path)
    (verdict,) = result_of(tmp_path, "table2").verdicts
    assert verdict.judgement == "cannot be told"
    assert "no rows" in verdict.text()


def interval(low: float, high: float) -> Interval:
    return Interval(mean=(low + high) / 2, low=low, high=high, num_examples=9)


def test_all_or_any_of_its_comparisons_decide() -> None:
    good, bad, open_ = (Compared(what=str(i), interval=each) for i, each in enumerate(
        (interval(1.0, 2.0), interval(-2.0, -1.0), interval(-1.0, 2.0))))  # fmt: skip
    cases = [((good, good), "holds", "holds"), ((good, open_), "cannot be told", "holds"),
             ((good, bad, open_), "does not", "holds"), ((bad, open_), "does not", "cannot be told"),
             ((bad,), "does not", "does not")]  # fmt: skip
    for compared, every, some in cases:
        judged = [Verdict(number=0, claim="", compared=compared, needs=needs) for needs in ("all", "any")]  # type: ignore[arg-type]
        assert [each.judgement for each in judged] == [every, some]
    assert Verdict(number=0, claim="", compared=(good, bad, open_)).deciding is bad


def test_as_good_is_not_worse_by_the_margin(tmp_path: Path) -> None:
    for name, level in (("mgsr", 0.3), ("random", 0.3), ("heuristic", 0.2)):
        save_run(tmp_path, name, noisy(level, seed=len(name)))
    ledger("detectors", {name: {"0": name} for name in ("mgsr", "random", "heuristic")}).write(tmp_path)
    (verdict,) = result_of(tmp_path, "detectors").verdicts
    assert verdict.judgement == "holds"
    assert verdict.deciding is not None
    assert verdict.deciding.what == "random − mgsr"


def test_the_paper_averages_are_those_of_its_columns_but_for_one() -> None:
    wrong = [
        (pair, arm)
        for pair, arms in paper.TABLE1.items()
        for arm, printed_one in zip(arms, paper.TABLE1_PRINTED_AVERAGES[pair], strict=True)
        if abs(paper.average(pair, arm) - printed_one) > 2e-4
    ]
    assert wrong == [("OpenLLaMA2 7B → 3B", "mgsr")]
    assert "28.7513" in published_table().markdown()
    assert math.isclose(paper.average("OpenLLaMA2 7B → 3B", "mgsr"), 28.75128, abs_tol=1e-9)


def test_published_numbers_stand_beside_ours(tmp_path: Path) -> None:
    save_run(tmp_path, "mgsr0", noisy(0.3, seed=1))
    ledger("table3a", {"mgsr": {"0": "mgsr0"}}).write(tmp_path)
    text = printed(tmp_path, "table3a")
    assert "paper: Dolly validation" in text
    assert "31.26" in text
    assert "27.1486 elsewhere" in text


@pytest.mark.parametrize(
    ("unsure", "expected"),
    # Levels 1, 2, 3, 4, 5 of ROUGE-L: a line down; a line up with two neighbours exchanged (r = 1 − 6 · 2 / 120 = 0.9).
    [((5.0, 4.0, 3.0, 2.0, 1.0), -1.0), ((1.0, 3.0, 2.0, 4.0, 5.0), 0.9)],
)
def test_how_far_rouge_follows_sureness_is_told_over_arms_that_are_no_controls(
    tmp_path: Path, unsure: Sequence[float], expected: float
) -> None:
    arms = {f"arm{level}": (level / 100, each) for level, each in enumerate(unsure, start=1)}
    arms["control"] = (0.9, 100.0)
    for name, (level, each) in arms.items():
        lines = [
            {"measure": measure, "corpus": "a", "seed": 10, "id": id, "tokens": 5, "scores": {score: value}}
            for measure, score, value in (("answers", "rouge_l", level), ("own", "cross_entropy", each))
            for id in IDS
        ]
        about = {"start": "s", "corpora": {"a": {"rows": 40, "content": "c"}}}
        write_rows(tmp_path / f"{name}.jsonl.gz", about=about, rows=lines)
    ledger("mine", {name: {"0": name} for name in arms}, controls=("control",)).write(tmp_path)
    found = Measured.read(tmp_path, "mine").correlation(("own", "cross_entropy"), ("answers", "rouge_l"))
    assert found == (pytest.approx(expected), 5)
    assert f"over the 5 trained arms but the controls they correlate with {expected:.2f}" in printed(tmp_path, "mine")


def test_four_arms_tell_no_correlation(rows: Path) -> None:
    assert Measured.read(rows, "mine").correlation(("answers", "rouge_l"), ("answers", "distinct_2")) is None
    assert Measured.read(rows, "mine").correlation(
        ("answers", "rouge_l"), ("references", "kl_teacher_student"), least=2
    )


def test_one_example_has_a_mean_and_no_error_alone_and_in_an_average(tmp_path: Path) -> None:
    lines = [
        {"measure": "answers", "corpus": corpus, "seed": 10, "id": f"{i}", "scores": {"rouge_l": 0.1 * (i + 1)}}
        for corpus, count in (("many", 3), ("one", 1))
        for i in range(count)
    ]
    about = {"start": "s", "corpora": {corpus: {"rows": 1, "content": "c"} for corpus in ("many", "one")}}
    write_rows(tmp_path / "sft.jsonl.gz", about=about, rows=lines)
    ledger("mine", {"sft": {"0": "sft"}}).write(tmp_path)
    table = scores_table(Measured.read(tmp_path, "mine"))
    found = {title: cell(table, "sft", title) for title in ("many", "one", "average")}
    assert {title: number.error for title, number in found.items() if isinstance(number, Number)} == {
        "many": pytest.approx(10 / math.sqrt(3)),
        "one": None,
        "average": None,
    }


def test_spans_are_shown_by_the_structure_of_the_references(tmp_path: Path) -> None:
    save_run(tmp_path, "mgsr", lambda corpus, id, seed: 0.25)
    save_run(tmp_path, "none", lambda corpus, id, seed: 0.5)
    ledger("spans", {"mgsr": {"0": "mgsr"}, "none": {"0": "none"}}).write(tmp_path)
    _, (title, table) = result_of(tmp_path, "spans").tables
    assert "structure" in title
    assert cell(table, "none", "prose (40)") == Number(value=50.0, error=0.0, digits=1)


def test_structures_are_counted_on_the_corpora_that_are_averaged(tmp_path: Path) -> None:
    save_run(tmp_path, "mgsr", lambda corpus, id, seed: 0.25 if corpus == "a" else 1.0, corpora=("a", "b"))
    ledger("spans", {"mgsr": {"0": "mgsr"}}, corpora=("a",)).write(tmp_path)
    _, (_, table) = result_of(tmp_path, "spans").tables
    assert cell(table, "mgsr", "prose (40)") == Number(value=25.0, error=0.0, digits=1)


def test_ranges_are_shown_by_task_and_share_of_the_steps(tmp_path: Path) -> None:
    places = itertools.product(("all", "learned"), ("a", "b"), (25, 100))
    names = [f"{each} @ {task} @ {share} %" for each, task, share in places]
    for number in range(len(names)):
        save_run(tmp_path, str(number), lambda corpus, id, seed, n=number: 0.1 * n, corpora=("a", "b"))  # type: ignore[misc]
    ledger("clip-ranges", {name: {"0": str(number)} for number, name in enumerate(names)}).write(tmp_path)
    _, (_, table), *minus = result_of(tmp_path, "clip-ranges").tables
    assert [column.title for column in table.columns] == ["range", "a, 25 %", "a, 100 %", "b, 25 %", "b, 100 %"]
    found = [[each.value for each in row.cells if isinstance(each, Number)] for row in table.rows]
    # `save_run` makes the KL 1 + the score.
    assert found == [pytest.approx([1.0, 1.1, 1.2, 1.3]), pytest.approx([1.4, 1.5, 1.6, 1.7])]
    for (title, gaps), expected in zip(minus, (40.0, 0.4), strict=True):
        assert "minus that of the range 'all'" in title
        (row,) = gaps.rows
        assert row.cells[0] == "learned"
        assert [each.value for each in row.cells if isinstance(each, Number)] == pytest.approx([expected] * 4)


def test_of_limits_a_method_is_held_against_the_other_under_the_same_condition_and_start(tmp_path: Path) -> None:
    arms = {}
    conditions = (("64 tokens", "s0", "s0"), ("20 layers", "s20", "s20"), ("gsm8k", "s0", "s1"))
    for condition, mine, theirs in conditions:
        level = 0.1 if condition == "64 tokens" else 0.0
        for method, start, gain in (("gkd", theirs, 0.0), ("mgsr", mine, level)):
            stem = f"{method}{condition}".replace(" ", "")
            save_run(tmp_path, stem, lambda corpus, id, seed, gain=gain: 0.3 + gain + int(id[1:]) / 100, start=start)
            arms[f"{method}, {condition}"] = {"3": stem}
    ledger("limits", {**arms, "mgsr, 1024 tokens": {}}).write(tmp_path)
    title, table = result_of(tmp_path, "limits").tables[1]
    assert "MGSR minus GKD" in title
    # The runs of gsm8k have no start in common, and one condition has no rows.
    assert [row.cells[0] for row in table.rows] == ["64 tokens", "20 layers"]
    long, large = (row.cells[1] for row in table.rows)
    assert isinstance(long, Number)
    assert isinstance(large, Number)
    assert (long.value, long.low, long.high) == (pytest.approx(10.0), pytest.approx(10.0), pytest.approx(10.0))
    assert (large.value, large.low, large.high) == (0.0, 0.0, 0.0)
    distance = table.rows[0].cells[2]
    assert isinstance(distance, Number)
    assert distance.value == pytest.approx(0.1)
    # These rows hold nothing that was measured on the answers.
    assert table.rows[0].cells[3:] == (None, None)


def test_of_limits_it_is_told_how_long_the_drawn_rows_were(tmp_path: Path) -> None:
    drew = [{"own": {"tokens": 40.0, "at_limit": 0.25, "reference_tokens": 70.0}}, {}]
    drew += [{"own": {"tokens": 60.0, "at_limit": 0.75, "reference_tokens": 50.0}}]
    logs = {
        "steps": [{"step": number, **row} for number, row in enumerate(drew)],
        "counted": {"train": {"read": 200, "cut_responses": 3}},
        "signatures": [{"name": "revision-harm", "step": 2}, {"name": "revision-harm", "step": 3}],
    }
    for stem, more in (("drawn", logs), ("fixed", {"steps": [{"step": 0}]})):
        save_run(tmp_path, stem, lambda corpus, id, seed: 0.5)
        run = RunRows(tmp_path / f"{stem}.jsonl.gz")
        write_rows(run.path, about={**run.about, **more}, rows=run.rows)
    ledger("limits", {"mgsr, 64 tokens": {"0": "drawn"}, "kd, 64 tokens": {"0": "fixed"}}).write(tmp_path)
    (_, table) = result_of(tmp_path, "limits").tables[2]
    numbers = [cell.value for cell in table.rows[0].cells if isinstance(cell, Number)]
    assert numbers == pytest.approx([50.0, 50.0, 60.0, 1.5])
    assert table.rows[0].cells[-1] == "revision-harm"
    # An arm that draws nothing has nothing to show here.
    assert [row.cells[0] for row in table.rows] == ["mgsr, 64 tokens"]
