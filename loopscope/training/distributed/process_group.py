"""The start and the end of a process group, from what torchrun says in the environment.

Gloo carries what is on the CPU, NCCL what is on CUDA. A process that was not started among others (or by `torchrun
--nproc-per-node 1`) is alone and needs no group.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from loopscope.training.distributed.ranks import ALONE, Ranks

LONGEST_WAIT = timedelta(days=7)
"""That one process waits for another to read a corpus, to save, to evaluate."""
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Return which process this is, as torchrun says in the environment; `ALONE` where nobody does. Joins nothing.

    Raises:
        ValueError: what stands there are no numbers.
    """
    if not all(environment.get(name) for name in _NEEDED):
        return ALONE
    try:
        rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank = int(environment.get("LOCAL_RANK", rank))
        local_world = int(environment.get("LOCAL_WORLD_SIZE", world))
        restarts = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
    except ValueError as error:
        raise ValueError(
            f"the environment's RANK, WORLD_SIZE, LOCAL_RANK or LOCAL_WORLD_SIZE is no whole number ({error}); start "
            "the processes with torchrun, which sets them"
        ) from None
    return Ranks(rank, world, local_rank, local_world, restarts)


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join this process to the others that torchrun has started, where it has; leave them at the end.

    Args:
        device: of the run: cpu or cuda.

    Raises:
        ValueError: a device that processes cannot share, or fewer GPUs than processes.
    """
    found = launched()
    if found.alone:
        yield found
        return
    check_device(device, found)
    own = not dist.is_initialized()
    if own:
        if device.type == "cuda":
            torch.cuda.set_device(found.local_rank)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=own_store(found), rank=found.rank, world_size=found.world)
    control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
    ranks = Ranks(
        found.rank, found.world, found.local_rank, found.local_world, found.restarts, control=control
    )
    yield ranks
    # Only after a good end: where one has failed, others may never come, and the process ends anyway.
    ranks.wait()
    if own:
        dist.destroy_process_group()


def own_store(ranks: Ranks) -> Store:
    """Return the store through which these processes meet, under keys of this start alone.

    torchrun keeps one store for all its starts, and torch's own keys do not tell them apart: a process that is started
    anew may find the address that one wrote before it died, and wait there.
    """
    store, _, _ = next(rendezvous("env://", ranks.rank, ranks.world))
    return PrefixStore(f"start-{ranks.restarts}", store)


def check_device(device: torch.device, ranks: Ranks) -> None:
    """Refuse a device that each process of a machine cannot have one of.

    Raises:
        ValueError: which, and what to give.
    """
    if device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"training.device is {device}, and {ranks.world} processes were started; processes share a run on cpu or "
            "cuda: name one of them, or start without torchrun"
        )
    if device.type == "cuda" and device.index is not None:
        raise ValueError(
            f"training.device is {device}, one GPU, and {ranks.world} processes were started; name cuda, and each "
            "takes one of its own"
        )
    if device.type == "cuda" and ranks.local_world > torch.cuda.device_count():
        raise ValueError(
            f"{ranks.local_world} processes were started on this machine, which has {torch.cuda.device_count()} GPUs; "
            "start as many as there are (torchrun --nproc-per-node)"
        )
