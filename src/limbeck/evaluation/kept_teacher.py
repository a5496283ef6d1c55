"""A teacher that has read the same rows before: the references, which every arm of a study is compared on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from limbeck.losses.views import HiddenView
from limbeck.models.scoring import Scored, Scorer
from limbeck.models.teacher_cache import row_names
from limbeck.types import Sequences

_STATES = "states"


class KeptTeacher:
    """A teacher whose final hidden states are kept in `folder`, a file for each group of rows that it reads together.

    D numbers a token; the head's product is formed each time. A number of the teacher depends, in its last bits, on the
    rows that were read beside it: a group is known by all its rows, their width, and the teacher's device, dtype and
    version of torch. `folder` belongs to one teacher: its owner names it by a hash of the weights. A file that is
    damaged is made again. A teacher that cannot be split into body and head is read each time.
    """

    def __init__(self, teacher: Scorer, folder: Path) -> None:
        self._teacher = teacher
        self._folder = folder

    @property
    def device(self) -> torch.device:
        """Where the teacher computes."""
        return self._teacher.device

    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """The teacher at the scored tokens of these rows."""
        if not self._teacher.split:
            return self._teacher.view(sequences, where)
        head = self._teacher.head.detached()
        path = self._folder / f"{self._name(sequences)}.safetensors"
        try:
            states = load_file(path)[_STATES].to(self.device)
        except (FileNotFoundError, SafetensorError, KeyError):
            view = self._teacher.view(sequences, where)
            self._keep(path, view)
            return view
        return HiddenView(hidden=states, head=head.in_dtype(states.dtype))

    def _keep(self, path: Path, view: HiddenView) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under the name of the process: two may read the same group at a time, and either file is as good.
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        save_file({_STATES: view.hidden.detach().cpu().contiguous()}, draft)
        os.replace(draft, path)

    def _name(self, sequences: Sequences) -> str:
        digest = hashlib.blake2b(digest_size=16)
        weights = next(self._teacher.model.parameters())
        for part in (torch.__version__, self.device.type, weights.dtype, tuple(sequences.tokens.shape)):
            digest.update(f"{part};".encode())
        for name in row_names(sequences):
            digest.update(name)
        return digest.hexdigest()
