"""FLOP/s and MFU: sums, and what a run logs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig
from loopscope.jobs.train import execute
from loopscope.plan.parameters import training_flops
from loopscope.plan.training_flops import step_flops_by_depth
from loopscope.training import throughput
from loopscope.training.metrics import read_metrics
from loopscope.training.throughput import Speedometer, matmul_peak, raised_peak, wider_peak


@pytest.fixture
def quick_matmul_peak() -> None:
    """Not here: the peak itself is tested."""


def test_sums_over_steps_of_different_depth_and_starts_anew() -> None:
    meter = Speedometer(lambda loops: 10.0 * loops, peak=1000.0)
    meter.see(tokens=4, loops=2)
    meter.see(tokens=4, loops=3)
    assert meter.read(2.0) == {"flops_per_second": 100.0, "mfu": 0.1}
    assert meter.read(2.0) == {"flops_per_second": 0.0, "mfu": 0.0}
    assert Speedometer(None).read(1.0) == {}
    assert Speedometer(lambda loops: 1.0).read(1.0).keys() == {"flops_per_second"}


def test_the_peak_is_that_of_a_large_product_and_draws_nothing() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    peak = matmul_peak(torch.device("cpu"), "fp32", repeats=2)
    assert torch.equal(before, torch.get_rng_state())
    assert 1e9 < peak < 1e14


def test_a_step_that_beats_the_peak_has_it_measured_again_and_none_is_above_all_of_it() -> None:
    measured: list[float] = [1500.0, 1600.0]
    meter = Speedometer(lambda loops: 10.0 * loops, peak=1000.0, measure=lambda: measured.pop(0))

    def mfu_of(tokens: int) -> float:
        meter.see(tokens, loops=1)
        return meter.read(1.0)["mfu"]

    assert mfu_of(tokens=90) == 0.9
    assert len(measured) == 2  # nothing was beaten
    assert mfu_of(tokens=120) == 0.8  # of 1500
    assert mfu_of(tokens=200) == 1.0  # 1600 is beaten as well: the step is the best product that was seen
    assert mfu_of(tokens=100) == 0.5
    assert measured == []
    assert raised_peak(1000.0, 1100.0, lambda: 900.0) == 1100.0  # a bad moment does not lower it


def test_the_best_of_several_shapes_is_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that runs while a product is computed, and says that the second shape's is the fastest."""
    sides = 16
    monkeypatch.setitem(throughput.SIDE, "cpu", sides)
    now, seconds = [0.0], {16: 1.0, 32: 2.0, 64: 100.0}
    product = torch.mm

    def timed(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        now[0] += seconds[max(*left.shape, *right.shape)]
        return product(left, right, out=out)

    monkeypatch.setattr(throughput.torch, "mm", timed)
    monkeypatch.setattr(throughput, "LONGEST", 1e9)
    found = wider_peak(torch.device("cpu"), "fp32", clock=lambda: now[0])
    assert found == 2 * 32**3 / 2.0
    assert matmul_peak(torch.device("cpu"), "fp32", clock=lambda: now[0]) == 2 * sides**3 / 1.0


@pytest.mark.parametrize("placement", ["terminal", "dense"])
def test_a_steps_flops_are_those_of_the_cost_model(placement: str) -> None:
    config: RunConfig = recipe("laptop", f"{placement}/rmsnorm")
    exits = {"terminal": 1, "dense": 6}[placement]
    assert step_flops_by_depth(config)(6) == training_flops(config.model, 128, 6, exits)


def test_a_run_logs_speed_and_waiting(cache: Path, tmp_path: Path) -> None:
    over: dict[str, Any] = {
        "model": {"dim": 16, "heads": 2, "layers": 1, "loops": 2, "vocabulary": 64, "sequence": 16},
        "data": {"max_bytes": 40000, "max_validation_bytes": 3000, "tokenizer": {"vocabulary": 64}},
        "training": {"steps": 4, "batch": 4, "log_every": 2, "threads": 1, "monitor_every": 0},
    }
    config = recipe("laptop", "dense/rmsnorm", over)
    execute(config, tmp_path / "run", quiet=True)
    records = [record for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    assert len(records) == 3
    for record in records:
        assert 0 <= record["data_share"] < 1
        per_token = record["flops_per_second"] / record["tokens_per_second"]
        assert per_token == pytest.approx(step_flops_by_depth(config)(2), rel=1e-6)
        assert 0 < record["mfu"] < 1
