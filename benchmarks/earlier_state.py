"""An earlier state of this repository beside the present one: its files, and commands that run its benchmarks."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_GIT = ["git", "-C", str(Path(__file__).parent), "worktree"]
_RUN = """import os, runpy, sys
tree, name, *words = sys.argv[1:]
os.chdir(tree)
sys.path[0] = tree
sys.argv = [name, *words]
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


@contextmanager
def earlier_state(commit: str) -> Iterator[Path]:
    """Give a folder with the files of a commit; it is gone when the block has ended.

    Raises:
        RuntimeError: git knows no such commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        done = subprocess.run(
            [*_GIT, "add", "--detach", "--force", str(tree), commit],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"the state {commit} cannot be laid out: {done.stderr.strip()}")
        try:
            yield tree
        finally:
            subprocess.run([*_GIT, "remove", "--force", str(tree)], check=True, capture_output=True)


def command_in(tree: Path, benchmark: str, words: Sequence[str]) -> list[str]:
    """Return a command that runs a benchmark of that state, with the package of that state."""
    return [sys.executable, "-c", _RUN, str(tree), f"benchmarks.{benchmark}", *words]
