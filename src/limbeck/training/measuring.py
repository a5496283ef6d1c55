"""What is measured of responses beside the loss: what the student writes by itself, and what a revision made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.evaluation.scorers import distinct
from limbeck.models.scoring import scored_tokens
from limbeck.revision.correcting import Measures, Revision
from limbeck.sequences.source import Item
from limbeck.types import RowKey, Sequences

_OWN, _REFERENCE = "student", "reference"


def distinct_2(tokens: Sequence[int]) -> float | None:
    """Distinct pairs of neighbouring tokens / pairs; None below two tokens. 1 for a text that repeats no pair.

    >>> distinct_2([5, 6, 5, 6, 5]), distinct_2([1, 2, 3]), distinct_2([1])
    (0.5, 1.0, None)
    """
    return distinct(tokens, 2) if len(tokens) > 1 else None


def own_responses(
    drawn: Sequences, *, items: Sequence[Item], stop_ids: AbstractSet[int], total: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """What the student wrote in this step before any revision, beside what the corpus has, over all ranks.

        tokens                mean length of the responses that the student drew, end-of-turn included
        at_limit              share of them that did not end with a stop token
        distinct_2            mean over them of distinct token pairs / token pairs
        reference_tokens, reference_distinct_2    the same of the references of this step's rows

    Empty in a step without such responses. `total` sums over ranks: every rank must call it.
    """
    own = [_response(drawn, row) for row, origin in enumerate(drawn.origin) if origin == _OWN]
    references = [row.tokens[len(row.prompt) :] for _, row in items]
    open_ended = sum(not response or response[-1] not in stop_ids for response in own)
    sums = torch.tensor([*_sums(own), *_sums(references), open_ended], dtype=torch.float64)
    rows, tokens, pairs, distinct, *of_references, at_limit = total(sums).tolist()
    if not rows:
        return {}
    found = {"tokens": tokens / rows, "at_limit": at_limit / rows}
    found |= {"distinct_2": distinct / pairs} if pairs else {}
    rows, tokens, pairs, distinct = of_references
    found |= {"reference_tokens": tokens / rows} if rows else {}
    found |= {"reference_distinct_2": distinct / pairs} if pairs else {}
    return found


def _response(sequences: Sequences, row: int) -> list[int]:
    begins, ends = int(sequences.prompt_lengths[row]), int(sequences.lengths[row])
    response: list[int] = sequences.tokens[row, begins:ends].tolist()
    return response


def _sums(responses: Sequence[Sequence[int]]) -> list[float]:
    """Responses and their tokens; responses with a pair, and the sum of their `distinct_2`."""
    shares = [share for share in map(distinct_2, responses) if share is not None]
    return [float(each) for each in (len(responses), sum(map(len, responses)), len(shares), sum(shares))]


def first_corrections(revision: Revision | None) -> dict[RowKey, int]:
    """By the key of each corrected row: the position from which it is no longer what was drawn."""
    begins: dict[RowKey, int] = {}
    if revision is None:
        return begins
    for each in revision.corrections:
        key = revision.sequences.keys[each.row]
        begins[key] = min(each.position, begins.get(key, each.position))
    return begins


def redrawn_tokens(sequences: Sequences, begins: Mapping[RowKey, int]) -> Float[Tensor, " N"]:
    """1 at each scored token of a corrected row from its first correction on, 0 at all others."""
    where = scored_tokens(sequences)
    never = sequences.tokens.shape[1]
    # References of the same items bear the same keys; so does a row that a buffer gives back in its own step.
    first_B = torch.tensor(
        [
            never if origin == _REFERENCE else begins.get(key, never)
            for key, origin in zip(sequences.keys, sequences.origin, strict=True)
        ],
        dtype=torch.long,
        device=sequences.tokens.device,
    )
    return (where.positions >= first_B[where.rows]).float()


def revision_row(
    revision: Revision | None,
    *,
    begins: Mapping[RowKey, int],
    after: tuple[float, float],
    total: Callable[[Tensor], Tensor],
) -> dict[str, Any]:
    """What was revised, over all ranks: `revision` of metrics.jsonl; nothing where no row was drawn.

    `begins` are the `first_corrections`. `after` is Σ log p(token), p the teacher, over the tokens that corrections and
    re-drawing brought in, and their number, both summed over ranks already; without any, `teacher_logp_after` is left
    out. `total` sums over ranks: every rank must call it.
    """
    if revision is None:
        return {}
    numbers = torch.tensor([*revision.measures.numbers(), *_replaced(revision, begins)], dtype=torch.float64)
    *measures, logp, tokens = total(numbers).tolist()
    row = Measures.of(measures).row()
    row |= {"teacher_logp_before": logp / tokens} if tokens else {}
    row |= {"teacher_logp_after": after[0] / after[1]} if after[1] else {}
    return {"revision": row} if row else {}


def _replaced(revision: Revision, begins: Mapping[RowKey, int]) -> tuple[float, int]:
    """Σ log p(token) over the tokens that were taken away, and their number."""
    evidence, never = revision.evidence, torch.iinfo(torch.long).max
    if evidence is None:
        return 0.0, 0
    first = [begins.get(revision.sequences.keys[row], never) for row in revision.looked_at]
    first_R = torch.tensor(first, dtype=torch.long, device=evidence.row.device)
    gone_N = evidence.position >= first_R[evidence.row]
    return float(evidence.drawn_teacher_logp[gone_N].double().sum()), int(gone_N.sum())
