"""When, where and with what a record was made."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """When, where and with what a record was made."""

    date: str  # ISO 8601, UTC
    versions: Mapping[str, str]
    git: str | None  # commit of the working directory, "+" when it had uncommitted changes
    platform: str
    device: str
    threads: int | None
    command: str


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
        git=_git_commit(),
        platform=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        device=device,
        threads=threads,
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def _git_commit() -> str | None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
