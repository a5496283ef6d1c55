"""The arms of the built-in studies: methods with one part changed.

An arm that stands in several tables is trained once, because its recipe is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.studies.definition import Arm
from limbeck.studies.protocol import BATCH_ROWS, GSM8K_COLUMNS, MAX_PROMPT, STEPS, data, start_name

Part = Mapping[str, Any]
SCRG: Part = {"kind": "scrg"}
SPAN: Part = {"kind": "correlation"}
STUDENT: Part = {"kind": "student"}
# The published buffer of 1,000 rows would not fill in 32 steps of 16, and before it is full nothing is replayed.
OFF_POLICY: Part = {
    "kind": "replay",
    "capacity": 4 * BATCH_ROWS,
    "schedule": {"kind": "adaptive", "initial": 0.5},
}
FORWARD_KL: Part = {"kind": "match", "divergence": {"kind": "forward-kl"}}
MGSR = Arm(name="mgsr", title="MGSR", changes={"method": {"base": "mgsr"}})


def _mgsr(name: str, /, title: str = "", **parts: Any) -> Arm:
    """MGSR with these parts changed."""
    return Arm(name=name, title=title, changes={"method": {"base": "mgsr", **parts}})


def methods() -> tuple[Arm, ...]:
    """The start, the teacher, and eight methods over the longer run of `methods_recipe`."""
    named = [arm for arm in table1() if arm.name not in ("teacher", "minillm")]
    # Six collections in 100 steps; the default of 256 rows would make one and a half.
    minillm = {"base": "minillm", "sequences": {"rows": 4 * BATCH_ROWS}}
    return (
        Arm(name="start", title="warm start", stage="start"),
        Arm(name="teacher", title="teacher (SFT)", stage="teacher"),
        *named,
        Arm(name="minillm", title="MiniLLM", changes={"method": minillm}),
    )


def table1() -> tuple[Arm, ...]:
    """The eight methods of Table 1, and the teacher."""
    # The collection of 256 rows would be a single one in 32 steps.
    minillm = {"base": "minillm", "sequences": {"rows": 2 * BATCH_ROWS}}
    return (
        Arm(name="teacher", title="teacher (SFT)", stage="teacher"),
        Arm(name="sft", title="SFT", changes={"method": {"base": "sft"}}),
        Arm(name="kd", title="KD", changes={"method": {"base": "kd"}}),
        Arm(name="seqkd", title="SeqKD", changes={"method": {"base": "seqkd"}}),
        Arm(name="imitkd", title="ImitKD", changes={"method": {"base": "imitkd"}}),
        Arm(name="gkd", title="GKD", changes={"method": {"base": "gkd"}}),
        Arm(name="minillm", title="MiniLLM", changes={"method": minillm}),
        Arm(name="distillm", title="DistiLLM", changes={"method": {"base": "distillm:small"}}),
        MGSR,
    )


def table2() -> tuple[Arm, ...]:
    """Component by component, from GKD's mixture with forward KL and cross-entropy on the references."""
    return (
        _mgsr("base", "none", revision=None, token=FORWARD_KL, span=None),
        _mgsr("base+scrg", "SCRG", token=FORWARD_KL, span=None),
        _mgsr("base+scrg+dac", "SCRG, DAC-KL", span=None),
        MGSR,
    )


def table3a() -> tuple[Arm, ...]:
    """Ways to get the student's sequences, DAC-KL and span term in all of them."""
    return (
        _mgsr("on-policy", "on-policy", revision=None, sequences=STUDENT),
        _mgsr("mixed", "mixed", revision=None),
        _mgsr("off-policy", "off-policy", revision=None, sequences=OFF_POLICY),
        _mgsr("scrg on-policy", "SCRG with the student's rows alone", sequences=STUDENT),
        _mgsr("scrg off-policy", "SCRG with off-policy", sequences=OFF_POLICY),
        Arm(name="mgsr", title="SCRG with on-policy (mixed)", changes=MGSR.changes),
    )


def table3b() -> tuple[Arm, ...]:
    """What DAC-KL keeps; without any clip it is forward KL."""
    return (
        _mgsr("base+scrg+span", "no clip (forward KL)", token=FORWARD_KL),
        _mgsr("target only", token={"kind": "dac-kl", "parts": "target", "clip": {"kind": "fixed"}}),
        _mgsr("dense only", token={"kind": "dac-kl", "parts": "dense"}),
        Arm(name="mgsr", title="dense and target", changes=MGSR.changes),
    )


def table3c() -> tuple[Arm, ...]:
    """Eight losses, SCRG and the span term in all of them."""
    divergences: Mapping[str, tuple[str, Part]] = {
        "forward-kl": ("forward KL", {"kind": "forward-kl"}),
        "reverse-kl": ("reverse KL", {"kind": "reverse-kl"}),
        "symmetric-kl": ("symmetric KL", {"kind": "symmetric-kl"}),
        "jsd": ("generalised JSD", {"kind": "jsd", "beta": 0.5}),
        "tvd": ("TVD", {"kind": "tvd"}),
        "skew-reverse-kl": ("skew reverse KL", {"kind": "skew-reverse-kl", "alpha": 0.1}),
        "skew-forward-kl": ("skew forward KL", {"kind": "skew-forward-kl", "alpha": 0.1}),
    }
    arms = [
        _mgsr(name, title, token={"kind": "match", "divergence": dict(divergence)})
        for name, (title, divergence) in divergences.items()
    ]
    return (*arms, Arm(name="mgsr", title="DAC-KL", changes=MGSR.changes))


