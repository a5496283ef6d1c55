"""The ranks of a run: one by default, several under `torchrun` or `accelerate launch`; and how the Distiller is wrapped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from limbeck.errors import ConfigError
from limbeck.models.extending import CausalDecoder
from limbeck.training.distiller import Distiller

Strategy = Literal["auto", "ddp", "fsdp"]


@dataclass(frozen=True, kw_only=True)
class World:
    """Which rank this is, of how many, on which device, and whether weights are sharded over them."""

    accelerator: Accelerator
    strategy: Literal["none", "ddp", "fsdp"]

    @classmethod
    def start(cls, *, device: str = "auto", strategy: Strategy = "auto") -> World:
        """Join the processes that the launcher started; one process where there was none.

        `strategy` "auto" is DDP on several ranks. Raises `ConfigError` for "fsdp" on one rank.
        """
        accelerator = Accelerator(cpu=device == "cpu", gradient_accumulation_steps=1)
        size = accelerator.num_processes
        if size == 1:
            if strategy == "fsdp":
                raise ConfigError(
                    "train.strategy is 'fsdp', but only one process runs; start several with\n"
                    "  torchrun --nproc-per-node N -m limbeck train ..."
                )
            return cls(accelerator=accelerator, strategy="none")
        return cls(accelerator=accelerator, strategy="fsdp" if strategy == "fsdp" else "ddp")

    @property
    def rank(self) -> int:
        """This process, from 0."""
        return int(self.accelerator.process_index)

    @property
    def size(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this rank's student lives."""
        device: torch.device = self.accelerator.device
        return device

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over ranks; the tensor itself where there is one."""
        if self.size == 1:
            return numbers
        total = numbers.detach().to(self.device).clone()
        dist.all_reduce(total)
        return total.to(numbers.device)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag))) > 0)

    def gather(self, rows: list[Any]) -> list[Any]:
        """The rows of all ranks, rank after rank, on every rank."""
        if self.size == 1:
            return rows
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, rows)
        return [row for part in gathered for row in part]

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, distiller: Distiller) -> nn.Module:
        """The Distiller as it is, inside DDP, or sharded in place by FSDP2.

        accelerate leaves its FSDP plug-in aside on a CPU without a word, so `fully_shard` is called here on every
        decoder layer and then on the whole.
        """
        if self.strategy == "none":
            return distiller
        if self.strategy == "ddp":
            wrapped: nn.Module = self.accelerator.prepare_model(distiller)
            return wrapped
        for layer in _decoder_layers(distiller.student):
            fully_shard(layer)
        fully_shard(distiller)
        register_fsdp_forward_method(distiller, "next_logp")
        return distiller

    def accumulate(self, module: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
        """Around the forward and backward of a micro-batch: gradients cross the ranks after the last one only."""
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(is_last)
            return nullcontext()
        if self.strategy == "ddp" and not is_last:
            context: AbstractContextManager[Any] = self.accelerator.no_sync(module)
            return context
        return nullcontext()

    def decoder(self, distiller: Distiller) -> CausalDecoder | RankedDecoder:
        """The student as a decoder; with sharded weights every rank takes the same number of steps."""
        if self.strategy != "fsdp":
            return CausalDecoder(distiller.scorer)
        return RankedDecoder(distiller, self)


class RankedDecoder:
    """A sharded student: each forward gathers weights from all ranks, so all ranks must call it equally often."""

    def __init__(self, distiller: Distiller, world: World) -> None:
        self._distiller = distiller
        self._world = world
        self._own = CausalDecoder(distiller.scorer)

    def start(self) -> Any:
        """An empty cache."""
        return self._own.start()

    def next_logp(
        self,
        tokens: Int[Tensor, "b new"],
        *,
        attended: Bool[Tensor, "b past_and_new"],
        positions: Int[Tensor, "b new"],
        cache: Any,
    ) -> Float[Tensor, "b V"]:
        """Log-probabilities of what follows the last column."""
        return self._distiller.next_logp(tokens, attended=attended, positions=positions, cache=cache)

    def keep(self, cache: Any, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows go on."""
        self._own.keep(cache, rows)

    def proceed(self, active: bool) -> bool:
        """Whether any rank still has rows."""
        return self._world.any(active)

    def idle(self) -> None:
        """A forward of one token, for the other ranks' sake."""
        one = torch.zeros((1, 1), dtype=torch.long, device=self._world.device)
        self._distiller.next_logp(one, attended=one == 0, positions=one, cache=self.start())


def _decoder_layers(student: nn.Module) -> Iterator[nn.Module]:
    """The repeated blocks: the modules of every list whose entries share one class."""
    for module in student.modules():
        if isinstance(module, nn.ModuleList) and len({type(entry) for entry in module}) == 1 and len(module) > 1:
            yield from module
            return


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards, on the CPU; every rank must call it."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


def placed_like(full: Tensor, reference: Tensor) -> Tensor:
    """A whole tensor placed, and sharded, as `reference` is."""
    moved = full.to(device=reference.device, dtype=reference.dtype)
    if isinstance(reference, DTensor):
        return distribute_tensor(moved, reference.device_mesh, reference.placements)
    return moved
