"""When, where and with what a record was made."""

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from loopscope.results.checkout import checked_out_commit, source_hash


@dataclass(frozen=True)
class Provenance:
    """When, where and with what a record was made."""

    date: str  # ISO 8601, UTC
    versions: Mapping[str, str]
    git: (
        str | None
    )  # commit of the checkout that the package lies in; None: it lies in none, or that is not known
    platform: str
    device: str
    threads: int | None
    command: str
    source: str | None = (
        None  # hash of the package's own files: equal where the code was equal, committed or not
    )


def provenance(device: str = "cpu", threads: int | None = None) -> Provenance:
    """Describe this moment on this machine. Never raises: what cannot be found is left out."""
    versions = {"python": platform.python_version()}
    for package in ("loopscope", "torch", "numpy", "tokenizers"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Provenance(
        date=datetime.now(UTC).isoformat(timespec="milliseconds"),
        versions=versions,
        git=checked_out_commit(),
        platform=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        device=device,
        threads=threads,
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        source=source_hash(),
    )
