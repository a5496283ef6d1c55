"""Looks at fixed rows: their loss, and token by token what is written, what the teacher says, is revised and kept."""

from __future__ import annotations

from typing import Any

import torch

from limbeck.losses.looks import ClassLook
from limbeck.models.extending import evaluating
from limbeck.models.pieces import TokenTexts
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.revision.correcting import Revision
from limbeck.revision.gathering import Viewer, gather_evidence
from limbeck.training.session import Session
from limbeck.training.step import StepResult, revise, with_state
from limbeck.training.validation import CORPUS, reference_loss
from limbeck.training.world import RankedDecoder
from limbeck.types import Evidence, Sequences

_DISTRIBUTIONS, _CLASSES, _NAMED = 12, 2000, 24
_DIGITS = 5


def observed_loss(session: Session) -> float:
    """Mean −log s(token) of the references that a source's schedule follows, in nats; every rank must call it."""
    micro_rows = int(session.auto["micro_rows"])
    return reference_loss(session.distiller, session.observed, micro_rows=micro_rows, world=session.world)


def token_rows(session: Session, *, step: int, texts: TokenTexts) -> list[dict[str, Any]]:
    """Rows for tokens.jsonl: the first validation rows, answered by the student as it is now; every rank must call it.

    Noise belongs to the row and not to the step, so that one row can be followed through a run. Empty without a
    teacher, without validation rows, or with `watch.rows` 0. Fields: docs/run-directory.md.
    """
    teacher, validator = session.teacher, session.validator
    if teacher is None or validator is None:
        return []
    items = tuple(((CORPUS, row.id), row) for row in validator.rows[: session.recipe.watch.rows])
    if not items:
        return []
    with evaluating(session.distiller.student), session.world.decoding(session.rollouts.decoder):
        if not session.world.is_main:
            return []
        rollouts = with_state(session)
        drawn = rollouts.student(items, purpose="tokens")
        revision = revise(session, drawn, rollouts=rollouts)
        evidence = _evidence(session, drawn, teacher) if revision is None else revision.evidence
        if evidence is None:
            return []
        looked = _looked(session, drawn, teacher=teacher, evidence=evidence, texts=texts)
    rows = []
    for place, (_, row) in enumerate(items):
        prompt = session.encoder.decode(drawn.tokens[place, : int(drawn.prompt_lengths[place])].tolist())
        found = _row(drawn, place, evidence=evidence, looked=looked, revision=revision, texts=texts)
        rows.append({"step": step, "id": row.id, "prompt": prompt, **found})
    return rows


def _evidence(session: Session, drawn: Sequences, teacher: Scorer) -> Evidence:
    """For a method that revises nothing, beside the teacher's most probable token."""
    student, rollouts = session.rollouts.decoder, session.rollouts
    assert isinstance(student, Viewer), "the decoder of a run reads whole rows too"
    return gather_evidence(
        drawn,
        student=student,
        teacher=teacher,
        noise=None,
        stop_ids=rollouts.sampling.stop_ids,
        chunk=int(session.auto["chunk"]),
        group_rows=rollouts.group_rows,
        device=rollouts.device,
    )


def _looked(
    session: Session, drawn: Sequences, *, teacher: Scorer, evidence: Evidence, texts: TokenTexts
) -> list[dict[str, Any]]:
    """What the token term keeps at each scored token; at those of the largest KL, of the likeliest classes."""
    decoder, device = session.rollouts.decoder, session.world.device
    if isinstance(decoder, RankedDecoder):
        decoder.announce()
    chosen = set(torch.topk(evidence.kl_student_teacher, min(_DISTRIBUTIONS, len(evidence.row))).indices.tolist())
    read = drawn.to(teacher.device)
    view = teacher.view(read, scored_tokens(read))
    looks = session.distiller.look(drawn.to(device), [view], chosen=chosen, num_classes=_CLASSES)
    return [
        {name: _rounded(value) for name, value in look.measured.items()}
        | ({} if look.classes is None else {"distribution": _distribution(look.classes, texts)})
        for look in looks
    ]


def _distribution(classes: ClassLook, texts: TokenTexts) -> dict[str, Any]:
    columns = {"teacher_logp": classes.teacher_logp, "student_logp": classes.student_logp, "gates": classes.gates}
    numbers = {
        name: [_rounded(value) for value in column.tolist()] for name, column in columns.items() if column is not None
    }
    return {"classes": [texts(id) for id in classes.ids[:_NAMED].tolist()], **numbers}


def _row(
    drawn: Sequences,
    place: int,
    *,
    evidence: Evidence,
    looked: list[dict[str, Any]],
    revision: Revision | None,
    texts: TokenTexts,
) -> dict[str, Any]:
    begins = int(drawn.prompt_lengths[place])
    tokens = [
        {
            "token": texts(int(evidence.drawn_token[n])),
            "teacher": texts(int(evidence.teacher_token[n])),
            "kl_student_teacher": _rounded(float(evidence.kl_student_teacher[n])),
            "kl_teacher_student": _rounded(float(evidence.kl_teacher_student[n])),
            "rank": int(evidence.rank[n]),
            **looked[n],
        }
        for n in (evidence.row == place).nonzero().squeeze(1).tolist()
    ]
    row: dict[str, Any] = {"tokens": tokens}
    corrections = () if revision is None else [each for each in revision.corrections if each.row == place]
    if revision is not None and corrections:
        after = revision.sequences
        row["corrected"] = [each.response_place for each in corrections]
        row["revised"] = [texts(id) for id in after.tokens[place, begins : int(after.lengths[place])].tolist()]
    return row


def sample_row(session: Session, step: int, result: StepResult, *, texts: TokenTexts) -> dict[str, Any]:
    """A row for samples.jsonl: the first row that a step learned from, as text, with what was corrected in it."""
    drawn, encoder = result.drawn, session.encoder
    row = {
        "step": step,
        "origin": drawn.origin[0],
        "key": list(drawn.keys[0]),
        "prompt": encoder.decode(drawn.tokens[0, : int(drawn.prompt_lengths[0])].tolist()),
        "response": encoder.decode(drawn.tokens[0, drawn.is_response[0]].tolist()),
    }
    corrections = [
        {
            "place": each.response_place,
            "drawn": texts(each.drawn_token),
            "teacher": texts(each.teacher_token),
            "kl": each.kl,
            "round": each.round,
        }
        for each in result.corrections
        if each.row == 0
    ]
    return row | ({"corrections": corrections} if corrections else {})


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
