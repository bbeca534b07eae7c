"""How many runs a machine trains at the same time, with which of its cores and GPUs each."""

import os
from dataclasses import dataclass
from typing import Literal

import torch

from loopscope.config.run_config import RunConfig
from loopscope.machine_limits import free_bytes, usable_cores
from loopscope.plan.memory import least_training_bytes
from loopscope.training.hardware import resolve_device

VISIBLE = "CUDA_VISIBLE_DEVICES"
OF_A_PROCESS = 600 * 10**6
"""Bytes that a process takes before it has a model: Python and torch."""
OF_A_STEP = 4
"""Times the least that a step holds: what it keeps for the backward pass comes on top, and is not known before."""


@dataclass(frozen=True)
class Workplace:
    """Where one run at a time is trained.

    Attributes:
        number: from 1.
        threads: of the CPU.
        gpu: the one that its process sees, as CUDA_VISIBLE_DEVICES has it; None leaves all as they are.
    """

    number: int
    threads: int
    gpu: str | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables that keep a process in its place."""
        found = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        return found if self.gpu is None else {**found, VISIBLE: self.gpu}


def places(at_once: int | Literal["auto"] | None, config: RunConfig) -> list[Workplace]:
    """Return the places of runs that are trained at the same time; a single one where there is one at a time.

    The threads of each hang on how many there are and on the machine, never on how many runs are left to do.

    Args:
        at_once: how many; `auto`: as many as there are GPUs, or cores for `training.threads` each (1, where none is
            named) and memory.
        config: of one of the runs, as it was asked for.

    Raises:
        ValueError: more than the machine has cores for.
    """
    cores, named = max(1, int(usable_cores())), config.training.threads
    threads = max(1, min(cores, torch.get_num_threads()))
    if at_once is None or at_once == 1:
        return [Workplace(1, named or threads)]
    most = max(1, cores // (named or 1))
    gpus = _gpus(config.training.device)
    if at_once == "auto":
        at_once = min(len(gpus), most) if gpus else min(max(1, threads // (named or 1)), _in_memory(config))
    if at_once > most:
        each = f"{named} threads each (training.threads)" if named else "a thread each"
        raise ValueError(
            f"at-once is {at_once}, and the {cores} cores of this machine are enough for {most} with {each}; give "
            f"{most} or less, or auto"
        )
    of_each = named or max(1, threads // at_once)
    return [
        Workplace(number + 1, of_each, gpus[number % len(gpus)] if gpus else None)
        for number in range(at_once)
    ]


def _gpus(device: str) -> list[str]:
    """GPUs to share out, as CUDA_VISIBLE_DEVICES names them; none where runs are elsewhere, or one is named."""
    if str(resolve_device(device)) != "cuda":
        return []
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def _in_memory(config: RunConfig) -> int:
    """How many runs there is memory for, by a rough count."""
    free = free_bytes()
    if free is None:
        return 2**20
    return max(1, free // (OF_A_PROCESS + OF_A_STEP * least_training_bytes(config)))
