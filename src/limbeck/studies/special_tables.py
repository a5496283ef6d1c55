"""Tables that one study has beside the scores: by structure, in the course of training, by condition. No torch."""

from __future__ import annotations

import functools
import math

from limbeck.reporting.tables import Cell, Column, Number, Row, Table
from limbeck.studies.cells import mean_cell
from limbeck.studies.measured import ROUGE, ArmRows, Measured
from limbeck.studies.structures import STRUCTURES

# measure, score, title
_BETWEEN = (
    ("references", "kl_teacher_student", "KL(t‖s) refs"),
    ("own", "kl_student_teacher", "KL(s‖t) own"),
    ("own", "cross_entropy", "−log s of own answers"),
)
_TASK = _BETWEEN[0][:2]
_WHOLE = "all"
_PAIRED = "[95 % bootstrap interval over examples], paired by example within one start and one training seed."
# key of a step's `own`, scale, digits
_DRAWN = (("tokens", 1.0, 0), ("at_limit", 100.0, 0), ("reference_tokens", 1.0, 0))


def special_tables(measured: Measured) -> list[tuple[str, Table]]:
    """Title and table, of what this study has beside its scores."""
    match measured.ledger.study:
        case "spans":
            return [("ROUGE-L by the structure of the reference", structure_table(measured))]
        case "clip-ranges":
            return [
                ("KL(teacher‖student) on references in the course of training", course_table(measured)),
                (f"ROUGE-L minus that of the range '{_WHOLE}'", ranges_table(measured, *ROUGE, scale=100.0, digits=2)),
                (
                    f"KL(teacher‖student) on references minus that of the range '{_WHOLE}'",
                    ranges_table(measured, *_TASK, scale=1.0, digits=3),
                ),
            ]
        case "limits":
            return [
                ("MGSR minus GKD under the same condition", conditions_table(measured, "mgsr", "gkd")),
                ("What the students drew in training", drawn_table(measured)),
            ]
        case _:
            return []


def structure_table(measured: Measured) -> Table:
    """ROUGE-L of each arm over the examples whose reference is of one structure; all corpora together."""
    kinds = {
        place: kind
        for arm in measured.arms.values()
        for run in list(arm.runs.values())[:1]
        for place, kind in run.structures().items()
        if place[0] in measured.corpora
    }
    counts = {kind: sum(each == kind for each in kinds.values()) for kind in STRUCTURES}
    shown = [kind for kind in STRUCTURES if counts[kind]]
    rows = []
    for arm in measured.arms.values():
        cells: list[Cell] = [arm.arm.label]
        per_example = _plain_values(arm, measured.corpora)
        for kind in shown:
            values = [value for id, value in per_example.items() if kinds.get(id) == kind]
            cells.append(mean_cell(values, scale=100.0, digits=1))
        rows.append(Row(cells=tuple(cells), ranked=not arm.is_stage and arm.arm.name not in measured.ledger.controls))
    columns = (Column(title="arm"), *(Column(title=f"{kind} ({counts[kind]})", better="higher") for kind in shown))
    note = "In brackets how many examples have a reference of that structure, by rule (limbeck.studies.structures)."
    return Table(columns=columns, rows=tuple(rows), notes=(note,))


def course_table(measured: Measured) -> Table:
    """Arms called "RANGE @ TASK @ SHARE %" as a table of ranges by task and share: KL on the task's references."""
    places, heads = _places(measured)
    rows = []
    for each in dict.fromkeys(each for each, _, _ in places):
        cells: list[Cell] = [each]
        for task, share in heads:
            arm = measured.arms.get(places.get((each, task, share), ""))
            values = (
                {} if arm is None else arm.values(list(arm.runs), measure=_TASK[0], score=_TASK[1], corpora=(task,))
            )
            cells.append(mean_cell(list(values.values()), scale=1.0, digits=3))
        rows.append(Row(cells=tuple(cells)))
    columns = (Column(title="range"), *(Column(title=f"{task}, {share}", better="lower") for task, share in heads))
    return Table(columns=columns, rows=tuple(rows), notes=("In nats a token.",))


