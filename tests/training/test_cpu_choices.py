"""Sizes that trials find: who takes them, who keeps to what a run began with, and what damage does."""

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.config.recipes import recipe
from loopscope.jobs.train import execute
from loopscope.objectives import linear_cross_entropy, token_loss
from loopscope.ops import attention, attention_dropout
from loopscope.ops.cpu_sizes import CpuSizes, cpu_sizes, use_cpu_sizes
from loopscope.ops.narrow_products import cpu_multiplies
from loopscope.results.layout import CPU_SIZES as FILE
from loopscope.training import cpu_trials
from loopscope.training.compile import WORTH_SECONDS, is_fused
from loopscope.training.cpu_choices import (
    WORTH_TRYING,
    CpuChoices,
    bf16_pays,
    choices_file,
    choices_for,
    choices_key,
    kept_choices,
    kept_or_found,
    trials_allowed,
    trials_said,
)
from loopscope.training.cpu_trials import fastest, found_by_trials, try_all, with_same_bits
from loopscope.training.hardware import resolve_precision
from loopscope.training.step import TrainingStep

CPU = torch.device("cpu")
FOUND = CpuChoices(logits=1000, squares=2048, fuses=False, peak=1e9, over_fp32=1.1, found="2026-11-30")
OTHER = replace(FOUND, logits=2000)
LONG = 2 * WORTH_TRYING


@pytest.fixture
def trials(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trials are on, in a cache of this test's own, on a CPU that multiplies bf16."""
    monkeypatch.setenv("LOOPSCOPE_CPU_TRIALS", "on")
    monkeypatch.setattr("loopscope.training.cpu_choices.cpu_multiplies", lambda dtype: True)
    return cache


def finding(found: CpuChoices, asked: list[str]) -> Callable[[str], CpuChoices]:
    def find(precision: str) -> CpuChoices:
        asked.append(precision)
        return found

    return find


def test_a_long_run_has_sizes_found_once_a_machine_and_keeps_them_in_its_folder(
    trials: Path, tmp_path: Path
) -> None:
    asked: list[str] = []
    one = choices_for(tmp_path / "one", CPU, "bf16", LONG, False, finding(FOUND, asked))
    two = choices_for(tmp_path / "two", CPU, "bf16", LONG, False, finding(OTHER, asked))
    assert one == two == FOUND  # found by the first, kept for the second
    assert asked == ["bf16"]
    assert one.sizes == CpuSizes(logits=1000, squares=2048)
    assert json.loads((tmp_path / "one" / FILE).read_text()) == asdict(FOUND)
    assert list(kept_choices()) == [choices_key("bf16")]
    choices_file().unlink()  # another machine, or a cache that was emptied: the run keeps what it began with
    assert choices_for(tmp_path / "one", CPU, "bf16", LONG, True, finding(OTHER, asked)) == FOUND
    assert asked == ["bf16"]


def test_a_run_that_is_short_counted_by_nobody_on_a_gpu_or_begun_without_takes_the_codes_own(
    trials: Path, tmp_path: Path
) -> None:
    asked: list[str] = []
    kept_or_found("fp32", finding(FOUND, asked))
    gpu = torch.device("cuda")
    for device, flops, begun in (
        (CPU, 1e12, False),
        (CPU, None, False),
        (gpu, LONG, False),
        (CPU, LONG, True),
    ):
        assert choices_for(tmp_path, device, "fp32", flops, begun, finding(OTHER, asked)) == CpuChoices()
    assert asked == ["fp32"]
    assert not (tmp_path / FILE).exists()


def test_turned_off_nothing_is_found_read_or_written(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_or_found("fp32", finding(FOUND, []))
    monkeypatch.setenv("LOOPSCOPE_CPU_TRIALS", "off")
    assert choices_for(tmp_path, CPU, "fp32", LONG, False, finding(OTHER, [])) == CpuChoices()
    assert not (tmp_path / FILE).exists()
    assert trials_said() == ("off (LOOPSCOPE_CPU_TRIALS): the sizes that the code names hold",)
    monkeypatch.setenv("LOOPSCOPE_CPU_TRIALS", "maybe")
    with pytest.raises(ValueError, match="LOOPSCOPE_CPU_TRIALS is 'maybe'; it is 'on'.* or 'off'"):
        trials_allowed()


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"KEY": 3}',
        '{"KEY": {"logits": "many"}}',
        '{"KEY": {"logits": -1, "more": 2}}',
    ],
)
def test_a_damaged_file_is_found_anew_and_the_rest_of_it_stays(trials: Path, damage: str) -> None:
    choices_file().parent.mkdir(parents=True, exist_ok=True)
    choices_file().write_text(damage.replace("KEY", choices_key("fp32")))
    assert kept_or_found("fp32", finding(FOUND, [])) == FOUND
    assert kept_choices() == {choices_key("fp32"): FOUND}
    assert kept_or_found("bf16", finding(OTHER, [])) == OTHER
    assert kept_choices() == {choices_key("fp32"): FOUND, choices_key("bf16"): OTHER}


