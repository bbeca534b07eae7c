"""What every benchmark says of where it ran, and how it prints its results."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from loopscope.results import Interval

MEBI = 2**20


def environment(device: str = "cpu", dtype: str = "fp32") -> dict[str, Any]:
    """Threads, device, dtype, versions, date."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "bf16_in_hardware": bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()),
    }


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns: the first to the left, the rest to the right."""
    widths = [max(len(row[place]) for row in [headings, *rows]) for place in range(len(headings))]
    for row in [headings, *rows]:
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells), flush=True)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table of a results page."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, ["---"] * len(headings), *rows])


def interval_text(value: Interval, digits: int, sign: bool = False) -> str:
    """The mean, and the interval where there is one."""
    form = f"{'+' if sign else ''}.{digits}f"
    mean = f"{value.mean:{form}}"
    if value.low is None or value.high is None:
        return mean
    return f"{mean} ({value.low:{form}} to {value.high:{form}})"


def again(benchmark: str, *arguments: str) -> list[str]:
    """The command that runs a benchmark with the arguments of this process and some more."""
    return [sys.executable, "-m", f"benchmarks.{benchmark}", *sys.argv[1:], *arguments]


def elsewhere(benchmark: str, *arguments: str) -> Any:
    """What a benchmark prints, as JSON, when it runs with the same and some more arguments in a process of its own."""
    command = again(benchmark, *arguments)
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def finish(figures: Mapping[str, Any], where: Mapping[str, Any]) -> None:
    """The last line: figures and environment as JSON."""
    print(json.dumps({**figures, **where}), flush=True)
