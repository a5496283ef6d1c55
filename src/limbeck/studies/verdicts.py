"""What a study was made to find out: claims, ten of them of the paper, each judged by the interval that decides.

A claim holds where every comparison that it is made of lies above its mark with its whole 95 % interval, does not where
one lies below with its whole interval, and cannot be told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from limbeck.reporting.comparing import standard_error
from limbeck.reporting.reduce import Interval, by_corpus, mean_interval, mean_over
from limbeck.studies.measured import Measured

Judgement = Literal["holds", "does not", "cannot be told"]
# "As good": not worse by more than this much ROUGE-L.
MARGIN = 0.01
_METHODS = ("kd", "seqkd", "imitkd", "gkd", "minillm", "distillm", "mgsr")
_START = "start"
# A student that says the same again and again is near to nothing.
_LEAST_DISTINCT = 0.8
_ON_STUDENT, _ON_FIXED = ("imitkd", "gkd", "minillm", "distillm", "mgsr"), ("sft", "kd", "seqkd")
_LOSSES = ("forward-kl", "reverse-kl", "symmetric-kl", "jsd", "tvd", "skew-reverse-kl", "skew-forward-kl")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One comparison of a claim: the interval should lie above `mark`. None: there are no rows to compare."""

    what: str
    interval: Interval | None
    mark: float = 0.0
    scale: float = 100.0

    @property
    def judgement(self) -> Judgement:
        """How it came out."""
        if self.interval is None:
            return "cannot be told"
        if self.interval.low > self.mark:
            return "holds"
        return "does not" if self.interval.high < self.mark else "cannot be told"

    def text(self) -> str:
        """The comparison with its interval."""
        if self.interval is None:
            return f"{self.what}: no rows"
        mean, low, high = (self.scale * each for each in (self.interval.mean, self.interval.low, self.interval.high))
        mark = f", mark {self.scale * self.mark:+.1f}" if self.mark else ""
        return f"{self.what}: {mean:+.2f} [{low:+.2f}, {high:+.2f}]{mark}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim with its comparisons. `needs`: all of them, or any one."""

    number: int
    claim: str
    compared: tuple[Compared, ...]
    needs: Literal["all", "any"] = "all"

    @property
    def judgement(self) -> Judgement:
        """The worst of its comparisons, or the best where one is enough."""
        order: Sequence[Judgement] = ("does not", "cannot be told", "holds")
        found = [order.index(each.judgement) for each in self.compared]
        if not found:
            return "cannot be told"
        return order[min(found) if self.needs == "all" else max(found)]

    @property
    def deciding(self) -> Compared | None:
        """The comparison that the judgement is due to: of those that came out so, the lowest (the highest, for any)."""
        those = [each for each in self.compared if each.judgement == self.judgement]
        known = [each for each in those if each.interval is not None]
        pick: Callable[..., Compared] = min if self.needs == "all" else max
        if not known:
            return those[0] if those else None
        return pick(known, key=lambda each: each.interval.mean - each.mark if each.interval is not None else 0.0)

    def text(self) -> str:
        """One line."""
        deciding = self.deciding
        return f"({self.number}) {self.claim}: {self.judgement}" + (f" ({deciding.text()})" if deciding else "")


def verdicts(measured: Measured) -> tuple[Verdict, ...]:
    """The claims that this study is about; none for a study of a user's own."""
    return tuple(judge(measured) for judge in _CLAIMS.get(measured.ledger.study, ()))


def _gaps(measured: Measured, pairs: Sequence[tuple[str, str]], *, mark: float = 0.0) -> tuple[Compared, ...]:
    return tuple(
        Compared(what=f"{one} − {other}", interval=measured.gap(one, other), mark=mark) for one, other in pairs
    )


def _best_average(measured: Measured) -> Verdict:
    rivals = [name for name in ("sft", *_METHODS) if name != "mgsr"]
    return Verdict(
        number=1,
        claim="MGSR has the best average",
        compared=_gaps(measured, [("mgsr", rival) for rival in rivals]),
    )


def _every_component(measured: Measured) -> Verdict:
    steps = [("base+scrg", "base"), ("base+scrg+dac", "base+scrg"), ("mgsr", "base+scrg+dac")]
    return Verdict(number=2, claim="every component of Table 2 adds", compared=_gaps(measured, steps))


def _scrg_improves(measured: Measured) -> Verdict:
    pairs = [("scrg on-policy", "on-policy"), ("mgsr", "mixed"), ("scrg off-policy", "off-policy")]
    claim = "SCRG improves on-policy, mixed and off-policy sampling"
    return Verdict(number=3, claim=claim, compared=_gaps(measured, pairs))


def _both_parts(measured: Measured) -> Verdict:
    pairs = [("mgsr", "target only"), ("mgsr", "dense only"), ("base+scrg+span", "dense only")]
    claim = "dense and target parts are both needed, dense alone is destructive (worse than no clip)"
    return Verdict(number=4, claim=claim, compared=_gaps(measured, pairs))


def _best_loss(measured: Measured) -> Verdict:
    pairs = [("mgsr", loss) for loss in _LOSSES]
    return Verdict(number=5, claim="DAC-KL is the best of eight", compared=_gaps(measured, pairs))


