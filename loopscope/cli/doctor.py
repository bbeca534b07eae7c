"""`loopscope doctor`: what this machine has, how fast it is, what is slow here and why."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loopscope.cli.arguments import parse
from loopscope.cli.labelled_lines import print_labelled

if TYPE_CHECKING:
    from loopscope.jobs.machine_report import MachineReport


@dataclass(frozen=True)
class Doctor:
    """Say what this machine has for training and how fast it is, measured in a few seconds.

    Below that, one line of advice for each thing that is slow or missing here, and why.

    Example:
        loopscope doctor
        loopscope doctor --json
    """

    out: Path = Path()
    """Folder on the disk that runs will be written to; this one by default."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    json: bool = False
    """One JSON object instead."""


def doctor(arguments: Sequence[str]) -> None:
    """`loopscope doctor`."""
    command = parse(Doctor, "doctor", arguments)
    from loopscope.jobs import examine_machine

    found = examine_machine(command.out, command.device)
    if command.json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    print_labelled(_lines(found))
    print()
    for advice in found.advice:
        print(textwrap.fill(advice, 78, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False))
    if not found.advice:
        print("Nothing here is slow that could be faster.")


def _lines(found: "MachineReport") -> list[tuple[str, str]]:
    speeds = ", ".join(f"{name} {_flops(speed)}" for name, speed in found.speeds.items())
    load = "" if found.load is None else f"; load {found.load:.1f}"
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in found.versions.items())
    extras = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in found.extras.items())
    return [
        ("device", f"{found.device}{f' ({found.device_name})' if found.device_name else ''}"),
        ("cpu", f"{found.cpu or 'unknown'}: {', '.join(found.cpu_has) or 'no wide vectors that we know of'}"),
        (
            "cores",
            f"{found.cores:g} for this process of {found.cores_of_machine}; torch takes {found.threads}{load}",
        ),
        ("products", f"{speeds}; training.precision auto takes {found.precision}"),
        ("compile", found.compiler_missing or "a C++ compiler is there"),
        *(("trials", line) for line in found.trials),
        ("memory", f"{_bytes(found.memory)}, {_bytes(found.memory_free)} free; {_fitting(found)}"),
        (
            "disk",
            f"{_bytes(found.disk_free)} free for {found.disk}; {_bytes(found.cache_free)} for {found.cache}",
        ),
        ("versions", packages),
        ("extras", extras),
    ]


def _fitting(found: "MachineReport") -> str:
    return f"sizes that fit: {', '.join(found.sizes) or 'none'}"


def _bytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e9:.3g} GB"


def _flops(speed: float) -> str:
    return f"{speed / 1e12:.3g} TFLOP/s" if speed >= 1e12 else f"{speed / 1e9:.3g} GFLOP/s"