def test_a_runs_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.warns(
        UserWarning, match="cannot be read: the run goes on with the sizes that the code names"
    ):
        assert choices_for(tmp_path, CPU, "fp32", LONG, True, finding(OTHER, [])) == CpuChoices()


def test_what_could_not_be_found_is_not_kept(trials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_trials, "GIVEN_UP_AFTER", 0.01)
    with pytest.warns(UserWarning, match="could not be found .TimeoutExpired"):
        assert kept_or_found("fp32", found_by_trials) == CpuChoices()
    assert kept_choices() == {}


def begin(logits: int, start: Any, answers: Any) -> None:
    def find(precision: str) -> CpuChoices:
        return replace(FOUND, logits=logits)

    start.wait()
    answers.put(kept_or_found("fp32", find).logits)


@pytest.mark.slow
def test_processes_that_begin_at_once_take_the_same(trials: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    start, answers = spawn.Barrier(4), spawn.Queue()
    processes = [spawn.Process(target=begin, args=(n, start, answers)) for n in range(1, 5)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert len(set(found)) == 1
    assert kept_choices()[choices_key("fp32")].logits == found[0]


def test_bf16_has_to_pay_where_that_is_known(trials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopscope.training.hardware.cpu_multiplies", lambda dtype: True)
    assert resolve_precision("auto", CPU) == "bf16"
    kept_or_found("bf16", finding(FOUND, []))
    assert not bf16_pays()
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"


def test_nothing_is_tried_in_bf16_on_a_cpu_without_it_and_asking_for_it_is_warned_of(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("hardware", "cpu_choices"):
        monkeypatch.setattr(f"loopscope.training.{module}.cpu_multiplies", lambda dtype: False)
    asked: list[str] = []
    assert choices_for(tmp_path / "run", CPU, "bf16", LONG, False, finding(FOUND, asked)) == CpuChoices()
    assert asked == []
    assert choices_for(tmp_path / "run", CPU, "fp32", LONG, False, finding(FOUND, asked)) == FOUND
    with pytest.warns(
        UserWarning, match=r"training\.precision is bf16, which this CPU has no instructions for"
    ):
        assert resolve_precision("bf16", CPU) == "bf16"


def test_a_slow_cpu_compiles_sooner_and_one_where_chains_lose_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopscope.training.compile.compiler_missing", lambda: None)
    assert is_fused("auto", CPU, WORTH_SECONDS * 1e9, None, 1e9)
    assert not is_fused("auto", CPU, WORTH_SECONDS * 0.9e9, None, 1e9)
    assert not is_fused("auto", CPU, WORTH_SECONDS * 1e9, False, 1e9)
    assert is_fused(True, CPU, 1.0, False, 1e9)


def test_a_candidate_has_to_win_by_more_than_the_margin() -> None:
    now = [0.0]

    def taking(seconds: float) -> Callable[[], None]:
        def way() -> None:
            now[0] += seconds

        return way

    def found(**seconds: float) -> int:
        return fastest({int(name[1:]): taking(s) for name, s in seconds.items()}, 2, lambda: now[0])

    assert found(_1=0.9, _2=1.0, _3=0.95) == 1
    assert found(_1=0.98, _2=1.0, _3=0.99) == 2
    assert found(_1=2.0, _2=1.0) == 2
    assert found(_1=0.9, _2=1.0, _3=0.8) == 3


def test_a_candidate_that_loses_one_round_is_not_taken() -> None:
    now, seconds = [0.0], iter([1.0, 0.5, *[1.0, 0.5] * 3, 1.0, 1.1])

    def way() -> None:
        now[0] += next(seconds)

    assert fastest({1: way, 2: way}, 1, lambda: now[0]) == 1


def test_only_sizes_with_the_same_bits_are_candidates() -> None:
    ways = with_same_bits(lambda size: (torch.tensor(1.0 if size < 3 else 1.5),), (1, 2, 3, 4), usual=2)
    assert list(ways) == [1, 2]


def test_operations_read_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, labels = torch.zeros(10, 4), torch.zeros(1, 30, dtype=torch.long)
    usual = linear_cross_entropy.LinearCrossEntropy(matrix, labels)
    query = torch.zeros(64, 8, 4)
    together = attention_dropout._together(query)
    with use_cpu_sizes(CpuSizes(logits=60, squares=512, narrow=0)):
        assert len(linear_cross_entropy.LinearCrossEntropy(matrix, labels).logits) == 6
        assert attention_dropout._together(query) == 2
        assert attention._narrow() == 0
    assert len(usual.logits) == 30 <= token_loss.CHUNK_ELEMENTS // 10
    assert (together, attention._narrow()) == (64, attention.NARROW)
    assert cpu_sizes() == CpuSizes()


def test_a_run_trains_with_what_was_found_and_goes_on_with_it(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over: dict[str, Any] = {
        "model": {"dim": 16, "heads": 2, "layers": 1, "loops": 2, "vocabulary": 64, "sequence": 16},
        "data": {"max_bytes": 40000, "max_validation_bytes": 3000, "tokenizer": {"vocabulary": 64}},
        "training": {"steps": 2, "batch": 4, "threads": 1, "monitor_every": 0, "precision": "fp32"},
    }
    seen: list[CpuSizes] = []

    class Step(TrainingStep):
        def _accumulate(self, *inputs: Any) -> Any:
            seen.append(cpu_sizes())
            return super()._accumulate(*inputs)

    monkeypatch.setattr("loopscope.training.cpu_choices.WORTH_TRYING", 0)
    monkeypatch.setattr("loopscope.training.loop.TrainingStep", Step)
    monkeypatch.setattr("loopscope.training.loop.found_by_trials", finding(FOUND, []))
    execute(recipe("laptop", "dense/rmsnorm", over), tmp_path / "run", quiet=True)
    monkeypatch.setattr("loopscope.training.loop.found_by_trials", finding(OTHER, []))
    choices_file().unlink()
    longer = {**over, "training": {**over["training"], "steps": 3}}
    execute(recipe("laptop", "dense/rmsnorm", longer), tmp_path / "run", resume=True, quiet=True)
    assert seen == [FOUND.sizes] * 3


@pytest.mark.slow
def test_trials_say_what_the_doctor_prints(trials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, small, by a clock that says that everything takes as long: then the code's own sizes stay."""
    monkeypatch.setattr(cpu_trials, "TRIAL_ROUNDS", 1)
    # The compiler cannot look through this suite's checks of shapes.
    monkeypatch.setattr(cpu_trials, "compiler_missing", lambda: "none here")
    ticks = iter(range(10**6))
    precision = "bf16" if cpu_multiplies(torch.bfloat16) else "fp32"  # else each trial takes minutes
    found = kept_or_found(precision, lambda _: try_all(precision, clock=lambda: float(next(ticks))))
    assert (found.logits, found.squares, found.narrow) == (None, None, None)
    assert found.over_fp32 == 1.0
    said, where = trials_said()
    assert said.startswith(
        f"{precision}: sizes as the code has them; chains not tried; products 1 times fp32's"
    )
    assert where == f"kept in {choices_file()}"
