"""One response token by token: how far student and teacher are apart, what was in error, and what was redrawn."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from limbeck.reporting.anchors import RowAnchors
from limbeck.reporting.cases import visible
from limbeck.reporting.tables import Cell, Column, Number, Row, Table
from limbeck.reporting.templating import render

# Fixed and not of the data, so that a colour means the same in every step, row and run.
_LEVELS = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)
_MOST_STEPS, _MOST_TOKENS = 6, 3000
_INVISIBLE = frozenset({"Cf", "Zl", "Zp", "Zs"})


@dataclass(frozen=True, kw_only=True)
class Token:
    """A generated token, what the teacher says in its place, and both KL divergences there in nats.

    `rank` counts the classes that the teacher finds more probable. The bounds l and u of a clip and the teacher's mass
    under its gates are None where nothing was clipped.
    """

    text: str
    teacher: str
    kl_student_teacher: float
    kl_teacher_student: float
    rank: int
    lower: float | None = None
    upper: float | None = None
    kept_mass: float | None = None


@dataclass(frozen=True, kw_only=True)
class Response:
    """What the student wrote to a row after a step.

    `corrected`: the places (from 0) where the teacher's token was put, round by round; `revised`: the response then.
    """

    step: int
    id: str
    prompt: str
    tokens: tuple[Token, ...]
    corrected: tuple[int, ...] = ()
    revised: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Response:
        """A row of tokens.jsonl."""
        tokens = tuple(
            Token(
                text=str(each["token"]),
                teacher=str(each["teacher"]),
                kl_student_teacher=float(each["kl_student_teacher"]),
                kl_teacher_student=float(each["kl_teacher_student"]),
                rank=int(each["rank"]),
                lower=each.get("lower"),
                upper=each.get("upper"),
                kept_mass=each.get("kept_mass"),
            )
            for each in row["tokens"]
        )
        return cls(
            step=int(row["step"]),
            id=str(row["id"]),
            prompt=str(row["prompt"]),
            tokens=tokens,
            corrected=tuple(map(int, row.get("corrected", ()))),
            revised=tuple(map(str, row.get("revised", ()))),
        )

    @property
    def errors(self) -> tuple[int, ...]:
        """The corrected places at which the first draw's own token stood: those before all corrections until then.

        >>> Response(step=1, id="a", prompt="", tokens=(), corrected=(5, 7, 2)).errors
        (5, 2)
        """
        return tuple(
            place for n, place in enumerate(self.corrected) if place < min(self.corrected[:n], default=math.inf)
        )

    @property
    def put(self) -> tuple[int, ...]:
        """The places of `revised` with a token of the teacher's: no later correction before them drew them anew.

        >>> Response(step=1, id="a", prompt="", tokens=(), corrected=(5, 7, 2)).put
        (2,)
        """
        after = [self.corrected[n + 1 :] for n in range(len(self.corrected))]
        return tuple(
            place for place, later in zip(self.corrected, after, strict=True) if place < min(later, default=math.inf)
        )


def shown(text: str) -> str:
    """A token to be read among others: line ends and tabs are seen, blanks where nothing else is, nothing as ∅.

    >>> shown(" the"), shown("  "), shown(".\\n"), shown(""), shown("\\u200b")
    (' the', '··', '.↵\\n', '∅', 'U+200B')
    """
    if not text:
        return "∅"
    if all(letter != " " and unicodedata.category(letter) in _INVISIBLE for letter in text):
        return " ".join(f"U+{ord(letter):04X}" for letter in text)
    text = text if text.strip(" ") else text.replace(" ", "·")
    return visible(text.replace("\t", "⇥").replace("\r\n", "\n")).replace("\n", "↵\n")


def named(text: str) -> str:
    """A token on one line and by itself, its outer blanks as ␣.

    >>> named(" the"), named(".\\n"), named(" ")
    ('␣the', '.↵', '·')
    """
    line = shown(text).replace("↵\n", "↵")
    inner = line.strip(" ")
    before, after = len(line) - len(line.lstrip(" ")), len(line) - len(line.rstrip(" "))
    return "␣" * before + inner + "␣" * after


def tokens_html(responses: Sequence[Response], *, ident: str, anchors: RowAnchors | None = None) -> str:
    """The rows to choose from, one unfolded at a time, and above them the step, the last one chosen; no script.

    Of many steps some are left out, so that the page holds about 3,000 tokens of a run, or one step of it.
    """
    steps = _chosen_steps(responses)
    ids = dict.fromkeys(each.id for each in responses if each.step == steps[-1]) if steps else {}
    by_place = {(each.id, each.step): each for each in responses}
    revises = any(each.corrected for each in responses)
    anchors = anchors or RowAnchors()
    rows: list[dict[str, object]] = []
    for id in ids:
        looks = [(n, by_place[id, step]) for n, step in enumerate(steps) if (id, step) in by_place]
        shown_looks = [_look(each, at=n, name=f"{ident}-{len(rows)}-{n}", revises=revises) for n, each in looks]
        prompt = visible(looks[-1][1].prompt)
        rows.append({"title": visible(id), "anchor": anchors.take(id), "prompt": prompt, "looks": shown_looks})
    num_steps = len({each.step for each in responses})
    values = {"ident": ident, "steps": steps, "num_steps": num_steps, "rows": rows, "revises": revises}
    return render("tokens.html.j2", {**values, "levels": _legend()})


def _chosen_steps(responses: Sequence[Response]) -> list[int]:
    """The last step, and as many others, evenly over the run, as the page holds."""
    steps = sorted({each.step for each in responses})
    if not steps:
        return []
    num_tokens = sum(len(each.tokens) for each in responses)
    most = min(_MOST_STEPS, len(steps), max(1, _MOST_TOKENS * len(steps) // max(1, num_tokens)))
    return [steps[-1 - n * (len(steps) - 1) // max(1, most - 1)] for n in reversed(range(most))]


def _level(kl: float) -> int | None:
    return None if math.isnan(kl) else bisect_right(_LEVELS, kl)


def _legend() -> list[tuple[int, str]]:
    bounds = [f"{bound:g}" for bound in _LEVELS]
    ranges = [f"< {bounds[0]}", *(f"{a}–{b}" for a, b in pairwise(bounds)), f"≥ {bounds[-1]}"]
    return list(enumerate(ranges))


def _look(response: Response, *, at: int, name: str, revises: bool) -> dict[str, object]:
    tokens, revised = response.tokens, response.revised
    kept, put = min(response.corrected, default=0), response.put
    divergences = [token.kl_student_teacher for token in tokens]
    drawn = [
        {
            "text": shown(token.text),
            "level": _level(token.kl_student_teacher),
            "told": _told(token, place),
            "is_error": place in response.errors,
        }
        for place, token in enumerate(tokens)
    ]
    said = [
        {
            "text": shown(token.teacher),
            "is_same": token.teacher == token.text,
            "is_put": place in response.corrected[:1],
        }
        for place, token in enumerate(tokens)
    ]
    redrawn = [
        {"text": shown(text), "is_kept": place < kept, "is_put": place in put} for place, text in enumerate(revised)
    ]
    return {
        "at": at,
        "step": response.step,
        "name": name,
        "drawn": drawn,
        "said": said,
        "redrawn": redrawn,
        "revises": revises,
        "mean": f"{sum(divergences) / len(divergences):.3g}" if divergences else "",
        "largest": f"{max(divergences):.3g}" if divergences else "",
        "numbers": Markup(_table(tokens).html()),
    }


def _told(token: Token, place: int) -> str:
    parts = [
        f"{place + 1}. “{named(token.text)}”",
        f"KL {token.kl_student_teacher:.3g} nats",
        f"teacher: “{named(token.teacher)}”",
        f"rank {token.rank + 1:,} for the teacher",
    ]
    if token.kept_mass is not None:
        parts.append(f"the clip keeps {100 * token.kept_mass:.1f} % of the teacher's mass")
    return "  ·  ".join(parts)


def _table(tokens: Sequence[Token]) -> Table:
    titles = ["place", "token", "teacher's", "KL(s‖t)", "KL(t‖s)", "rank"]
    clip = [[token.lower, token.upper, token.kept_mass] for token in tokens]
    is_clipped = any(value is not None for values in clip for value in values)
    rows = []
    for token, bounds, place in zip(tokens, clip, range(1, len(tokens) + 1), strict=True):
        cells: list[Cell] = [str(place), named(token.text), named(token.teacher)]
        cells += [Number(value=value, digits=3) for value in (token.kl_student_teacher, token.kl_teacher_student)]
        cells.append(Number(value=token.rank + 1, digits=0))
        cells += [None if value is None else Number(value=value, digits=3) for value in bounds if is_clipped]
        rows.append(Row(cells=tuple(cells)))
    titles += ["l", "u", "kept mass"] if is_clipped else []
    notes = ("KL in nats: s student, t teacher. rank: 1 is the class that the teacher finds most probable.",)
    return Table(columns=tuple(Column(title=title) for title in titles), rows=tuple(rows), notes=notes)
