"""A teacher that is not there: its views, from the rows of an offline cache; and how a view becomes such rows."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from limbeck.errors import DataError
from limbeck.losses.heads import Head
from limbeck.losses.sparse_views import SparseView
from limbeck.losses.views import HiddenView, TeacherView, chunks
from limbeck.models.offline_cache import HEAD, TEACHER, Shards, damaged_line, file_sum, flush
from limbeck.models.pair import Vocabulary
from limbeck.models.sparse_coding import CodedTokens, decoded, encoded
from limbeck.models.teacher_cache import row_names
from limbeck.seeds import Seeds
from limbeck.types import Sequences

_SAMPLED = 64
_NAMES = ("counts", "ids", "codes", "rest")


class OfflineTeacher:
    """The views of a teacher whose work lies in a folder; `device` is where the student is.

    A `hidden` cache gives the distributions that the teacher gives, by its head. A `topk` cache gives some classes of
    each and the mass of the rest (`SparseView`). Raises `DataError` for a row that the cache does not have.
    """

    def __init__(self, shards: Shards, *, vocabulary: Vocabulary, device: torch.device) -> None:
        self.shards = shards
        self._vocabulary = vocabulary
        self._device = device
        self._head: Head | None = None
        if shards.manifest.kind == "hidden":
            self._head = self._loaded_head()

    def read(self, sequences: Sequences) -> TeacherView:
        """The teacher at the scored tokens of these rows, row after row."""
        counts = sequences.scored.sum(dim=1).tolist()
        rows = []
        for name, count in zip(row_names(sequences), counts, strict=True):
            if not count:
                continue
            if name not in self.shards:
                raise DataError(f"a row of {count} response tokens is not in the teacher cache {self.shards.folder}")
            rows.append(self.shards.row(name))
        return self._hidden_view(rows) if self._head is not None else self._sparse_view(rows)

    def _hidden_view(self, rows: Sequence[dict[str, Tensor]]) -> HiddenView:
        assert self._head is not None, "only a hidden cache is asked for hidden states"
        about = self.shards.manifest.about
        nothing = torch.zeros((0, int(about["width"])), dtype=getattr(torch, about["teacher"]["dtype"]))
        hidden_ND = torch.cat([nothing, *(row["hidden"] for row in rows)]).to(self._device)
        return HiddenView(hidden=hidden_ND, head=self._head.in_dtype(hidden_ND.dtype))

    def _sparse_view(self, rows: Sequence[dict[str, Tensor]]) -> SparseView:
        size, shared = self._vocabulary.width, self._vocabulary.shared
        ids_nm, logp_nm, rest_n = decoded(joined_rows(rows))
        return SparseView(
            ids=torch.from_numpy(np.where(ids_nm < 0, size, ids_nm)).to(self._device),
            logp=torch.from_numpy(logp_nm.astype(np.float32)).to(self._device),
            rest=torch.from_numpy(rest_n.astype(np.float32)).to(self._device),
            size=size,
            shared=shared,
        )

    def _loaded_head(self) -> Head:
        about, folder = self.shards.manifest.about, self.shards.folder
        if file_sum(folder / HEAD) != about["head"]["sum"]:
            raise DataError(damaged_line(folder, HEAD))
        tensors = load_file(folder / HEAD)
        shared = self._vocabulary.shared
        return Head(
            weight=tensors["weight"].to(self._device),
            bias=tensors["bias"].to(self._device) if "bias" in tensors else None,
            size=self._vocabulary.width,
            shared=None if shared is None else shared.to(self._device),
            scale=float(about["head"]["scale"]),
            softcap=about["head"]["softcap"],
        )


def write_teacher(
    folder: Path, about: Mapping[str, Any], *, head: Mapping[str, Tensor], described_by: Sequence[Any]
) -> None:
    """Put the teacher's tokenizer, config and head into a cache, where they are missing or not what they should be.

    `head` are its tensors, none of a `topk` cache, and `described_by` the tokenizer and the config.
    """
    draft = folder / f".{TEACHER}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    for part in described_by:
        part.save_pretrained(draft)
    if _sums(draft) != _sums(folder / TEACHER):
        shutil.rmtree(folder / TEACHER, ignore_errors=True)
        draft.rename(folder / TEACHER)
    shutil.rmtree(draft, ignore_errors=True)
    if head and file_sum(folder / HEAD) != about["head"]["sum"]:
        draft = folder / f".{HEAD}.draft"
        save_file({name: value.contiguous() for name, value in head.items()}, draft)
        flush(draft)
        os.replace(draft, folder / HEAD)


def _sums(folder: Path) -> dict[Path, str]:
    return {path.relative_to(folder): file_sum(path) for path in folder.rglob("*") if path.is_file()}


def joined_rows(rows: Sequence[dict[str, Tensor]]) -> CodedTokens:
    """The tokens of several coded rows, row after row."""
    columns: dict[str, Any] = {}
    for name in _NAMES:
        kind = np.uint8 if name in ("counts", "ids") else np.uint16
        parts = [row[name].numpy().view(kind) for row in rows]
        columns[name] = np.concatenate([np.zeros(0, dtype=kind), *parts])
    return CodedTokens(**columns)


@torch.no_grad()
def coded_rows(
    view: HiddenView,
    *,
    tokens_N: Int[Tensor, " N"],
    counts: Sequence[int],
    names: Sequence[bytes],
    top: int,
    draws: int | None,
    chunk: int,
) -> list[dict[str, Tensor]]:
    """The rows of a view as columns of a `topk` cache; `counts` are the scored tokens of each row.

    Of each token the `top` likeliest classes, the token that stands there, and the mass of all others. With `draws`,
    so many classes drawn from the teacher in their place (Anshumann et al., arXiv 2503.16870, with the teacher itself
    as proposal): t̂_v = times drawn / draws, so that E[t̂] = t, with the noise of the row's name.
    """
    uniforms_N = None
    if draws is not None:
        rows = [
            Seeds(0).child("teacher-cache", name.hex()).generator().random((count, draws))
            for name, count in zip(names, counts, strict=True)
        ]
        uniforms_N = torch.from_numpy(np.concatenate(rows))
    pieces = []
    for part in chunks(len(tokens_N), chunk):
        logp_nV = view.log_probabilities(part)
        if uniforms_N is None:
            pieces.append(_likeliest(logp_nV, tokens_N[part], top=top))
        else:
            pieces.append(_drawn(logp_nV, uniforms_N[part].to(logp_nV.device)))
    ids_N, logp_N, counts_N, rest_N = (np.concatenate([piece[place] for piece in pieces]) for place in range(4))
    found, first = [], 0
    for count in counts:
        own = slice(first, first + count)
        coded = encoded(ids_N[own], logp_N[own], counts_n=counts_N[own], rest_n=rest_N[own])
        columns = {name: getattr(coded, name) for name in _NAMES}
        # safetensors and torch agree on signed numbers of 16 bits everywhere.
        signed = {name: each.view(np.int16) if each.dtype == np.uint16 else each for name, each in columns.items()}
        found.append({name: torch.from_numpy(each.copy()) for name, each in signed.items()})
        first += count
    return found


def _likeliest(logp_nV: Float[Tensor, "n V"], tokens_n: Int[Tensor, " n"], *, top: int) -> tuple[Any, Any, Any, Any]:
    num_classes = int((logp_nV[:1] > -torch.inf).sum()) if len(logp_nV) else 0
    ids_nm = torch.topk(logp_nV, min(top + 1, num_classes), dim=-1).indices
    tokens_n1 = tokens_n.to(ids_nm.device).unsqueeze(1)
    is_in_n1 = (ids_nm == tokens_n1).any(dim=1, keepdim=True)
    last = torch.where(is_in_n1, ids_nm[:, -1:], tokens_n1)
    ids_nm = torch.cat([ids_nm[:, :-1], last], dim=1).sort(dim=1).values
    rest_n = logp_nV.double().scatter(1, ids_nm, -torch.inf).logsumexp(dim=-1)
    counts_n = torch.full((len(ids_nm),), ids_nm.shape[1])
    logp_nm = logp_nV.double().gather(1, ids_nm)
    return ids_nm.cpu().numpy(), logp_nm.cpu().numpy(), counts_n.numpy(), rest_n.cpu().numpy()


def _drawn(logp_nV: Float[Tensor, "n V"], uniforms_nd: Float[Tensor, "n d"]) -> tuple[Any, Any, Any, Any]:
    cumulative_nV = logp_nV.double().exp().cumsum(dim=-1)
    found_nd = torch.searchsorted(cumulative_nV, uniforms_nd * cumulative_nV[:, -1:], right=True)
    ids_nd = found_nd.clamp(max=logp_nV.shape[1] - 1).sort(dim=1).values.cpu().numpy()
    draws = ids_nd.shape[1]
    is_first = np.concatenate([np.ones((len(ids_nd), 1), dtype=bool), ids_nd[:, 1:] != ids_nd[:, :-1]], axis=1)
    counts_n = is_first.sum(axis=1)
    ids_nm, times_nm = np.zeros_like(ids_nd), np.zeros(ids_nd.shape)
    is_there = np.arange(draws) < counts_n[:, None]
    places = np.concatenate([np.flatnonzero(is_first), [is_first.size]])
    ids_nm[is_there] = ids_nd[is_first]
    times_nm[is_there] = np.diff(places)
    with np.errstate(divide="ignore"):
        logp_nm = np.log(times_nm / draws)
    return ids_nm, logp_nm, counts_n, np.full(len(ids_nm), -np.inf)


def folder_fingerprint(folder: Path) -> str | None:
    """A hash of some sixty numbers of every tensor in a model's folder, without loading it; None without safetensors.

    It tells a model from itself trained further at the cost of a few pages of each file.
    """
    files = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter"))
    if not files:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with safe_open(path, framework="pt") as opened:
            for name in sorted(opened.keys()):
                tensor = opened.get_tensor(name).flatten()
                sampled = tensor[:: max(1, len(tensor) // _SAMPLED)].float()
                digest.update(repr((name, len(tensor))).encode() + sampled.numpy().tobytes())
    return digest.hexdigest()


def whole_fingerprint(model: torch.nn.Module) -> str:
    """A hash of every number of every parameter: the revision of a teacher."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in model.named_parameters():
        digest.update(repr((name, tuple(parameter.shape), str(parameter.dtype))).encode())
        digest.update(parameter.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
