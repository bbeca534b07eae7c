"""`cpu_ops: off` on the command line: training, audit and evaluation run plain formulas alone."""

from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path

import pytest

from loopscope.ops import linear, rms_norm, swiglu
from loopscope.ops.dispatch import OPERATIONS, is_on
from tests.fixtures import TINY


def refuse(*_: object) -> None:
    raise AssertionError("a fast operation ran")


def test_no_fast_operation_runs_where_they_are_off(
    call: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thing holds them all: what the operations would call raises. Each command in a context of its own, because
    the setting is for the rest of a process."""
    for function in (linear._Linear, swiglu._SwiGLU, rms_norm._RMSNorm):
        monkeypatch.setattr(function, "apply", refuse)
    run = str(tmp_path / "run")
    train = ["train", "--out", run, *TINY, "--quiet"]
    with pytest.raises(AssertionError, match="a fast operation ran"):
        copy_context().run(call, *train)
    (tmp_path / "run").rename(tmp_path / "refused")
    assert copy_context().run(call, *train, "--training.cpu-ops", "off") == 0
    with pytest.raises(AssertionError, match="a fast operation ran"):
        copy_context().run(call, "audit", run, "--no-keep")
    assert copy_context().run(call, "audit", run, "--no-keep", "--cpu-ops", "off") == 0
    assert copy_context().run(call, "evaluate", "depth", run, "--windows", "2", "--cpu-ops", "off") == 0
    assert all(map(is_on, OPERATIONS))