def detectors() -> tuple[Arm, ...]:
    """Ways to find the error token."""
    others = [_mgsr(kind, revision={"detector": {"kind": kind}}) for kind in ("random", "heuristic", "attention")]
    return (Arm(name="mgsr", title="kld-argmax", changes=MGSR.changes), *others)


def clip_networks() -> tuple[Arm, ...]:
    """What finds the bounds of DAC-KL."""
    learned = [_mgsr(kind, token={"clip": {"kind": kind}}) for kind in ("conv", "rnn")]
    fixed = _mgsr("fixed", "fixed, the last 5 % cut off", token={"clip": {"kind": "fixed", "lower": 0.05}})
    return (Arm(name="mgsr", title="mlp", changes=MGSR.changes), *learned, fixed)


def spans() -> tuple[Arm, ...]:
    """What finds the spans."""
    kinds = ("sentences", "window", "whole", "learned")
    others = [_mgsr(kind, span={"kind": "correlation", "extractor": {"kind": kind}}) for kind in kinds]
    none = _mgsr("none", "no span term", span=None)
    return (Arm(name="mgsr", title="phrases", changes=MGSR.changes), *others, none)


def rounds() -> tuple[Arm, ...]:
    """How often a sequence is corrected."""
    none = _mgsr("mixed", "0", revision=None)
    more = [_mgsr(f"rounds={count}", str(count), revision={"rounds": count}) for count in (3, 5)]
    return (none, Arm(name="mgsr", title="1", changes=MGSR.changes), *more)


def generation() -> tuple[Arm, ...]:
    """Ways to get sequences, with each way of correcting them; the last two have the teacher's help from the start."""
    ways = [arm for arm in table3a() if arm.name != "mgsr"]
    # A collection is learned from without references beside it.
    mixed = {"kind": "rollouts", "teacher_share": 0.2, "rows": BATCH_ROWS, "epochs": 1}
    return (
        *ways,
        Arm(name="mgsr", title="SCRG with mixed", changes=MGSR.changes),
        _mgsr(
            "teacher-mixed",
            "teacher-mixed sampling, no supervised term",
            revision=None,
            sequences=mixed,
            weights={"supervised": 0.0},
        ),
        _mgsr("best of two", "the likelier of two for the teacher", revision=None, sequences={"kind": "best-of"}),
    )


def clip_ranges() -> tuple[Arm, ...]:
    """Fixed ranges and the learned one, by task and share of the steps, called "RANGE @ TASK @ SHARE".

    The rate is constant: a quarter of the run is then the start of the whole, and a longer arm goes on from a shorter.
    """
    ranges: Mapping[str, Part] = {
        "all": {"kind": "fixed"},
        "0.05 to 1": {"kind": "fixed", "lower": 0.05},
        "0.2 to 1": {"kind": "fixed", "lower": 0.2},
        "0 to 0.95": {"kind": "fixed", "upper": 0.95},
        "0.05 to 0.95": {"kind": "fixed", "lower": 0.05, "upper": 0.95},
        "learned": {"kind": "mlp"},
    }
    gsm8k = {"data": data(corpus="@data/gsm8k/train.jsonl", columns=dict(GSM8K_COLUMNS))}
    # Super-NaturalInstructions has no training rows here: the students of Dolly are measured on it.
    tasks: Mapping[str, Mapping[str, Any]] = {"dolly": {}, "gsm8k": gsm8k}
    return tuple(
        Arm(
            name=f"{name} @ {task} @ {share} %",
            changes={
                "method": {"base": "mgsr", "token": {"clip": dict(clip)}},
                "train.schedule": "constant",
                "train.steps": STEPS * share // 100,
                "validate.every": None,
                **changes,
            },
        )
        for task, changes in tasks.items()
        for name, clip in ranges.items()
        for share in (25, 50, 75, 100)
    )


def limits() -> tuple[Arm, ...]:
    """Where the protocol ends: long responses, reasoning as instructions, smaller and larger students."""
    arms: list[Arm] = []
    both: Sequence[tuple[str, Mapping[str, Any]]] = (
        ("gkd", {"method": {"base": "gkd"}}),
        ("mgsr", {"method": {"base": "mgsr"}}),
    )
    for method, changes in both:
        for tokens in (64, 256, 1024):
            longer = {"data": data(max_length=MAX_PROMPT + tokens), "sampling.max_new_tokens": tokens}
            arms.append(Arm(name=f"{method}, {tokens} tokens", changes={**changes, **longer}))
        gsm8k = {"data": data(corpus="@data/gsm8k/train.jsonl", columns=dict(GSM8K_COLUMNS))}
        arms.append(Arm(name=f"{method}, gsm8k", changes={**changes, **gsm8k}))
        for layers in (20, 15, 10):
            student = {"models.student": f"@{start_name(layers)}"}
            arms.append(Arm(name=f"{method}, {layers} layers", changes={**changes, **student}))
    return tuple(arms)
