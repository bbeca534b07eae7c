"""The benchmarks' own arithmetic, and that they run: the last line is JSON with the promised keys.

They run in this process, since a process takes longer to import torch than to take steps of these sizes. Processes of
their own are held by `test_workers`, by the depth curve, and by the benchmark of operations.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plan, steps, train_step
from benchmarks.scaling import exponent
from benchmarks.step_ratios import figures
from benchmarks.steps import Step
from benchmarks.trainer import largest_difference
from loopscope.report.plots.sheet import Sheet
from loopscope.results import load_results

ROOT = Path(__file__).parent.parent.parent


class Here:
    """Runs benchmarks, and what they would run in processes of their own, in this one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = monkeypatch, capsys
        self.elsewhere: list[str] = []  # what would have run in another process

    def run(self, benchmark: str, *arguments: str) -> Any:
        """Run a benchmark; its last line, as JSON."""
        with self._patch.context() as patch:
            patch.setattr(sys, "argv", [benchmark, *arguments])
            self._capsys.readouterr()
            import_module(f"benchmarks.{benchmark}").main()
        return json.loads(self._capsys.readouterr().out.splitlines()[-1])

    def all_here(self, benchmark: str) -> None:
        """Have measurements of memory, and workers, in this process too."""
        module = import_module(f"benchmarks.{benchmark}")
        self._patch.setattr(module, "elsewhere", self._again)
        self._patch.setattr(module, "workers", self._workers, raising=False)

    def _again(self, benchmark: str, *arguments: str) -> Any:
        self.elsewhere.append(arguments[-1])
        return self.run(benchmark, *sys.argv[1:], *arguments)

    @contextmanager
    def _workers(self, commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Step]]:
        made: dict[str, Step] = {}
        for name, (_, _, module, *arguments) in commands.items():
            with self._patch.context() as patch:
                patch.setattr(sys, "argv", [module, *arguments])
                benchmark = import_module(module)
                patch.setattr(benchmark, "serve", lambda build, name=name: made.update({name: build()}))
                benchmark.main()
        yield made


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    monkeypatch.chdir(ROOT)  # where a process finds the benchmarks
    monkeypatch.setattr(train_step.torch, "set_num_threads", lambda count: None)  # one, as all tests have
    return Here(monkeypatch, capsys)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_exponents_of_power_laws(power: float) -> None:
    values = (1, 2, 4, 8, 16)
    assert exponent(values, [3.7 * value**power for value in values]) == pytest.approx(power, abs=1e-3)
    assert exponent((4,), (1.0,)) != exponent((4,), (1.0,))  # one point has none


def test_figures_are_medians_of_ratios_within_rounds_and_the_worse_precision_counts() -> None:
    seconds = {
        "ours fp32": [2.0, 20.0, 2.0],  # the second round was slow for everyone
        "baseline fp32": [8.0, 60.0, 6.0],
        "masked fp32": [16.0, 100.0, 16.0],
        "ours bf16": [1.0, 10.0, 1.0],
        "baseline bf16": [5.0, 50.0, 5.0],
        "terminal bf16": [0.8, 8.0, 0.8],
        "unlooped bf16": [0.84, 8.4, 0.84],
    }
    memory = dict.fromkeys(seconds, 100.0) | {"baseline fp32": 400.0, "baseline bf16": 200.0}
    flops = dict.fromkeys(seconds, 10.0) | {"terminal bf16": 8.0}
    weights = dict.fromkeys(seconds, 20.0) | {"unlooped bf16": 100.0}
    found = figures([seconds], memory, flops, weights, ("fp32", "bf16"), "bf16")
    assert found["speedup_by_dtype"] == {"fp32": 3.0, "bf16": 5.0}
    assert found["speedup_vs_baseline"] == 3.0
    assert found["speedup_range_by_dtype"] == {"fp32": [3.0, 4.0], "bf16": [5.0, 5.0]}
    assert found["speedup_vs_masked_by_dtype"] == {"fp32": 8.0, "bf16": None}
    assert found["memory_ratio_by_dtype"] == {"fp32": 0.25, "bf16": 0.5}
    assert found["memory_ratio_vs_baseline"] == 0.5
    assert found["dense_over_terminal_time"] == found["dense_over_terminal_flops"] == 1.25
    assert found["bf16_over_fp32"] == 2.0
    assert found["looped_over_unlooped_tokens_per_second"] == 1.05
    assert found["looped_over_unlooped_memory"] == 0.6


