"""Whether a folder's own Python code may run: only where the user has said so for this process, and has seen which."""

import hashlib
import warnings
from pathlib import Path

_allowed: list[bool] = []


def allow_remote_code() -> None:
    """Let `loopscope.load` run the code of model folders in this process: what `--trust-remote-code` says."""
    _allowed.append(True)


def may_run(folder: Path, asked: bool) -> bool:
    """Return whether a folder's code may run; say which files they are, with their hashes, where it will.

    Args:
        asked: the caller's own word, beside the process's.
    """
    if not (asked or _allowed):
        return False
    warnings.warn(f"{folder} brings code that runs now: {listing(folder)}", stacklevel=4)
    return True


def listing(folder: Path) -> str:
    """Return the folder's Python files with the first 12 digits of each one's SHA-256."""
    files = sorted(folder.glob("*.py"))
    return ", ".join(f"{file.name} ({hashlib.sha256(file.read_bytes()).hexdigest()[:12]})" for file in files)
