"""The commands of docs/distributed.md, by torchrun, with a model of a few thousand numbers and two steps."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from loopscope.results.layout import newest_checkpoint
from tests.test_readme import ROOT, TINY, blocks

LINES = [
    shlex.split(line)
    for block in blocks(ROOT / "docs" / "distributed.md", "sh")
    for line in block.splitlines()
    if line.startswith("torchrun")
]


def torchrun(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the words behind `torchrun`, as it would, in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *words],
        cwd=folder,
        env={
            **os.environ,
            **{"PYTHONPATH": str(ROOT), "LOOPSCOPE_CACHE": str(folder / "cache"), "GLOO_SOCKET_IFNAME": "lo"},
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", LINES, ids=lambda words: words[-1])
def test_the_page_runs(words: list[str], tmp_path: Path) -> None:
    steps = words.index("--training.steps") + 1
    words = [*words[1:steps], "2", *words[steps + 1 :], *TINY, "--model.loops", "2"]
    done = torchrun(words, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = newest_checkpoint(tmp_path / words[words.index("--out") + 1])
    assert checkpoint is not None
    assert checkpoint.name == "step-00000002"


def test_the_page_has_commands() -> None:
    assert len(LINES) == 3
