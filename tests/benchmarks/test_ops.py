"""The benchmark that says what each fast operation is worth: that it turns off what it says, and what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ops
from loopscope.ops.dispatch import OPERATIONS, is_on

ROOT = Path(__file__).parent.parent.parent


def test_every_operation_is_turned_off_alone() -> None:
    for way in OPERATIONS:
        with ops.turned_off(way):
            assert [name for name in OPERATIONS if not is_on(name)] == [way]
    with ops.turned_off("all"):
        assert not any(map(is_on, OPERATIONS))
    with ops.turned_off(ops.NOTHING):
        assert all(map(is_on, OPERATIONS))
    in_steps = tuple(name for name in OPERATIONS if name != "one_token")  # which is for generation
    assert ops.WAYS[: len(in_steps)] == in_steps


def test_what_is_worth_nothing_is_small_in_every_cell() -> None:
    ways = ("linear", "swiglu", "all")
    lost = {
        "fp32": {"time": {"linear": 0.05, "swiglu": -0.01, "all": 0.0}, "memory": dict.fromkeys(ways, 0.0)},
        "bf16": {"time": {"linear": 0.0, "swiglu": 0.019, "all": 0.0}, "memory": dict.fromkeys(ways, 0.0)},
    }
    assert ops.worth_nothing(ways, lost) == ["swiglu"]  # all of them are no operation


@pytest.mark.slow
def test_it_runs_and_ends_with_one_line_of_json() -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.ops",
        "--small",
        "--dtype=fp32",
        "--only=swiglu",
        "--what=time",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["all_on"]["fp32"]["seconds"] > 0
    assert found["lost"]["fp32"]["time"]["swiglu"] > -1
    assert {"benchmark", "size", "pairs", "threads", "worth_nothing"} <= found.keys()
