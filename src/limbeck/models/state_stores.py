"""Where hidden states of rows are kept: in memory, or in one file whose damaged parts are as good as not there."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.errors import ConfigError


@runtime_checkable
class StateStore(Protocol):
    """Hidden states by the name of their row. What it has lost, its owner computes again and puts back."""

    def put(self, name: bytes, states: Float[Tensor, "n D"]) -> None:
        """Keep the states of a row; a second time under the same name, in the same place."""
        ...

    def get(self, name: bytes) -> Float[Tensor, "n D"] | None:
        """The states of a row, on the CPU; None where they are not there any more."""
        ...

    def drop(self, name: bytes) -> None:
        """Forget a row."""
        ...

    def state(self, names: Sequence[bytes]) -> Mapping[str, Tensor]:
        """What has to be remembered beside the names to find these rows again."""
        ...

    def restore(self, names: Sequence[bytes], state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`; nothing else is there afterwards."""
        ...

    def close(self) -> None:
        """Let everything go."""
        ...


class MemoryStore:
    """Rows in this process's memory; after a kill nothing is left.

    >>> store = MemoryStore()
    >>> store.put(b"a", torch.ones(1, 2))
    >>> store.get(b"a").tolist(), store.get(b"b")
    ([[1.0, 1.0]], None)
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, Tensor] = {}

    def put(self, name: bytes, states: Float[Tensor, "n D"]) -> None:
        """A copy: a part of a batch would keep the whole batch in memory."""
        self._rows[name] = states.detach().to("cpu", copy=True)

    def get(self, name: bytes) -> Float[Tensor, "n D"] | None:
        """The states of a row."""
        return self._rows.get(name)

    def drop(self, name: bytes) -> None:
        """Forget a row."""
        self._rows.pop(name, None)

    def state(self, names: Sequence[bytes]) -> Mapping[str, Tensor]:
        """Nothing outlives the process."""
        return {}

    def restore(self, names: Sequence[bytes], state: Mapping[str, Tensor]) -> None:
        """All rows are to be computed again."""
        self._rows.clear()

    def close(self) -> None:
        """Let everything go."""
        self._rows.clear()


@dataclass(frozen=True)
class _Extent:
    """Where a row lies in the file, and the CRC-32 of its bytes."""

    offset: int
    size: int
    sum: int


class FileStore:
    """Rows in one file that grows at its end, raw bytes of one dtype and width.

    A row read for the first time since `restore` is compared with its CRC-32: one that was cut off, damaged or never
    written down is not there, and may be put again. The file is made at the first `put`, and removed by `close`.
    """

    def __init__(self, path: Path, *, width: int, dtype: torch.dtype) -> None:
        self.path = path
        self._width = width
        self._dtype = dtype
        self._extents: dict[bytes, _Extent] = {}
        self._trusted: set[bytes] = set()
        self._end = 0
        self._descriptor: int | None = None

    def put(self, name: bytes, states: Float[Tensor, "n D"]) -> None:
        """Write a row where it lay, or at the end. Raises `ConfigError` for another dtype than the file's."""
        if states.dtype != self._dtype:
            raise ConfigError(
                f"the teacher's hidden states are {states.dtype} and its weights {self._dtype}; a file of states has"
                " one dtype.\n  Set cache.kind to memory, or off"
            )
        whole = states.detach().to("cpu").contiguous()
        data = whole.view(torch.uint8).numpy().tobytes() if whole.numel() else b""
        known = self._extents.get(name)
        extent = _Extent(self._end if known is None else known.offset, len(data), zlib.crc32(data))
        written = 0
        while written < len(data):
            written += os.pwrite(self._opened(), data[written:], extent.offset + written)
        self._extents[name] = extent
        self._trusted.add(name)
        self._end = max(self._end, extent.offset + extent.size)

    def get(self, name: bytes) -> Float[Tensor, "n D"] | None:
        """A row, read from the file."""
        extent = self._extents.get(name)
        if extent is None:
            return None
        data = bytearray(os.pread(self._opened(), extent.size, extent.offset)) if extent.size else bytearray()
        if name not in self._trusted:
            if len(data) != extent.size or zlib.crc32(data) != extent.sum:
                return None
            self._trusted.add(name)
        if not data:
            return torch.zeros((0, self._width), dtype=self._dtype)
        return torch.frombuffer(data, dtype=self._dtype).view(-1, self._width)

    def drop(self, name: bytes) -> None:
        """Forget a row; its place is used again where it was the last one."""
        extent = self._extents.pop(name, None)
        self._trusted.discard(name)
        if extent is not None and extent.offset + extent.size == self._end:
            self._end = extent.offset

    def state(self, names: Sequence[bytes]) -> Mapping[str, Tensor]:
        """Where each row lies. What stands there is on the disk when this returns."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
        extents = [self._extents[name] for name in names]
        numbers = [[each.offset, each.size, each.sum] for each in extents]
        return {"extents": torch.tensor(numbers, dtype=torch.long).reshape(len(numbers), 3)}

    def restore(self, names: Sequence[bytes], state: Mapping[str, Tensor]) -> None:
        """Rows that were written after `state` was taken are not there any more."""
        numbers = state["extents"].tolist()
        self._extents = {name: _Extent(*each) for name, each in zip(names, numbers, strict=True)}
        self._trusted.clear()
        self._end = max((each.offset + each.size for each in self._extents.values()), default=0)

    def close(self) -> None:
        """Remove the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self.path.unlink(missing_ok=True)
        # Another process may have its file there still, or have removed the folder already.
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def _opened(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        return self._descriptor
