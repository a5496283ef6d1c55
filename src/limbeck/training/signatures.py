"""The failure signatures of a distillation run: rules over the rows of metrics.jsonl, all listed in `SIGNATURES`.

A rule reads numbers from each row that has them and judges its last `window` readings together, by their median: a
single step that is out of line never makes it fire. A validation is an average over its whole set, and judged alone.
Rows without the numbers are passed over; a method that produces none never fires the rule, and to set its threshold is
an error of the recipe (`config/watching.py`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from limbeck.training.readings import (
    Finding,
    Reading,
    Row,
    age,
    clip,
    collapse,
    counts,
    domination,
    drift,
    entropies,
    harm,
    lead,
    lengths,
    mismatch,
    nothing,
    pairs,
    repetition,
    revised,
    span_share,
    staleness,
    swing,
    target_only,
)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A rule. `key` is its threshold in the recipe's `watch` section, in `unit`; null there switches it off.

    `read` takes a row's numbers, None where it has none. `judge` sees the first `window` readings of the run and the
    last ones, once there are `window` of them; `window` None means that the threshold is the window. The rule fires
    where `fires(value, threshold)`. `says` may name {value}, {window} and {about}.
    """

    key: str
    measures: str
    unit: str
    window: int | None
    read: Callable[[Row], Reading | None]
    judge: Callable[[Sequence[Reading], Sequence[Reading]], Finding | None]
    fires: Callable[[float, float], bool]
    says: str
    advice: str

    def size(self, threshold: float) -> int:
        """How many readings are judged together."""
        return max(1, math.ceil(threshold)) if self.window is None else self.window


SIGNATURES: dict[str, Signature] = {
    "revision-harm": Signature(
        key="revision_harm",
        measures="teacher's mean log-probability of the tokens that a revision replaced, minus that of the new ones",
        unit="nats a token",
        window=8,
        read=revised,
        judge=harm,
        fires=operator.gt,
        says="revision makes responses worse: the teacher likes the revised part less than what the student had "
        "written there, by {value:.3g} nats a token, median of {window} steps",
        advice="Set method.revision.greedy=true, so that the teacher's likeliest token is put in, or a temperature "
        "nearer to 1 (sampling.temperature); a teacher that does not know this data cannot correct it: fine-tune it "
        "first, or set method.revision=null.",
    ),
    "clip-collapsed": Signature(
        key="clip_collapsed",
        measures="share of tokens at which the clip keeps only the teacher's likeliest class",
        unit="share",
        window=8,
        read=target_only,
        judge=collapse,
        fires=operator.gt,
        says="the clip has collapsed: at {value:.1%} of the tokens only the teacher's likeliest class is kept, median "
        "of {window} steps",
        advice="Lower method.token.clip.learning_rate, or widen the bounds of a fixed clip; with normalise 'none' the "
        "network gains by dropping classes: take 'teacher'. A teacher that is sure of every token looks alike.",
    ),
    "clip-unstable": Signature(
        key="clip_unstable",
        measures="change of l, u or the kept mass from step to step, the largest of the three; steps on references and "
        "steps on drawn responses are compared among themselves",
        unit="change of a share",
        window=9,
        read=clip,
        judge=swing,
        fires=operator.gt,
        says="the clip is unstable: its {about} changes by {value:.3g} from one step to the next, median over {window} "
        "steps",
        advice="Lower method.token.clip.learning_rate, add a train.warmup, or raise train.batch_rows.",
    ),
    "span-dominates": Signature(
        key="span_dominates",
        measures="the span term's share of the summed gradient norms, at the steps where terms are looked at",
        unit="share",
        window=3,
        read=span_share,
        judge=domination,
        fires=operator.gt,
        says="the span term dominates: {value:.1%} of the gradient is its own, median of {window} looks",
        advice="Lower method.weights.span, or take another method.span.extractor: spans that do not fit the text "
        "tie tokens together that have nothing to do with each other.",
    ),
    "repetition": Signature(
        key="repetition",
        measures="share of distinct token pairs in the student's responses / that of the references of the same rows",
        unit="ratio",
        window=8,
        read=pairs,
        judge=repetition,
        fires=operator.lt,
        says="the student repeats itself: the share of distinct token pairs in its responses is {value:.2f} times "
        "that of the references, median of {window} steps",
        advice="Give the references more weight (method.weights.supervised, a smaller method.sequences.share), lower "
        "train.learning_rate, or start from a student that is fine-tuned on the data (method.base=sft).",
    ),
    "length-drift": Signature(
        key="length_drift",
        measures="mean length of the student's responses against the first steps, as the larger / the smaller, where "
        "it has moved away from the references' length",
        unit="factor",
        window=8,
        read=lengths,
        judge=drift,
        fires=operator.gt,
        says="response lengths drift away from the references', by a factor of {value:.2f} since the first steps, "
        "medians of {window} steps ({about})",
        advice="Look at samples.jsonl. Raise sampling.max_new_tokens where most responses are cut there, give the "
        "references more weight (method.weights.supervised), or lower train.learning_rate.",
    ),
    "length-mismatch": Signature(
        key="length_mismatch",
        measures="mean length of the student's responses against that of the references of the same rows, as the "
        "larger / the smaller",
        unit="factor",
        window=8,
        read=lengths,
        judge=mismatch,
        fires=operator.gt,
        says="response lengths are far from the references', by a factor of {value:.2f}, median of {window} steps "
        "({about})",
        advice="Look at samples.jsonl. Where responses run to the limit and the references do not, the student does "
        "not end them: lower train.learning_rate or add a train.warmup, give the references more weight "
        "(method.weights.supervised), or start from a student that is fine-tuned on the data (method.base=sft); a "
        "larger sampling.max_new_tokens only draws more of them. Where they end too early, look at data.template.",
    ),
    "teacher-no-better": Signature(
        key="teacher_no_better",
        measures="the student's cross-entropy on the validation references minus the teacher's",
        unit="nats a token",
        window=1,
        read=entropies,
        judge=lead,
        fires=operator.le,
        says="the teacher is no better than the student on this data: its lead in cross-entropy on the validation "
        "references is {value:.3g} nats a token ({about})",
        advice="Fine-tune the teacher on the data first (method.base=sft with the teacher as models.student), take a "
        "better teacher, or check that data.template is the one that it knows.",
    ),
    "stale-replay": Signature(
        key="stale_replay",
        measures="mean age of the replayed rows of a step",
        unit="steps",
        window=8,
        read=age,
        judge=staleness,
        fires=operator.gt,
        says="replayed responses are stale: {value:.4g} steps old on average, median of {window} steps",
        advice="Make the replay buffer smaller, or draw fresh rows more often.",
    ),
    "counts-nothing": Signature(
        key="counts_nothing",
        measures="steps in a row in which a term with a weight had no token (the span term: no span) to count",
        unit="steps",
        window=None,
        read=counts,
        judge=nothing,
        fires=operator.ge,
        says="the {about} term counts nothing: not one token or span in {value:.0f} steps",
        advice="For spans take another method.span.extractor, one that finds some in this text, or drop the term "
        "(method.span=null). For tokens look at data.max_prompt, data.max_length and sampling.max_new_tokens.",
    ),
}
"""Every rule by its name. A new one also needs its key in `WatchSection`, and in `config/watching.py` who reads it."""
