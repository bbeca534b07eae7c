"""Compiled training: as recorded, as uncompiled, no graph more for any depth. One process compiles for all tests."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training import golden
from tests.training.compiled_run import KERNELS

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    """By run. In a process of its own: the compiler cannot look through the checks of shapes that pytest puts in."""
    command = [sys.executable, "-m", "tests.training.compiled_run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "run", [pytest.param(run, marks=pytest.mark.smoke if "bf16" in run else ()) for run in KERNELS]
)
def test_golden_losses_of_compiled_chains_are_as_recorded(compiled: dict[str, Any], run: str) -> None:
    good, row = golden.judge(run, compiled[run]["record"], json.loads(golden.LOSSES.read_text()))
    assert good, f"{row}, on {golden.machine()}"


@pytest.mark.parametrize("run", KERNELS)
def test_kernels_agree_and_a_drawn_depth_compiles_nothing(compiled: dict[str, Any], run: str) -> None:
    """In bf16, within its own error: how far the uncompiled run is from itself in fp32.

    A run's losses part by rounding, which training amplifies: 4e-5 of ouro's after 20 steps in fp32. Gradients of equal
    weights are the sharper comparison.
    """
    found = compiled[run]
    error = max(abs(a - b) for a, b in zip(found["fp32"], found["uncompiled"], strict=True))
    assert found["losses"] == pytest.approx(found["uncompiled"], abs=2 * error if "bf16" in run else 1e-4)
    assert found["breaks"] == 0
    first, *later = found["graphs"]
    assert first >= 4  # they are compiled: products and slopes of the feed-forward, norms, the loss
    assert later == [first] * 7
    assert 0 < found["with_dropout"] < (0.02 if "bf16" in run else 1e-5)


def test_layers_agree_and_a_drawn_depth_compiles_nothing(compiled: dict[str, Any]) -> None:
    found = compiled["layers"]
    assert found["losses"] == pytest.approx(found["uncompiled"], abs=1e-5)
    assert found["breaks"] == 0
    assert found["graphs"] == [1] * 8  # one for both layers and all loops
