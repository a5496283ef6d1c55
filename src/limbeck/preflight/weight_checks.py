"""What only the weights can tell: whether they are numbers, and whether the teacher knows more than the student."""

from __future__ import annotations

import torch
from torch import nn

from limbeck.config import Recipe
from limbeck.config.uses import matches_teacher
from limbeck.data.assembling import TrainingData
from limbeck.data.loader import batch
from limbeck.evaluation.identity import weights_fingerprint
from limbeck.losses.views import chunks
from limbeck.models.extending import evaluating
from limbeck.models.pair import Pair
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.preflight.findings import Finding, ok
from limbeck.preflight.workload import encoder_of
from limbeck.types import Sequences

_ROWS = 8
_CHUNK = 256


def weight_findings(recipe: Recipe, data: TrainingData | None) -> list[Finding]:
    """Loads the models as a run would, on `models.device`. Raises what loading raises."""
    models, is_matched = recipe.models, matches_teacher(recipe.built_method())
    pair = Pair.load(
        teacher=models.teacher if is_matched and not models.teacher_is_base else None,
        student=models.student,
        teacher_dtype=models.teacher_dtype,
        device=models.device,
        teacher_device=models.device if models.teacher_device == "auto" else models.teacher_device,
        teacher_bits=models.teacher_bits,
        attention=models.attention,
        allow_bin=models.allow_bin,
        chat_template_kwargs=dict(models.chat_template_kwargs),
    )
    roles = {"student": pair.student, **({} if pair.teacher is None else {"teacher": pair.teacher})}
    found = [_finite(role, model) for role, model in roles.items()]
    if any(each.severity == "error" for each in found):
        # Nothing can be computed with them.
        return found
    for role, model in roles.items():
        if not Scorer.of(model, vocabulary=pair.vocabulary).split:
            message = (
                f"the {role}'s logits are not its head applied to its hidden states: all logits are formed at once"
            )
            advice = "expect several times the memory of the plan"
            found.append(Finding(check="head", severity="warning", message=message, advice=advice))
    if pair.teacher is not None and weights_fingerprint(pair.teacher) == weights_fingerprint(pair.student):
        message = "teacher and student have the same weights: there is nothing to learn from the teacher"
        advice = "shrink the student (limbeck shrink), or name another one"
        found.append(Finding(check="pair", severity="warning", message=message, advice=advice))
    found += _base(recipe) if models.teacher_is_base else []
    rows = None if data is None else _rows(recipe, data, pair)
    if rows is not None:
        found += _knowledge(pair, rows)
    return found


def _base(recipe: Recipe) -> list[Finding]:
    """LoRA starts as nothing, so that student and base agree, and every divergence is 0 with its gradient."""
    weights = recipe.built_method().weights
    if weights.supervised or weights.plain_text:
        return [ok("pair", "one set of weights: the teacher is the student with LoRA off")]
    message = (
        "the teacher is the student's base, and LoRA starts as nothing: a divergence between them is 0 and stays 0"
    )
    advice = "set method.weights.supervised or method.weights.plain_text, so that something moves the student"
    return [Finding(check="pair", severity="warning", message=message, advice=advice)]


def _finite(role: str, model: nn.Module) -> Finding:
    bad = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
    if not bad:
        return ok(f"{role}'s weights", f"all {sum(p.numel() for p in model.parameters()):,} are finite")
    message = f"{len(bad)} tensors hold NaN or infinity, the first '{bad[0]}'"
    advice = "the file is damaged or was saved in half precision after an overflow; get the model again"
    return Finding(check=f"{role}'s weights", severity="error", message=message, advice=advice)


def _rows(recipe: Recipe, data: TrainingData, pair: Pair) -> Sequences | None:
    examples = (data.parts[0] if data.valid is None else data.valid).examples[: 4 * _ROWS]
    encoder = encoder_of(recipe, pair.tokenizer)
    encoded = [row for example in examples if (row := encoder.row(example)) is not None][:_ROWS]
    return batch([((0, place), row) for place, row in enumerate(encoded)], pad_id=pair.pad_id) if encoded else None


def _knowledge(pair: Pair, rows: Sequences) -> list[Finding]:
    """Cross-entropy of the references, in nats a token."""
    student = _cross_entropy(pair.student, rows, pair)
    said = f"on {len(rows)} rows: student {student:.3f} nats a token"
    if pair.teacher is None:
        return [ok("references", said)]
    teacher = _cross_entropy(pair.teacher, rows, pair)
    said += f", teacher {teacher:.3f}"
    if teacher < student:
        return [ok("references", said)]
    advice = "fine-tune the teacher on the data first, or check that it reads the right template (data.template)"
    message = f"the teacher knows the references no better than the student; {said}"
    return [Finding(check="references", severity="warning", message=message, advice=advice)]


@torch.no_grad()
def _cross_entropy(model: nn.Module, rows: Sequences, pair: Pair) -> float:
    scorer = Scorer.of(model, vocabulary=pair.vocabulary)
    own = rows.to(next(model.parameters()).device)
    where = scored_tokens(own)
    with evaluating(model):
        states_ND, head = scorer.predicting(own, where), scorer.head
        total = sum(
            float(head(states_ND[part]).gather(1, where.tokens[part, None]).sum())
            for part in chunks(len(where), _CHUNK)
        )
    return -total / len(where)