def ranges_table(measured: Measured, measure: str, score: str, *, scale: float, digits: int) -> Table:
    """The same arms, each minus the one without a clip at the same task and share; KL on the task's own references."""
    places, heads = _places(measured)
    rows = []
    for each in dict.fromkeys(each for each, _, _ in places if each != _WHOLE):
        cells: list[Cell] = [each]
        for task, share in heads:
            pair = places.get((each, task, share), ""), places.get((_WHOLE, task, share), "")
            corpora = (task,) if (measure, score) == _TASK else ()
            gap = measured.gap(*pair, measure=measure, score=score, corpora=corpora)
            cells.append(None if gap is None else Number.of(gap, scale=scale, digits=digits, signed=True))
        rows.append(Row(cells=tuple(cells)))
    columns = (Column(title="range"), *(Column(title=f"{task}, {share}") for task, share in heads))
    return Table(columns=columns, rows=tuple(rows), notes=(f"{_PAIRED} None is corrected for the others.",))


def _places(measured: Measured) -> tuple[dict[tuple[str, str, str], str], list[tuple[str, str]]]:
    """(range, task, share) → the arm of that name, and the pairs of task and share that there are."""
    places: dict[tuple[str, str, str], str] = {}
    for name in measured.arms:
        parts = tuple(part.strip() for part in name.split("@"))
        if len(parts) == 3:
            places[parts[0], parts[1], parts[2]] = name
    return places, list(dict.fromkeys((task, share) for _, task, share in places))


def conditions_table(measured: Measured, method: str, other: str) -> Table:
    """Arms called "METHOD, CONDITION": a method minus another one under each condition that both have rows of."""
    conditions = [name.partition(", ")[2] for name in measured.arms if name.startswith(f"{method}, ")]
    rows = []
    for condition in conditions:
        pair = f"{method}, {condition}", f"{other}, {condition}"
        rouge = measured.gap(*pair)
        if rouge is not None:
            beside = [measured.gap(*pair, measure=measure, score=score) for measure, score, _ in _BETWEEN]
            cells = (Number.of(gap, scale=1, digits=3, signed=True) if gap is not None else None for gap in beside)
            rows.append(Row(cells=(condition, Number.of(rouge, scale=100, digits=2, signed=True), *cells)))
    columns = (Column(title="condition"), Column(title="ROUGE-L"), *(Column(title=title) for *_, title in _BETWEEN))
    return Table(columns=columns, rows=tuple(rows), notes=(_PAIRED,))


def drawn_table(measured: Measured) -> Table:
    """How long the rows were that each arm drew while it was trained, beside the references of the same steps."""
    rows = []
    for name, arm in measured.arms.items():
        cells: list[Cell] = [arm.arm.label]
        for key, scale, digits in _DRAWN:
            values = list(measured.steps(name, functools.partial(_own, key=key)).values())
            cells.append(Number(value=scale * math.fsum(values) / len(values), digits=digits) if values else None)
        counted = [run.about.get("counted", {}).get("train", {}) for run in arm.runs.values()]
        read, cut = (sum(each.get(key, 0) for each in counted) for key in ("read", "cut_responses"))
        cells.append(Number(value=100 * cut / read, digits=1) if read else None)
        signs = {sign["name"] for run in arm.runs.values() for sign in run.about.get("signatures", ())}
        if cells[1] is not None:
            rows.append(Row(cells=(*cells, ", ".join(sorted(signs)) or None)))
    titles = ("tokens", "at the limit %", "tokens of references", "references cut in training %", "signatures")
    note = "Means over the steps that drew rows, before any revision; signatures: what the run was warned of."
    return Table(columns=tuple(Column(title=title) for title in ("arm", *titles)), rows=tuple(rows), notes=(note,))


def _own(row: dict[str, object], key: str) -> float | None:
    own = row.get("own")
    return float(own[key]) if isinstance(own, dict) and key in own else None


def _plain_values(arm: ArmRows, corpora: tuple[str, ...]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for corpus in corpora:
        found |= arm.values(list(arm.runs), measure=ROUGE[0], score=ROUGE[1], corpora=(corpus,))
    return found
