"""What there is to know of a machine, and where a CPU says what it has. Importable without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from loopscope.training.cpu_model import cpu_info

VECTORS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "avx512_fp16": "AVX512-FP16",
    "amx_tile": "AMX",
    "amx_bf16": "AMX-BF16",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
    "i8mm": "I8MM",
}
"""Flags of `/proc/cpuinfo` by what people call them: instructions that products are made of."""


@dataclass(frozen=True)
class MachineFacts:
    """What a machine has for training.

    Attributes:
        cpu_has: instructions for products, as people call them; empty where the system does not say.
        cores: for this process: of the machine, of its affinity, or of its container, what is least.
        threads: that torch takes.
        load: mean number of processes that wanted a core in the last minute; None where the system does not say.
        speeds: FLOP/s of the best of a few large products, by number format.
        precision: that `training.precision: auto` takes.
        trials: sizes that were found for this CPU, by number format; or why there are none.
        compiler_missing: why `training.compile` could not; None where it can.
        memory: bytes of the device, or of the machine or container.
        sizes: named sizes whose weights, gradients and moments alone fit into it.
        disk: folder whose disk has `disk_free` bytes.
        versions: of packages; None where one is missing.
        extras: of the package, and whether they are installed.
    """

    device: str
    device_name: str
    cpu: str
    cpu_has: tuple[str, ...]
    cores: float
    cores_of_machine: int
    threads: int
    load: float | None
    speeds: Mapping[str, float]
    precision: str
    compiler_missing: str | None
    memory: int | None
    memory_free: int | None
    sizes: tuple[str, ...]
    disk: str
    disk_free: int | None
    cache: str
    cache_free: int | None
    versions: Mapping[str, str | None]
    extras: Mapping[str, bool]
    trials: tuple[str, ...]


def cpu_vectors() -> tuple[str, ...]:
    """Return the instructions for products that the CPU has; empty where the system does not say."""
    said = cpu_info()
    flags = set((said.get("flags") or said.get("Features") or "").split())
    return tuple(name for flag, name in VECTORS.items() if flag in flags)
