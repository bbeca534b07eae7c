"""Kinds of devices as planning needs them: measured where somebody has measured, each figure with its source and date.

`loopscope plan --measure` puts this machine's own figures in place of a row. What no source measured is nominal times
the share that the measured rows reach, and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from loopscope.config.known_names import known

GIB = 2**30
GPU_REACH = 0.7
"""Share of the matmul peak that products of a step reach on a GPU, with what a step waits for: fitted to a published
8B run on 64 A100 (docs/plan.md), and no better known than the runs it is compared with there."""
CPU_REACH = 0.8
"""The same on a CPU: of 1.09 s of products a step, at 2.5 TFLOP/s, 0.83 (docs/results/2026-11-25-train-step.md)."""
NUMBER_BYTES = 4.0
"""Of a GPU's memory that a number of a pass costs: read and written in bf16, about one in three of them fused away."""
CPU_PASSES = 0.77
"""Of the rate of one `silu` over a layer's states that the passes of a step reach, which differ: fitted to steps of
laptop size and of 44M, fp32 and bf16, on one core (docs/results/2026-11-29-plan.md)."""
LINK_REACH = 0.88
"""Share of a link's nominal rate that a copy reaches: 396 of 450 GB/s between two H200 (nvbandwidth, 2026)."""


@dataclass(frozen=True)
class Device:
    """One device of a kind, and what joins several.

    Attributes:
        matmul: FLOP/s that large products reach, by `training.precision`; fp32 runs as TF32 on a GPU.
        memory: bytes, of which `spare` are the framework's.
        bandwidth: bytes/s of its memory.
        link: bytes/s that a device sends to others of its node, one way; None where a node has one.
        network: bytes/s per device between nodes; None where there is none.
        per_node: devices in a node.
        reach: share of `matmul` that the products of a training step come to.
        pass_rate: numbers that element-wise passes make in a second, reads included.
        source: where the figures are from, with the date.
    """

    name: str
    kind: Literal["cuda", "cpu"]
    matmul: Mapping[str, float]
    memory: int
    bandwidth: float
    link: float | None
    network: float | None
    per_node: int
    source: str
    pass_rate: float
    reach: float = GPU_REACH
    spare: int = GIB // 2


MATMUL_SOURCE = "products: best of many shapes, torch 2.6 to 2.7 (stas00/ml-engineering 744d01e, 2026-08-22)"
NOMINAL = "memory, links: nominal"


def _gpu(
    name: str,
    bf16: float,
    tf32: float,
    gigabytes: int,
    bandwidth: float,
    link: float,
    network: float,
    source: str = f"{MATMUL_SOURCE}; {NOMINAL}",
) -> Device:
    """A row of TFLOP/s, GB, TB/s and GB/s."""
    return Device(
        name=name,
        kind="cuda",
        matmul={"bf16": bf16 * 1e12, "fp32": tf32 * 1e12},
        memory=gigabytes * 10**9,
        bandwidth=bandwidth * 1e12,
        link=link * 1e9,
        network=network * 1e9,
        per_node=8,
        source=source,
        pass_rate=bandwidth * 1e12 / NUMBER_BYTES,
    )


# TF32 was measured by none of the sources: nominal times the share that bf16 reaches.
DEVICES: Mapping[str, Device] = {
    "a100": _gpu("A100 SXM 80 GB", 271.2, 0.869 * 156, 80, 2.0, 300, 25),
    "h100": _gpu("H100 SXM 80 GB", 794.5, 0.803 * 494.5, 80, 3.35, 450, 50),
    "h200": _gpu("H200 SXM 141 GB", 794.5, 0.803 * 494.5, 141, 4.8, 450, 50),
    "b200": _gpu("B200 SXM 180 GB", 1745.0, 0.776 * 1125, 180, 8.0, 900, 50),
    "l40s": _gpu(
        "L40S 48 GB",
        0.8 * 362,
        0.8 * 183,
        48,
        0.864,
        32,
        6.25,
        f"products: no measurement found, 0.8 of nominal (as an H100); {NOMINAL} (PCIe 4, 400 Gb/s a node)",
    ),
    "rtx4090": _gpu(
        "RTX 4090 24 GB",
        0.8 * 165.2,
        0.8 * 82.6,
        24,
        1.008,
        32,
        1.25,
        f"products: no measurement found, 0.8 of nominal; {NOMINAL} (PCIe 4, 10 Gb/s a GPU)",
    ),
    "cpu-amx": Device(
        name="two CPU cores with AMX",
        kind="cpu",
        matmul={"bf16": 2.5e12, "fp32": 405e9},
        memory=24 * 10**9,
        bandwidth=21e9,
        link=None,
        network=None,
        per_node=1,
        source="products: docs/results/2026-11-25-train-step.md; bandwidth: twice that of one core, "
        "docs/results/2026-11-29-plan.md",
        pass_rate=CPU_PASSES * 2.1e9,
        reach=CPU_REACH,
    ),
}
"""Kinds of devices that planning knows, by the name that `--device` takes."""


def device(name: str) -> Device:
    """Return a kind of device by its name.

    Raises:
        ValueError: a name that is not known, with the nearest one.
    """
    return DEVICES[known("device", name, DEVICES)]
