"""The commit of the checkout that this package lies in, and a hash of its sources, read without starting a program.

`git` itself obeys the settings of the folder that it is called in: a file-system monitor, filters and hooks named there
are programs that it starts. So its files are read here, and only those of the checkout that holds this very package.
"""

import hashlib
import re
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHOWN = 12
"""Digits of a hash that are kept."""


@cache
def checked_out_commit(package: Path = _PACKAGE) -> str | None:
    """Return the first digits of the commit that is checked out around a package, or None.

    Args:
        package: a folder. Its parent must be the root of a git checkout or work tree: what merely happens to be
            checked out further up is another project's.
    """
    try:
        folder = _git_folder(package.parent)
        return None if folder is None else _resolve((folder / "HEAD").read_text(), folder)
    except (OSError, UnicodeDecodeError):
        return None


@cache
def source_hash(package: Path = _PACKAGE) -> str:
    """Return the first digits of the SHA-256 of all of a package's `.py` files, names and contents, in order."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:_SHOWN]


def _git_folder(root: Path) -> Path | None:
    """Where a checkout keeps what git knows; a work tree's `.git` is a file that says it."""
    found = root / ".git"
    if found.is_file():
        named = found.read_text().strip().removeprefix("gitdir:").strip()
        found = (root / named).resolve()
    return found if (found / "HEAD").is_file() else None


def _resolve(head: str, folder: Path) -> str | None:
    """From a HEAD's text to digits: it is a hash, or names a branch, whose hash lies in a file or in `packed-refs`."""
    head = head.strip()
    if _HASH.fullmatch(head):
        return head[:_SHOWN]
    name = head.removeprefix("ref:").strip()
    if not name.startswith("refs/") or ".." in name.split("/"):
        return None
    common = folder / "commondir"
    shared = (folder / common.read_text().strip()).resolve() if common.is_file() else folder
    for place in (folder, shared):
        if (place / name).is_file():
            found = (place / name).read_text().strip()
            return found[:_SHOWN] if _HASH.fullmatch(found) else None
    packed = shared / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else ():
        commit, _, ref = line.partition(" ")
        if ref == name and _HASH.fullmatch(commit):
            return commit[:_SHOWN]
    return None