def test_figures_of_kinds_that_did_not_run_are_none() -> None:
    seconds = {"ours bf16": [1.0], "baseline bf16": [2.0]}
    found = figures([seconds], {}, dict.fromkeys(seconds, 1.0), {}, ("bf16",), "bf16")
    assert found["speedup_vs_baseline"] == 2.0
    assert found["memory_ratio_vs_baseline"] is None
    assert found["dense_over_terminal_time"] is None
    assert found["dense_over_terminal_flops"] is None


@pytest.mark.slow
def test_the_training_step_benchmark_runs(here: Here) -> None:
    """Nine processes. That a worker compiles its step, as in a long run, is held by `test_workers`."""
    here.all_here("train_step")
    shape = ["--size=laptop", "--batch=1", "--sequence=32", "--pairs=1", "--threads=1", "--dtype=bf16"]
    found = here.run("train_step", "--compile=off", *shape)
    kinds = [name for name in steps.KINDS if "bf16" in name and "tuned" not in name]
    assert here.elsewhere == kinds  # each kind's memory
    assert set(found["tokens_per_second"]) == set(here.elsewhere)
    assert found["pairs"] == 1
    assert found["processes"] == "one a kind"
    assert found["dense_over_terminal_flops"] == pytest.approx(1.6, abs=0.1)
    assert found["memory_ratio_vs_baseline"] > 0
    assert 0 < found["mfu_by_dtype"]["bf16"] <= 1
    assert {"speedup_vs_baseline", "dense_over_terminal_time", "bf16_over_fp32", "threads"} <= found.keys()


@pytest.mark.slow
def test_the_gpu_table_runs_small_on_a_cpu(here: Here) -> None:
    found = here.run("gpu", "--device=cpu", "--small", "--pairs=1", "--skip-compiled", "--dtype=fp32")
    assert [block["sequence"] for block in found["blocks"]] == [64, 128]
    for block in found["blocks"]:
        assert block["failed"] == {}
        assert block["speedup_vs_baseline"]["baseline"] == 1
        assert min(block["tokens_per_second"].values()) > 0
        assert max(block["mfu"].values()) <= 1
    (looks,) = found["looks"]
    assert min(looks["audit"].values()) > 0
    assert looks["exits"]["realised"] > 0
    assert looks["generation"]["share of equal tokens"] == 1  # the static step's are ours
    assert "graph, tokens/s" not in looks["generation"]  # CUDA's alone


@pytest.mark.slow
def test_the_scaling_benchmark_runs(here: Here) -> None:
    here.all_here("scaling")
    found = here.run("scaling", "--axes=loops", "--points=2", "--repeats=1")
    loops = found["axes"]["loops"]
    assert len(here.elsewhere) == 2
    assert loops["values"] == [1, 2]
    assert min(loops["seconds"]) > 0
    assert math.isfinite(loops["time_exponent"])


@pytest.mark.slow
def test_the_depth_curve_benchmark_runs_and_both_ways_give_the_same_losses(here: Here) -> None:
    """Both ways' memory is measured in processes of their own."""
    shape = ["--size=laptop", "--windows=2", "--batch=1", "--loops=3", "--pairs=1", "--threads=1"]
    found = here.run("depth_curve", *shape)
    assert found["loops"] == 3
    assert found["largest_loss_difference"] < 1e-4
    assert found["memory_ratio_vs_baseline"] > 0
    assert {"speedup_vs_baseline", "threads", "device", "dtype", "torch"} <= found.keys()


