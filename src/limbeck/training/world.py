"""The ranks of a run: one by default, several under a launcher; and how the Distiller is wrapped for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from limbeck.errors import ConfigError, LimbeckError, LostRank
from limbeck.losses.fused import HiddenView
from limbeck.models.decoders import CausalDecoder, Decoder
from limbeck.models.loading import resolve_device
from limbeck.models.prefixes import Layers
from limbeck.models.scoring import Scored
from limbeck.training.distiller import Distiller
from limbeck.training.stopping import how_to_resume
from limbeck.types import Sequences, pack_rows

Strategy = Literal["auto", "ddp", "fsdp"]

# What torchrun and accelerate set, and what MPI launchers do.
_NUMBER_OF_PROCESSES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# What gloo and NCCL say when the other end of a connection is gone.
_LOST = ("by peer", "Broken pipe", "remote worker", "ncclRemoteError", "remote process")
_WRAPPED_ELSEWHERE = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


@dataclass(frozen=True, kw_only=True)
class World:
    """Which rank this is, of how many, on which device, and whether weights are sharded over them."""

    rank: int
    size: int
    device: torch.device
    strategy: Literal["none", "ddp", "fsdp"]
    accelerator: Accelerator | None = None

    @classmethod
    def start(cls, *, device: str = "auto", strategy: Strategy = "auto") -> World:
        """Join the processes that the launcher started; one process where there was none.

        `strategy` "auto" is DDP on several ranks. Returns when all ranks are there. Raises `ConfigError` for "fsdp" on
        one rank, and where accelerate was told to shard.
        """
        own = resolve_device(device)
        launched = max(int(os.environ.get(name) or 1) for name in _NUMBER_OF_PROCESSES)
        if launched == 1:
            if strategy == "fsdp":
                raise ConfigError(
                    "train.strategy is 'fsdp', but only one process runs; start several with\n"
                    "  torchrun --nproc-per-node N -m limbeck train ..."
                )
            return cls(rank=0, size=1, device=own, strategy="none")
        # accelerate looks for several processes on a CPU only if it is told that a CPU is meant; and a mixed precision
        # of its own configuration would come on top of train.precision.
        accelerator = Accelerator(cpu=own.type == "cpu", mixed_precision="no", gradient_accumulation_steps=1)
        if accelerator.num_processes != launched or accelerator.distributed_type in _WRAPPED_ELSEWHERE:
            raise ConfigError(
                f"{launched} processes were started, which accelerate makes {accelerator.num_processes} of kind "
                f"{accelerator.distributed_type.value}.\n"
                "  Start them with: torchrun --nproc-per-node N -m limbeck train ...\n"
                "  and say how weights are spread by train.strategy (ddp or fsdp)."
            )
        world = cls(
            rank=int(accelerator.process_index),
            size=launched,
            device=own if own.type == "cpu" else accelerator.device,
            strategy="fsdp" if strategy == "fsdp" else "ddp",
            accelerator=accelerator,
        )
        world.barrier()
        return world

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

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
        self.any(False)

    def wrap(self, distiller: Distiller) -> nn.Module:
        """The Distiller as it is, inside DDP, or sharded in place by FSDP2.

        accelerate leaves its FSDP plug-in aside on a CPU without a word, so `fully_shard` is called here on every
        decoder layer and then on the whole.
        """
        if self.accelerator is None:
            return distiller
        if self.strategy == "ddp":
            wrapped: nn.Module = self.accelerator.prepare_model(distiller)
            _settle_buckets(wrapped, self.device)
            return wrapped
        mesh = init_device_mesh(self.device.type, (self.size,))
        for layer in _decoder_layers(distiller.student):
            fully_shard(layer, mesh=mesh)
        # By default the outermost part would stay gathered after a forward without backward, and the optimizer and
        # the checkpoints would then not know its parameters.
        fully_shard(distiller, mesh=mesh, reshard_after_forward=True)
        for forward in ("next_logp", "view", "look"):
            register_fsdp_forward_method(distiller, forward)
        return distiller

    def accumulate(self, module: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
        """Around the forward and backward of a micro-batch: gradients cross the ranks after the last one only."""
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(is_last)
            return nullcontext()
        if self.accelerator is not None and not is_last:
            context: AbstractContextManager[Any] = self.accelerator.no_sync(module)
            return context
        return nullcontext()

    def decoder(self, distiller: Distiller) -> CausalDecoder | RankedDecoder:
        """The student as a decoder; use it inside `decoding`."""
        if self.strategy != "fsdp":
            return CausalDecoder(distiller.scorer)
        return RankedDecoder(distiller, self)

    @contextmanager
    def decoding(self, decoder: Decoder) -> Iterator[None]:
        """Around all that is drawn with a decoder: a rank that is done helps the others until all are done.

        Nothing inside may speak to the other ranks in another way.
        """
        yield
        if isinstance(decoder, RankedDecoder):
            decoder.help_others()


class RankedDecoder:
    """A sharded student: each forward gathers weights from all ranks, so all ranks must take it at the same time.

    Ranks have rows of different lengths and different numbers of them. Before each forward they agree that somebody
    takes one; which rows a rank feeds it, and whether it needs it at all, is its own business.
    """

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
        self._world.any(True)
        return self._distiller.next_logp(tokens, attended=attended, positions=positions, cache=cache)

    def keep(self, cache: Any, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows go on."""
        self._own.keep(cache, rows)

    def joins(self, cache: Any) -> bool:
        """Whether rows come in while others go on; how many forwards that takes is this rank's own business."""
        return self._own.joins(cache)

    def joined(self, caches: Sequence[Any], *, width: int) -> Any:
        """One cache with the rows of all; they are whole on each rank."""
        return self._own.joined(caches, width=width)

    def take(self, cache: Any, row: int, *, length: int) -> Layers | None:
        """A row's keys and values; they are whole on each rank."""
        return self._own.take(cache, row, length=length)

    def give(self, rows: Sequence[Layers]) -> Any:
        """A cache of these rows."""
        return self._own.give(rows)

    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """The student's distributions at the scored tokens of whole rows; it gathers what a step of decoding does."""
        self._world.any(True)
        return self._distiller.view(sequences, where)

    def announce(self) -> None:
        """Say that this rank takes a forward now which is none of this decoder's own."""
        self._world.any(True)

    def help_others(self) -> None:
        """Forwards of one token for the other ranks' sake, until none draws or is read any more."""
        one = torch.zeros((1, 1), dtype=torch.long, device=self._world.device)
        while self._world.any(False):
            self._distiller.next_logp(one, attended=one == 0, positions=one, cache=self.start())


