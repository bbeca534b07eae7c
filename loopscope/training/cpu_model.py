"""What a CPU is called, and what the system says of it. Importable without torch."""

import platform
import subprocess
from contextlib import suppress
from pathlib import Path


def cpu_name() -> str:
    """Return what the CPU is called; empty where the system does not say."""
    if name := cpu_info().get("model name"):
        return name
    if platform.system() == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return platform.processor()


def cpu_info() -> dict[str, str]:
    """Return what `/proc/cpuinfo` says of the first CPU; empty where there is none."""
    found: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, colon, value = line.partition(":")
            if not colon:
                break
            found[key.strip()] = value.strip()
    return found
