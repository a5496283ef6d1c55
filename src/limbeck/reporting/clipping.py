"""What a clip keeps of the teacher's distribution at single tokens: probabilities before and after, and gates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from limbeck.reporting.cases import visible
from limbeck.reporting.plots import Chart, Series, chart_html
from limbeck.reporting.tables import Column, Number, Row, Table
from limbeck.reporting.templating import render
from limbeck.reporting.tokens import named

# Below the number of points at which a chart would draw a running mean.
_MOST_POINTS = 48


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The classes that the teacher finds likeliest at one token, in order, and the gate that a clip gives each.

    `kept_mass` is Z = Σ m·p over the whole vocabulary, and `facts` what else was measured there. `classes` names the
    first ones. Probabilities, not logarithms.
    """

    id: str
    place: int
    text: str
    kl: float
    classes: tuple[str, ...]
    teacher: tuple[float, ...]
    student: tuple[float, ...]
    gates: tuple[float, ...]
    kept_mass: float
    facts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def all_of(cls, row: Mapping[str, Any]) -> tuple[Distribution, ...]:
        """Those of a row of tokens.jsonl that have gates."""
        return tuple(
            cls._of(token, id=str(row["id"]), place=place)
            for place, token in enumerate(row["tokens"])
            if token.get("distribution", {}).get("gates")
        )

    @classmethod
    def _of(cls, token: Mapping[str, Any], *, id: str, place: int) -> Distribution:
        held = token["distribution"]
        teacher = tuple(map(math.exp, held["teacher_logp"]))
        gates = tuple(map(float, held["gates"]))
        kept = token.get("kept_mass")
        formats = {"lower": ("l", ".4f"), "upper": ("u", ".4f"), "kept_classes": ("classes kept, Σ m", ",.1f")}
        return cls(
            id=id,
            place=place,
            text=str(token["token"]),
            kl=float(token["kl_student_teacher"]),
            classes=tuple(map(str, held["classes"])),
            teacher=teacher,
            student=tuple(map(math.exp, held["student_logp"])),
            gates=gates,
            kept_mass=float(kept) if kept else math.fsum(m * p for m, p in zip(gates, teacher, strict=True)),
            facts=tuple(
                (title, format(token[name], shape)) for name, (title, shape) in formats.items() if name in token
            ),
        )

    @property
    def clipped(self) -> tuple[float, ...]:
        """The teacher's distribution after the clip: p̃ = m·p / Z, 0 throughout where nothing is kept.

        >>> half = Distribution(
        ...     id="a", place=0, text="x", kl=0.0, classes=(), teacher=(0.5, 0.25), student=(), gates=(1.0, 0.0),
        ...     kept_mass=0.5,
        ... )
        >>> half.clipped
        (1.0, 0.0)
        """
        return tuple(m * p / (self.kept_mass or 1.0) for m, p in zip(self.gates, self.teacher, strict=True))


def distribution_charts(distribution: Distribution) -> tuple[Chart, Chart]:
    """Probabilities (both axes logarithmic) and gates, over the rank of the class for the teacher.

    A point is the mean over neighbouring ranks: the student's order is another, and single classes would show noise.
    """
    bins = _bins(len(distribution.teacher))

    def curve(name: str, values: Sequence[float]) -> Series:
        means = [math.fsum(values[first - 1 : last]) / (last - first + 1) for first, last in bins]
        places = [math.sqrt(first * last) for first, last in bins]
        return Series(name=name, points=tuple(zip(places, means, strict=True)))

    curves = {
        "teacher": distribution.teacher,
        "teacher, clipped": distribution.clipped,
        "student": distribution.student,
    }
    series = tuple(curve(name, values) for name, values in curves.items())
    probabilities = Chart(
        title="Probabilities", series=series, x_label="rank", y_label="probability", log_x=True, log_y=True
    )
    gates = Chart(
        title="Gates",
        series=(curve("gate", distribution.gates),),
        x_label="rank",
        y_label="gate",
        log_x=True,
        y_holds=(0.0, 1.0),
        first_colour=len(series),
    )
    return probabilities, gates


def clipping_html(distributions: Sequence[Distribution], *, ident: str) -> str:
    """The tokens to choose from, largest KL(student‖teacher) first, one unfolded at a time: curves and class names."""
    order = sorted(distributions, key=lambda each: -each.kl)
    shown = [
        {
            "title": f"“{named(each.text)}”, place {each.place + 1} of {visible(each.id)}",
            "kl": f"{each.kl:.3g}",
            "facts": (("teacher's mass kept, Σ m·p", f"{100 * each.kept_mass:.2f} %"), *each.facts),
            "charts": Markup(
                "".join(
                    chart_html(chart, ident=f"{ident}-{n}-{kind}")
                    for kind, chart in enumerate(distribution_charts(each))
                )
            ),
            "classes": Markup(_classes(each).html()),
        }
        for n, each in enumerate(order)
    ]
    return render("clipping.html.j2", {"ident": ident, "distributions": shown})


def _bins(count: int) -> list[tuple[int, int]]:
    """First and last rank of neighbours, from 1 to `count`, about as wide as each other on a logarithmic axis."""
    if count <= _MOST_POINTS:
        return [(rank, rank) for rank in range(1, count + 1)]
    lasts = sorted({round(count ** (n / (_MOST_POINTS - 1))) for n in range(_MOST_POINTS)})
    return [(before + 1, last) for before, last in pairwise([0, *lasts])]


def _classes(distribution: Distribution) -> Table:
    columns = zip(distribution.teacher, distribution.clipped, distribution.student, distribution.gates, strict=True)
    rows = [
        Row(
            cells=(
                str(rank),
                named(name),
                *(Number(value=100 * value, digits=2) for value in values[:3]),
                Number(value=values[3], digits=3),
            )
        )
        for rank, (name, values) in enumerate(zip(distribution.classes, columns, strict=False), start=1)
    ]
    titles = ("rank", "class", "teacher, %", "clipped, %", "student, %", "gate")
    return Table(columns=tuple(Column(title=title) for title in titles), rows=tuple(rows))
