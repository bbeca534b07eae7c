"""Shared by all tests: shapes are checked, threads are bounded, shared material is found or skipped."""

import gc
import os
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["LOOPSCOPE_CPU_TRIALS"] = "off"  # sizes of this machine are for no test to find, or to keep
# Read once, when trackio is imported: its database of this machine is nobody's to write to.
TRACKIO = tempfile.TemporaryDirectory(prefix="trackio-")
os.environ["TRACKIO_DIR"] = TRACKIO.name

from tests import shape_checks
from tests.costs import pytest_addoption, pytest_collection_modifyitems, pytest_configure  # noqa: F401 (hooks)

# Every `Float[Tensor, "batch seq dim"]` is checked at run time, under pytest only, in all parts that have any.
CHECKED = [
    f"loopscope.{part}"
    for part in (
        "kv_cache",
        "numerics",
        "guards",
        "recurrence",
        "ops",
        "model",
        "objectives",
        "data",
        "training",
        "monitor",
        "jobs",
        "audit",
        "evaluation",
        "generation",
        "interop",
    )
]
shape_checks.install(CHECKED)

import torch
from hypothesis import settings

# Machines are shared and noisy: tests assert behaviour, not seconds.
settings.register_profile("loopscope", deadline=None)
settings.register_profile("full", deadline=None, max_examples=1500)
settings.load_profile("loopscope")
torch.set_num_threads(1)  # the suite runs one worker per core

from loopscope.training import throughput

audit_dynamics = import_module("loopscope.audit.dynamics")
spectral_radius, widened_radius = audit_dynamics.spectral_radius, audit_dynamics.widened_radius

SHARED = Path(__file__).parent.parent.parent / "shared"
FIXTURES = SHARED / "fixtures" / "published"


def pytest_collection_finish() -> None:
    """What imports and collection have made stays: a million objects that the collector need not look through again."""
    gc.freeze()


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Folder of the published fixtures; skips where they are not."""
    if not FIXTURES.is_dir():
        pytest.skip("the published fixtures are not beside this checkout")
    return FIXTURES


@pytest.fixture(autouse=True)
def _shapes_are_checked_anew() -> None:
    shape_checks.begin_test()


@pytest.fixture(autouse=True)
def quick_matmul_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training measures the machine's matrix products first, for 0.7 s; here with small ones."""
    monkeypatch.setitem(throughput.SIDE, "cpu", 32)


@pytest.fixture(autouse=True)
def quick_spectral_radius(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thirds of a tiny model's audit go into spectral radii, which no verdict hangs on: here 1 product, not 16."""
    monkeypatch.setattr(audit_dynamics, "spectral_radius", partial(spectral_radius, products=1))
    monkeypatch.setattr(audit_dynamics, "widened_radius", partial(widened_radius, products=0))


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with blanks for their still pictures, which are most of what a page costs: tests/report draws them all."""
    from tests.report.fixtures import without_pictures

    without_pictures(monkeypatch)


@pytest.fixture
def quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pair for a speed and one round for times by depth, in place of five and seven."""
    from loopscope.jobs import evaluate_compare, evaluate_exits
    from loopscope.training import throughput

    speed, seconds = evaluate_exits.measure_speed, evaluate_compare.seconds_per_token
    monkeypatch.setattr(
        evaluate_exits,
        "measure_speed",
        lambda model, ids, rule, threshold, pairs, flops: speed(model, ids, rule, threshold, 1, flops),
    )
    monkeypatch.setattr(evaluate_compare, "seconds_per_token", partial(seconds, rounds=1))
    monkeypatch.setitem(throughput.SIDE, "cpu", 256)  # of the products that are timed


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty token cache of this test's own."""
    path = tmp_path / "cache"
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(path))
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Callable[..., int]:
    """Runs `loopscope …` in this process, with a cache of its own; gives the exit status."""
    from tests.fixtures import run_command

    return partial(run_command, monkeypatch)
