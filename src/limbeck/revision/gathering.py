"""What a detector judges by: what both models say about the tokens of drawn rows, `[N V]` never formed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.losses.divergences import ForwardKL, ReverseKL
from limbeck.losses.fused import token_scores
from limbeck.losses.heads import tiles
from limbeck.losses.match import TokenScores
from limbeck.losses.views import HiddenView, chunks
from limbeck.models.sampling import Sampling, draw
from limbeck.models.scoring import Scored, Scorer, scored_tokens, split_rows
from limbeck.models.teacher_memory import TeacherMemory
from limbeck.revision.attending import view_with_attention
from limbeck.seeds import RowNoise
from limbeck.types import Evidence, Sequences

# Several blocks of [n V] exist at a time while a chunk is measured: on a CPU, of about this many numbers each.
_TILE_NUMBERS = 2**20

_IDS = ("teacher_token", "rank")
_NUMBERS = (
    "kl_student_teacher",
    "kl_teacher_student",
    "drawn_student_logp",
    "drawn_teacher_logp",
    "teacher_token_student_logp",
    "teacher_token_teacher_logp",
    "nucleus",
)
_NEEDED = ("attention", "uniform")


@runtime_checkable
class Viewer(Protocol):
    """A model that reads whole rows: a `Scorer`, or a decoder that is one.

    A `Scorer` gets the rows on its own device, any other viewer on the device that is named beside it.
    """

    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """Its distributions at the scored tokens, without gradient."""
        ...


@torch.no_grad()
def gather_evidence(
    sequences: Sequences,
    *,
    student: Viewer,
    teacher: Viewer,
    noise: RowNoise | None,
    stop_ids: Collection[int],
    chunk: int,
    group_rows: int,
    device: torch.device,
    corrected: Sequence[AbstractSet[int]] | None = None,
    needs: Collection[str] = (),
    detector_noise: RowNoise | None = None,
) -> Evidence:
    """What student and teacher say about every scored token of these rows, in float32, on the device of the rows.

    The teacher's token at position t of a row is one draw from its own distribution, nothing filtered:

        y^t_t = min { v : F(v) > u · F(V − 1) },  u = noise.at(row, t),  F cumulative at T = 1

    or, where `noise` is None, its most probable token. A token is eligible if it was generated (it stands in the
    response that closes the row, not behind the first stop token), differs from the teacher's, does not stand at one
    of the positions that `corrected` holds for its row, and has distributions without a NaN. A stop token of the
    teacher at the response's first position is none: it would leave an empty answer.

    `needs` names the columns that a detector reads beside:

        attention  from later response tokens, as `view_with_attention` has it: the teacher's one pass is eager then
        uniform    u = detector_noise.at(row, t), a number in [0, 1]

    Each model sees `group_rows` rows at a time: a row's evidence depends on nothing but the row, up to rounding.
    Calls of each viewer = the number of groups, even where no token is scored and whatever is needed. Raises
    `ConfigError` for a column in `needs` that nothing gathers, or that these arguments do not give.
    """
    _check_needs(needs, teacher=teacher, noise=detector_noise)
    where = scored_tokens(sequences)
    counts_B = sequences.scored.sum(dim=1)
    first_B = counts_B.cumsum(dim=0) - counts_B
    columns = {name: torch.zeros(len(where), dtype=torch.long, device=device) for name in _IDS}
    has_attention = "attention" in needs
    numbers = (*_NUMBERS, "attention") if has_attention else _NUMBERS
    columns |= {name: torch.zeros(len(where), dtype=torch.float32, device=device) for name in numbers}
    for group in split_rows(sequences, group_rows):
        places = [torch.arange(int(first_B[row]), int(first_B[row] + counts_B[row])) for row in group]
        index_N = torch.cat(places).to(device)
        part = sequences.rows(group).to(device)
        uniforms_N = None if noise is None else _uniforms(noise, scored_tokens(part), rows=group)
        own, (target, attention_N) = view_of(student, part), _teacher_view(teacher, part, has_attention=has_attention)
        if attention_N is not None:
            columns["attention"][index_N] = attention_N.to(device)
        for piece, values in _measured(part, own=own, target=target, uniforms_N=uniforms_N, chunk=chunk):
            for name, value_n in values.items():
                columns[name][index_N[piece]] = value_n.to(columns[name].dtype)
    home = sequences.tokens.device
    found = {name: column_N.to(home) for name, column_N in columns.items()}
    eligible_N = _eligible(sequences, where, found=found, stop_ids=stop_ids, corrected=corrected)
    needed = {"attention": found.pop("attention")} if has_attention else {}
    if "uniform" in needs and detector_noise is not None:
        needed["uniform"] = _uniforms(detector_noise, where, rows=range(len(sequences))).float().to(home)
    return Evidence(
        row=where.rows, position=where.positions, drawn_token=where.tokens, eligible=eligible_N, columns=needed, **found
    )


def _check_needs(needs: Collection[str], *, teacher: Viewer, noise: RowNoise | None) -> None:
    """Before anything is called, so that no rank waits for another that was refused."""
    unknown = sorted(set(needs).difference(_NEEDED))
    if unknown:
        known = ", ".join(_NEEDED)
        raise ConfigError(f"a detector needs {', '.join(unknown)} in its evidence\n  columns that exist: {known}")
    if "uniform" in needs and noise is None:
        raise ConfigError("a detector needs uniform in its evidence, but there is no noise\n  pass detector_noise")
    if "attention" in needs and not isinstance(_shown(teacher), Scorer):
        raise ConfigError(
            f"a detector needs attention in its evidence, which a {type(teacher).__name__} does not show"
            "\n  the teacher has to be a Scorer: a model with attention maps; or take a detector without that need"
        )


def generated(sequences: Sequences, *, stop_ids: Collection[int]) -> Bool[Tensor, "B S"]:
    """The tokens of the response that closes each row, up to and including its first stop token.

    >>> from limbeck.types import pack_rows
    >>> flags = [[False, True, False, True, True, True]]
    >>> rows = pack_rows([[5, 9, 6, 7, 9, 8]], flags, origin=["student"], keys=[(0,)], pad_id=0)
    >>> generated(rows, stop_ids={9}).tolist()
    [[False, False, False, True, True, False]]
    """
    places_S = torch.arange(sequences.tokens.shape[1], device=sequences.tokens.device)
    response_BS = sequences.is_response & (places_S >= sequences.prompt_lengths[:, None])
    stops_BS = response_BS & _among(sequences.tokens, stop_ids)
    return response_BS & (stops_BS.cumsum(dim=1) - stops_BS.long() == 0)


def _eligible(
    sequences: Sequences,
    where: Scored,
    *,
    found: Mapping[str, Tensor],
    stop_ids: Collection[int],
    corrected: Sequence[AbstractSet[int]] | None,
) -> Bool[Tensor, " N"]:
    free_BS = generated(sequences, stop_ids=stop_ids)
    for row, positions in enumerate(corrected or ()):
        free_BS[row, [position for position in positions if position < free_BS.shape[1]]] = False
    teacher_N = found["teacher_token"]
    empties_N = _among(teacher_N, stop_ids) & (where.positions == sequences.prompt_lengths[where.rows])
    is_known_N = ~(found["kl_student_teacher"].isnan() | found["kl_teacher_student"].isnan())
    return free_BS[where.rows, where.positions] & (where.tokens != teacher_N) & ~empties_N & is_known_N


def _among(tokens: Int[Tensor, "..."], ids: Collection[int]) -> Bool[Tensor, "..."]:
    return torch.isin(tokens, torch.tensor(sorted(ids), dtype=tokens.dtype, device=tokens.device))


def _uniforms(noise: RowNoise, where: Scored, *, rows: Sequence[int]) -> Float[Tensor, " N"]:
    """One number for each scored token; `rows[b]` is the noise's row of the rows' row b."""
    return torch.from_numpy(noise.at([rows[b] for b in where.rows.tolist()], where.positions.tolist()))


def view_of(viewer: Viewer, sequences: Sequences) -> HiddenView:
    """The viewer's distributions at the scored tokens of these rows; a `Scorer` gets them on its own device."""
    if isinstance(viewer, Scorer):
        sequences = sequences.to(viewer.device)
    return viewer.view(sequences, scored_tokens(sequences))


