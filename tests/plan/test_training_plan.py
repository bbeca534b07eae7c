"""The whole plan: what fits, what to change, modes, exchange between GPUs, budgets, sizes by parameters, a command."""

import json
from dataclasses import replace
from typing import Any

import pytest

from loopscope.config.parameter_counts import COUNT_BATCH, parameters_named, shape_of
from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig
from loopscope.config.sizes import is_size
from loopscope.plan import count_parameters
from loopscope.plan.devices import DEVICES, Device, device
from loopscope.plan.step_memory import Placing, step_memory
from loopscope.plan.step_time import step_time
from loopscope.plan.training_flops import training_cost
from loopscope.plan.training_plan import COMPILES_FROM, TrainingPlan, plan_training
from loopscope.training import compile as compiling
from loopscope.training import throughput
from tests.fixtures import refusal

H100 = device("h100")


def of(size: str, condition: str = "dense/rmsnorm", **over: Any) -> RunConfig:
    return recipe(size, condition, over)


def with_memory(gigabytes: float) -> Device:
    return replace(H100, memory=round(gigabytes * 1e9), spare=0)


def test_an_example_by_hand() -> None:
    """Products, days and cost of 44M on one GPU, from the formula of each."""
    config = of("published-44m")
    found = plan_training(config, H100, budget=10**9, price=2.0)
    tokens = 64 * 256
    assert found.step_tokens == tokens
    assert found.time.products == pytest.approx(training_cost(config) * tokens / (794.5e12 * H100.reach))
    assert found.steps == -(-(10**9) // tokens)
    assert found.tokens_per_day == pytest.approx(86_400 * found.tokens_per_second)
    assert found.cost == pytest.approx(2.0 * found.steps * found.step_seconds / 3600)
    assert found.checkpoint_bytes == 12 * found.parameters
    assert found.mode == "single"
    assert found.too_much is None


def test_every_change_makes_it_fit() -> None:
    config = of("published-129m", training={"batch": 64})
    small = with_memory(8)
    found = plan_training(config, small)
    assert found.too_much == "activations"
    assert len(found.changes) == 3
    for change in found.changes:
        words = change.partition(" (")[0].split()
        named = dict(zip(words[::2], words[1::2], strict=True))
        training = {
            "accumulation": int(named.get("--training.accumulation", 1)),
            "gradient_checkpointing": named.get("--training.gradient-checkpointing", "none"),
        }
        changed = config.model_copy(update={"training": config.training.model_copy(update=training)})
        assert plan_training(changed, small, int(named.get("--gpus", 1))).too_much is None, change


def test_a_model_that_is_too_large_for_ddp_is_shared() -> None:
    parts = {"training": {"accumulation": 64, "gradient_checkpointing": "layer"}}
    config = recipe("1.4b", "dense/rmsnorm", parts)
    roomy, once, tight = (plan_training(config, with_memory(room), 8) for room in (40, 18, 13))
    assert roomy.mode == "ddp"
    assert (once.mode, once.gather_once) == ("fsdp", True)
    assert (tight.mode, tight.gather_once) == ("fsdp", False)
    assert tight.too_much is None
    assert once.time.gathers == 1
    assert tight.time.gathers == 64 * 2 * 4
    assert tight.time.exchanged_bytes > once.time.exchanged_bytes


def test_what_travels_is_what_rings_send() -> None:
    config = of("published-44m")
    count = sum(count_parameters(config.model).values())
    ddp = step_time(config, H100, Placing("ddp", 4))
    assert ddp.exchanged_bytes == pytest.approx(2 * 3 / 4 * 4 * count)
    parts = count_parameters(config.model)
    shared, root = parts["shared"], parts["embedding"] + parts["head"]
    once = step_time(config, H100, Placing("fsdp", 4))
    every = step_time(config, H100, Placing("fsdp", 4, gather_once=False))
    assert (once.gathers, every.gathers) == (1, 8)
    assert every.exchanged_bytes - once.exchanged_bytes == pytest.approx(3 / 4 * 4 * (7 * shared + root))


def test_more_loops_and_exits_and_less_network_take_longer() -> None:
    base = step_time(of("published-44m"), H100, Placing())
    deeper = step_time(of("published-44m", model={"loops": 8}), H100, Placing())
    fewer = step_time(of("published-44m", "terminal/rmsnorm"), H100, Placing())
    assert 1.8 < deeper.seconds / base.seconds < 2.05
    assert fewer.products < base.products
    assert fewer.passes < base.passes
    slow = replace(H100, link=1e9)
    placing = Placing("ddp", 8)
    assert step_time(of("published-44m"), slow, placing).exchange > 0.1
    assert step_time(of("published-44m"), H100, placing).exchange < 0.01
    checkpointed = of("published-44m", training={"gradient_checkpointing": "layer"})
    assert step_time(checkpointed, H100, Placing()).seconds > 1.2 * base.seconds
    assert step_memory(checkpointed, Placing()).total < step_memory(of("published-44m"), Placing()).total


@pytest.mark.parametrize(("name", "count"), [("1.4b", 1.4e9), ("350m", 3.5e8), ("44M", 4.4e7), ("7b", 7e9)])
def test_a_size_by_parameters_comes_near_them(name: str, count: float) -> None:
    config = recipe(name)
    assert parameters_named(name) == count
    assert sum(count_parameters(config.model).values()) == pytest.approx(count, rel=0.05)
    assert config.model.layers == pytest.approx(config.model.dim / 64, rel=0.15)
    assert config.model.heads == config.model.dim // 64
    assert config.training.batch == COUNT_BATCH


def test_the_published_sizes_are_points_of_the_rule() -> None:
    for name, count in (("published-44m", 43_900_000), ("published-129m", 129_000_000)):
        model = recipe(name).model
        assert shape_of(count) == (model.dim, model.layers)


@pytest.mark.parametrize(
    "name", ["1.4", "b", "0m", "1m", "-1b", "1e9b", "2000b", "1.4bb", "", "१b", "999999999m"]
)
def test_other_sizes_are_refused_in_a_sentence(name: str) -> None:
    assert not is_size(name)
    said = refusal(lambda: recipe(name))
    assert said is not None
    assert "size" in said or "parameters" in said


def test_the_threshold_is_that_of_training() -> None:
    assert COMPILES_FROM == compiling.WORTH_COMPILING


@pytest.mark.parametrize("kind", DEVICES)
def test_every_device_says_where_its_figures_are_from(kind: str) -> None:
    found = DEVICES[kind]
    assert "20" in found.source or "nominal" in found.source
    assert found.matmul["bf16"] > found.matmul["fp32"] > 0
    plan = plan_training(of("laptop"), found)
    assert 0 < plan.mfu < 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "0"], "gpus is 0"),
        (["--gpus", "3"], "multiple of 3"),
        (["--gpus", "2", "--device", "cpu-amx"], "planned alone"),
        (["--device", "h10"], "did you mean 'h100'"),
        (["--tokens", "many"], "300m, 100b or 5e9"),
        (["--tokens", "0"], "tokens is 0"),
        (["--tokens", "1e99"], "300m, 100b or 5e9"),
        (["--price-per-gpu-hour", "-1"], "price-per-gpu-hour is -1"),
        (["--price-per-gpu-hour", "nan"], "price-per-gpu-hour is nan"),
        (["--size", "1.4x"], "350m or 1.4b"),
    ],
)
def test_bad_input_is_one_sentence(
    call: Any, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    size = [] if "--size" in words else ["--size", "laptop"]
    assert call("plan", *size, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_the_command_prints_labelled_lines_and_json(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--size", "1.4b", "--gpus", "64", "--tokens", "100b", "--price-per-gpu-hour", "2"]
    assert call("plan", *words) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    for label in ("memory", "step", "speed", "checkpoint", "budget", "exchange", "source"):
        assert f"\n{label} " in text
    assert call("plan", *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(TrainingPlan.__dataclass_fields__)
    assert found["steps"] == -(-(10**11) // (512 * 256))


def test_this_machine_can_be_planned_for(
    call: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "SIDE", {"cpu": 128})
    small = (
        "--model.dim 32 --model.heads 2 --model.sequence 16 --data.tokenizer.kind bytes --training.batch 2"
    )
    assert call("plan", "--size", "laptop", "--measure", "--json", *small.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert "timed on this machine" in found["source"]
    assert 0 < found["step_seconds"] < 1000
    assert found["time"]["layers"] > 0
    assert found["time"]["products"] == 0
    assert found["too_much"] is None


def test_what_is_refused_is_refused_before_a_step_is_timed(
    call: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(*_: Any) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr("loopscope.jobs.timed_step", timed)
    assert call("plan", "--size", "laptop", "--measure", "--gpus", "2") == 2
    assert "planned alone" in capsys.readouterr().err
    assert call("plan", "--size", "laptop", "--measure", "--tokens", "many") == 2
