"""Which process this is, of how many, and what they tell each other. One process tells nobody, and costs nothing.

Figures of tensors go through the default group (NCCL on CUDA). What hosts decide goes through a group of its own over
gloo, which waits for no device, and for as long as it takes: one process may be reading a corpus.
"""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Told = TypeVar("Told")


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run.

    Attributes:
        rank: number of this process, from 0; the first one writes, shows and holds the folder.
        world: how many there are.
        local_rank: its number on its machine, which is the number of its GPU.
        local_world: how many there are on its machine.
        restarts: how often torchrun has started them anew.
        control: the group for what hosts decide; None for one process.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    restarts: int = 0
    control: Any = field(default=None, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, shows and holds the folder."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world == 1

    def seed(self, seed: int) -> int:
        """Return a seed of this process' own; that of the first is the given one."""
        return (seed + self.rank * 0x94D049BB133111EB) & (2**63 - 1)

    def device(self, device: torch.device) -> torch.device:
        """Return this process' own device of the kind that the run was given."""
        if self.alone or device.type != "cuda":
            return device
        return torch.device("cuda", self.local_rank)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor, in place, by its sum over processes; return it."""
        if not self.alone:
            dist.all_reduce(tensor)
        return tensor

    def mean_through(self, values: Tensor) -> Tensor:
        """Return the mean over processes, whose gradient reaches this process' own values as if it were they.

        Averaged over processes, as DDP and FSDP do, the gradients of what is made of it are those of the mean.
        """
        if self.alone:
            return values
        mean = self.sum_(values.detach().clone()) / self.world
        return values + (mean - values.detach())

    def told(self, value: Told) -> Told:
        """Return what the first process has."""
        if self.alone:
            return value
        said = [value]
        dist.broadcast_object_list(said, src=0, group=self.control)
        return said[0]

    def all_told(self, value: Told) -> list[Told]:
        """Return what each process has, in order."""
        if self.alone:
            return [value]
        said: list[Any] = [None] * self.world
        dist.all_gather_object(said, value, group=self.control)
        return said

    def wait(self) -> None:
        """Wait until every process has come here."""
        if not self.alone:
            dist.barrier(group=self.control)

    def begin_maximum(self, number: int) -> "PendingMaximum":
        """Begin to find the largest of the processes' numbers, without waiting for them."""
        return PendingMaximum(self, number)


class PendingMaximum:
    """The largest of the processes' numbers, on its way while something else is computed."""

    def __init__(self, ranks: Ranks, number: int) -> None:
        self.value = torch.tensor(number)
        self.work: Any = None
        if not ranks.alone:
            self.work = dist.all_reduce(self.value, dist.ReduceOp.MAX, group=ranks.control, async_op=True)

    def get(self) -> int:
        """Return it, once it is there."""
        if self.work is not None:
            self.work.wait()
        return int(self.value)


ALONE = Ranks()
"""One process, which has no other to agree with."""
