"""Training computes what is recorded in tests/assets: losses and weights bit for bit, and every checkpoint key."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.golden import KEYS, every_family, state_keys, worst

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.smoke
def test_golden_losses_are_as_recorded() -> None:
    """Uncompiled, by the command that people use. `test_compiled` has the others."""
    command = [sys.executable, "-m", "tests.training.golden", "--only", "plain"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    print(done.stdout)  # pytest shows it where the test fails: which runs, by how much, and on which machine
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert len(done.stdout.splitlines()) > 1, "no run has such a title"


def test_the_comparison_can_fail() -> None:
    one, other = [(1.0).hex(), (2.0).hex()], [(1.0).hex(), (2.001).hex()]
    assert worst(one, one) == 0
    assert worst(one, other) == pytest.approx(0.001 / 2.001)


@pytest.mark.smoke
def test_every_familys_checkpoint_keys_are_as_recorded() -> None:
    recorded = json.loads(KEYS.read_text())
    assert set(recorded) == set(every_family())
    assert {family: state_keys(family) for family in recorded} == recorded