@contextmanager
def lost_rank_stops(run: Path) -> Iterator[None]:
    """Turns the end of another rank into `LostRank` on this one: the run goes on from its last checkpoint."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, LimbeckError) or not any(sign in str(error) for sign in _LOST):
            raise
        raise LostRank(
            "another process of this run has ended; what it printed says why.\n"
            f"  go on from the last checkpoint: {how_to_resume(run)}"
        ) from error


def leave(code: int) -> NoReturn:
    """End this process at once, for one of several ranks, whether it is done, was stopped or has lost another.

    Threads of the connection may wait for Python's lock when Python ends, which aborts the process (exit code -6): a
    launcher then stops the other ranks too and calls the run failed, though it is done, or can be resumed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def idle_rows() -> Sequences:
    """One row of one token and nothing to learn from: a forward for the other ranks' sake."""
    return pack_rows([[0]], [[False]], origin=["idle"], keys=[("idle",)], pad_id=0)


def _settle_buckets(wrapped: nn.Module, device: torch.device) -> None:
    """A backward of nothing: DDP sorts its buckets anew after the first one, and sums of three ranks round by bucket.

    Without it a resumed run would add in another order, in its first step, than the run that was not stopped.
    """
    wrapped(idle_rows().to(device), [], {})["loss"].backward()
    wrapped.zero_grad(set_to_none=True)


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