@pytest.mark.slow
def test_the_benchmark_of_saving_runs(here: Here, tmp_path: Path) -> None:
    found = here.run("saving", "--size=laptop", "--rounds=1", f"--folder={tmp_path}")
    assert found["bytes"] > 1e6
    assert min(found["stall_seconds"].values()) > 0
    assert found["ratio"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_data_benchmark_runs(here: Here) -> None:
    found = here.run("data", "--megabytes=1", "--vocabulary=2000", "--pairs=1")
    assert found["speedup_vs_baseline"] > 0
    assert found["dtype"] == "uint16"


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_the_trainers_losses_are_those_of_our_own_step(here: Here, parts: int) -> None:
    pytest.importorskip("accelerate", reason="extra `hf`")
    here.all_here("trainer")
    shape = ["--size=laptop", "--batch=2", "--sequence=24", "--steps=3", "--repeats=1"]
    found = here.run("trainer", f"--accumulation={parts}", *shape)
    assert len(here.elsewhere) == 2
    assert found["largest_loss_difference"] < 1e-4
    assert found["same_verdicts"]
    assert min(found["time_ratio"], found["memory_ratio"]) > 0


def test_the_trainers_difference_is_the_largest_of_all_steps() -> None:
    assert largest_difference([1.0, 2.0, 3.0], [1.0, 2.5, 2.9]) == 0.5


@pytest.mark.slow
def test_two_models_of_others_have_their_rows(here: Here) -> None:
    found = here.run("foreign_models", "nanbeige")
    assert list(found["rows"]) == ["nanbeige", "nanbeige, norm skipped"]
    assert found["right"] == 2
    for row in found["rows"].values():
        assert row["exits"] < 1e-4
        assert row["one_unroll"] < 1e-4


def test_text_of_a_model_of_others_is_timed_three_ways(here: Here) -> None:
    words = ["hrm", "--dim", "32", "--new-tokens", "4", "--pairs", "1", "--prompt", "3"]
    found = here.run("foreign_text", *words)
    row = found["rows"]["hrm"]
    assert row["same"]
    assert found["speedup_vs_baseline"] == min(row["over_anew"], row["over_theirs"])
    assert row["over_theirs"] == pytest.approx(row["cached"] / row["theirs"])
    assert {"machine", "transformers", "threads"} <= found.keys()


@pytest.mark.slow
def test_the_report_benchmark_runs(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undrawn: that processes draw is held by the report's own tests."""
    blank = Sheet(b"", "", "<svg/>")
    monkeypatch.setattr("loopscope.report.plots.drawing._draw", lambda job: blank)
    monkeypatch.setattr("loopscope.report.plots.drawing.SHARED_FROM", 1000)
    here.all_here("report")
    monkeypatch.setattr("benchmarks.report.LOOPS", 2)
    shape = ["--conditions=2", "--seeds=3", "--steps=2", "--validation-bytes=9000", "--repeats=0"]
    found = here.run("report", f"--study={tmp_path / 'study'}", *shape)
    assert (found["runs"], found["figures"] > 20) == (6, True)
    assert found["seconds"] > 0
    assert {"importing", "reading records", "rendering, drawing", "all"} <= found["stages"].keys()
    study = load_results(tmp_path / "study")
    losses = {run.per_loop[-1].loss for run in study.runs}
    assert len(losses) == 6  # seeds differ


@pytest.mark.slow
def test_the_plan_benchmark_runs(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    case = plan.Case("laptop", "terminal/rmsnorm", 1, "fp32", model={"dim": 32, "sequence": 16})
    monkeypatch.setattr(plan, "CASES", {"small": case})
    monkeypatch.setattr(plan, "elsewhere", lambda *words: {"bytes": plan.peak_bytes(case.config())})
    found = here.run("plan", "--rounds=1")
    assert found["clock"] == "processor"
    assert math.isfinite(found["time_error"])
    assert found["memory_error"] == found["cases"]["small"]["memory_error"]
