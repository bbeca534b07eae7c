"""This machine as a device to plan for: its products and its memory, timed now."""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F

from loopscope.guards import wait
from loopscope.jobs.machine import device_named, memory_of, use_threads
from loopscope.plan.devices import CPU_PASSES, CPU_REACH, GPU_REACH, NUMBER_BYTES, Device
from loopscope.training.cpu_model import cpu_name
from loopscope.training.hardware import Precision
from loopscope.training.throughput import matmul_peak

ARRAYS = {"cpu": 2**22, "cuda": 2**28}
"""Of the arrays that are added: as large as a layer's on that kind of device."""
ACTIVATED = 2**18
"""Numbers that stay in a cache: what is timed is arithmetic."""
TIMINGS = 9
TIMED: tuple[Precision, ...] = ("fp32", "bf16")


def measured_device(
    name: str = "auto", threads: int | None = None, clock: Callable[[], float] = time.perf_counter
) -> Device:
    """Time products in fp32 and bf16, and sums of arrays, for about two seconds.

    Args:
        name: auto, cpu, cuda, mps.
        threads: of a CPU; None: as torch has it.
        clock: seconds; the processor's where others work beside it.

    Raises:
        ValueError: a device that is not here.
    """
    device = device_named(name)
    use_threads(threads)
    on_cpu = device.type != "cuda"
    model = torch.cuda.get_device_name(device) if not on_cpu else cpu_name() or "this CPU"
    load = f", {torch.get_num_threads()} threads" if on_cpu else ""
    bandwidth = added_per_second(device, clock)
    return Device(
        name=f"{model}{load}",
        kind="cpu" if on_cpu else "cuda",
        matmul={kind: matmul_peak(device, kind, clock=clock) for kind in TIMED},
        memory=memory_of(device) or 0,
        bandwidth=bandwidth,
        pass_rate=CPU_PASSES * activated_per_second(device, clock) if on_cpu else bandwidth / NUMBER_BYTES,
        link=None,
        network=None,
        per_node=1,
        source="products and sums timed on this machine now",
        reach=CPU_REACH if on_cpu else GPU_REACH,
    )


def added_per_second(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return bytes/s of a sum of two fp32 arrays into a third, the median of a few: two are read, one is written.

    The median, not the best: a step takes hundreds of passes, and meets whoever shares the memory as they do.
    """
    numbers = ARRAYS.get(device.type, ARRAYS["cpu"])
    left, right, out = (torch.ones(numbers, device=device) for _ in range(3))
    return 3 * 4 * numbers / _taken(lambda: torch.add(left, right, out=out), device, clock)


def activated_per_second(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return numbers/s of `silu` over fp32 states: what a pass costs where arithmetic decides, not memory."""
    states = torch.linspace(-4, 4, ACTIVATED, device=device)
    return ACTIVATED / _taken(lambda: F.silu(states), device, clock)


def _taken(work: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    """Seconds of the median of a few tries."""
    taken = []
    work()
    for _ in range(TIMINGS):
        wait(device)
        began = clock()
        work()
        wait(device)
        taken.append(clock() - began)
    return median(taken)