def _student_text(measured: Measured) -> Verdict:
    gap = measured.group_gap(_ON_STUDENT, _ON_FIXED)
    what = f"mean of {', '.join(_ON_STUDENT)} − mean of {', '.join(_ON_FIXED)}"
    claim = "methods on student-written text beat methods on fixed text"
    return Verdict(number=6, claim=claim, compared=(Compared(what=what, interval=gap),))


def _beat_teacher(measured: Measured) -> Verdict:
    gap = measured.group_gap(_METHODS, ("teacher",))
    compared = Compared(what="mean of the seven distilled students − teacher", interval=gap)
    return Verdict(number=7, claim="students beat their teacher", compared=(compared,))


def _fifteen_per_cent(measured: Measured) -> Verdict:
    gap = measured.gap("mgsr", "sft", factor=1.15)
    return Verdict(number=8, claim="15 % over SFT", compared=(Compared(what="mgsr − 1.15 · sft", interval=gap),))


def _reliable_and_diverse(measured: Measured) -> Verdict:
    compared: list[Compared] = []
    for arm, base in (("scrg on-policy", "on-policy"), ("mgsr", "mixed"), ("scrg off-policy", "off-policy")):
        changed = measured.steps(arm, _teacher_gain)
        gain = mean_interval(changed, seed=0, draws=2_000) if changed else None
        compared.append(Compared(what=f"{arm}: teacher's log p, after − before", interval=gain, scale=1.0))
        diverse = measured.gap(arm, base, measure="answers", score="distinct_2")
        compared.append(Compared(what=f"{arm} − {base}: distinct-2 of answers", interval=diverse))
    claim = "SCRG makes sequences more reliable and more diverse"
    return Verdict(number=9, claim=claim, compared=tuple(compared))


def _teacher_gain(row: Mapping[str, Any]) -> float | None:
    revision = row.get("revision", {})
    if "teacher_logp_before" not in revision or "teacher_logp_after" not in revision:
        return None
    return float(revision["teacher_logp_after"] - revision["teacher_logp_before"])


def _as_good(what: str) -> Callable[[Measured], Verdict]:
    def judge(measured: Measured) -> Verdict:
        """Every other arm but controls and stages against the baseline."""
        default = measured.ledger.baseline
        others = [
            arm.name
            for arm in measured.ledger.arms
            if arm.name not in (default, "none", *measured.ledger.controls) and "-" not in arm.runs
        ]
        return Verdict(
            number=10,
            claim=f"another {what} is as good (not worse by {100 * MARGIN:g} ROUGE-L)",
            compared=_gaps(measured, [(other, default) for other in others], mark=-MARGIN),
            needs="any",
        )

    return judge


def _nearer(method: str, number: int) -> Callable[[Measured], Verdict]:
    """A distilled student nearer to the teacher, in one of the two KLs, than the start and every null control is."""

    def judge(measured: Measured) -> Verdict:
        """The start or a control less the method, that which the method is least ahead of, in each of the two KLs."""
        compared = []
        for measure, score, title in (
            ("references", "kl_teacher_student", "KL(t‖s) on references"),
            ("own", "kl_student_teacher", "KL(s‖t) on own answers"),
        ):
            gaps = {
                base: gap
                for base in (_START, *measured.ledger.controls)
                if (gap := _two_errors(measured.paired(base, method, measure=measure, score=score))) is not None
            }
            least = min(gaps, key=lambda base: gaps[base].low, default=_START)
            what = f"{least} − {method}, {title} (± 2 standard errors)"
            compared.append(Compared(what=what, interval=gaps.get(least), scale=1.0))
        claim = f"{method} brings the student nearer to its teacher"
        return Verdict(number=number, claim=claim, compared=tuple(compared), needs="any")

    return judge


def _two_errors(
    sides: tuple[Mapping[tuple[str, str], float], Mapping[tuple[str, str], float]] | None,
) -> Interval | None:
    """The mean of one − other over the same examples, two standard errors to each side."""
    if sides is None or len(sides[0]) < 2:
        return None
    differences = {id: value - sides[1][id] for id, value in sides[0].items()}
    mean, error = mean_over(differences), standard_error(*by_corpus(differences))
    return Interval(mean=mean, low=mean - 2 * error, high=mean + 2 * error, num_examples=len(differences))


def _diverse(number: int) -> Callable[[Measured], Verdict]:
    def judge(measured: Measured) -> Verdict:
        compared = []
        for method in ("sft", *_METHODS):
            gap = measured.against_references(method, factor=_LEAST_DISTINCT)
            compared.append(Compared(what=f"{method} − {_LEAST_DISTINCT:g} · references", interval=gap))
        claim = f"answers keep more than {_LEAST_DISTINCT:g} of the references' distinct-2"
        return Verdict(number=number, claim=claim, compared=tuple(compared))

    return judge


_CLAIMS: Mapping[str, tuple[Callable[[Measured], Verdict], ...]] = {
    "methods": (*(_nearer(method, number) for number, method in enumerate(_METHODS, 1)), _diverse(len(_METHODS) + 1)),
    "table1": (_best_average, _student_text, _beat_teacher, _fifteen_per_cent),
    "table2": (_every_component,),
    "table3a": (_scrg_improves,),
    "table3b": (_both_parts,),
    "table3c": (_best_loss,),
    "generation": (_reliable_and_diverse,),
    "detectors": (_as_good("detector"),),
    "clip-networks": (_as_good("clip network"),),
    "spans": (_as_good("extractor"),),
}
