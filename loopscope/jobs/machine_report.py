"""What a machine has for training, how fast its products are, and what is slow there."""

import os
import platform
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from loopscope.config.recipes import recipe
from loopscope.config.sizes import SIZES
from loopscope.data.config import DataConfig
from loopscope.data.token_folder import cache_folder
from loopscope.jobs.machine import device_named, memory_of
from loopscope.jobs.machine_advice import advice_for
from loopscope.jobs.machine_facts import MachineFacts, cpu_vectors
from loopscope.machine_limits import compiler_missing, free_bytes, usable_cores
from loopscope.optional_packages import EXTRAS, is_installed
from loopscope.plan.memory import least_training_bytes
from loopscope.training.cpu_choices import trials_said
from loopscope.training.cpu_model import cpu_name
from loopscope.training.hardware import resolve_precision
from loopscope.training.throughput import matmul_peak

PACKAGES = ("loopscope", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic", "tyro")


@dataclass(frozen=True)
class MachineReport(MachineFacts):
    """A machine with what is slow on it."""

    advice: tuple[str, ...]


def examine_machine(out: str | Path = ".", device: str = "auto") -> MachineReport:
    """Look at this machine, and time products in fp32 and bf16 for about a second each.

    Args:
        out: folder, or one to be made, on the disk that runs will be written to.

    Raises:
        ValueError: a device that is not here.
    """
    found = device_named(device)
    memory = memory_of(found)
    out, cache = Path(out), cache_folder(DataConfig())
    name = torch.cuda.get_device_name(found) if found.type == "cuda" else ""
    facts = MachineFacts(
        device=str(found),
        device_name=name,
        cpu=cpu_name(),
        cpu_has=cpu_vectors(),
        cores=usable_cores(),
        cores_of_machine=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=_load(),
        speeds={precision: matmul_peak(found, precision) for precision in ("fp32", "bf16")},
        precision=resolve_precision("auto", found),
        compiler_missing=compiler_missing() if found.type == "cpu" else None,
        memory=memory,
        memory_free=torch.cuda.mem_get_info(found)[0] if found.type == "cuda" else free_bytes(),
        sizes=tuple(size for size in SIZES if memory is None or least_training_bytes(recipe(size)) <= memory),
        disk=str(out),
        disk_free=_free(out),
        cache=str(cache),
        cache_free=_free(cache),
        versions={"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        extras={extra: is_installed(extra) for extra in EXTRAS},
        trials=trials_said() if found.type == "cpu" else (),
    )
    return MachineReport(**vars(facts), advice=tuple(advice_for(facts)))


def _version(package: str) -> str | None:
    if package == "loopscope":
        from loopscope import __version__

        return __version__
    with suppress(PackageNotFoundError):
        return version(package)
    return None


def _load() -> float | None:
    with suppress(AttributeError, OSError):  # not every system has one
        return os.getloadavg()[0]
    return None


def _free(folder: Path) -> int | None:
    """Bytes free on the disk of a folder, or of the nearest one above that is there."""
    with suppress(OSError):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        return shutil.disk_usage(there).free
    return None