def _teacher_view(
    teacher: Viewer, sequences: Sequences, *, has_attention: bool
) -> tuple[HiddenView, Float[Tensor, " N"] | None]:
    if not has_attention:
        return view_of(teacher, sequences), None
    scorer = _shown(teacher)
    assert isinstance(scorer, Scorer), "checked before"
    sequences = sequences.to(scorer.device)
    return view_with_attention(scorer, sequences, scored_tokens(sequences))


def _shown(teacher: Viewer) -> Viewer:
    """The model itself, whose attention can be looked at; nothing of that pass is kept."""
    return teacher.scorer if isinstance(teacher, TeacherMemory) else teacher


def _measured(
    sequences: Sequences, *, own: HiddenView, target: HiddenView, uniforms_N: Tensor | None, chunk: int
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Slices of the scored tokens of these rows, with every column at them."""
    device = sequences.tokens.device
    where = scored_tokens(sequences)
    tokens_N = where.tokens.to(own.hidden.device)
    walk = token_scores(own.hidden, head=own.head, tokens_N=tokens_N, views=[target], chunk=chunk)
    for part, scores in zip(chunks(len(where), chunk), walk, strict=True):
        for tile in tiles(scores.student_logp, numbers=_TILE_NUMBERS):
            piece = slice(part.start + tile.start, part.start + tile.stop)
            values = _columns(scores, tile, uniforms_n=None if uniforms_N is None else uniforms_N[piece])
            yield piece, {name: value_n.to(device) for name, value_n in values.items()}


def _columns(scores: TokenScores, tile: slice, *, uniforms_n: Tensor | None) -> dict[str, Tensor]:
    assert scores.target_logp is not None
    student_nV, teacher_nV = scores.student_logp[tile], scores.target_logp[tile]
    drawn_n = scores.tokens[tile]
    if uniforms_n is None:
        said_n = teacher_nV.argmax(dim=-1)
    else:
        said_n = draw(teacher_nV, uniforms_b=uniforms_n, sampling=Sampling())[0]
    drawn_teacher_n = _at(teacher_nV, drawn_n)
    above_nV = teacher_nV > drawn_teacher_n[:, None]
    return {
        "teacher_token": said_n,
        "kl_student_teacher": ReverseKL()(target_logp=teacher_nV, student_logp=student_nV),
        "kl_teacher_student": ForwardKL()(target_logp=teacher_nV, student_logp=student_nV),
        "drawn_student_logp": _at(student_nV, drawn_n),
        "drawn_teacher_logp": drawn_teacher_n,
        "teacher_token_student_logp": _at(student_nV, said_n),
        "teacher_token_teacher_logp": _at(teacher_nV, said_n),
        "rank": above_nV.sum(dim=-1),
        "nucleus": teacher_nV.exp().mul_(above_nV).sum(dim=-1),
    }


def _at(logp_nV: Float[Tensor, "n V"], tokens_n: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    return logp_nV.gather(1, tokens_n[:, None]).squeeze(1)
