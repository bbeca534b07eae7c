"""Costs from the config against the modules themselves, torch's FLOP formulas and what autograd keeps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from loopscope.config.families import family_change
from loopscope.config.nested import merged
from loopscope.config.recipes import recipe
from loopscope.config.run_config import parse_config
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.depth import draw_depths, unroll_to
from loopscope.objectives.objective import build_objective
from loopscope.plan.flops import jacobian_flops, training_flops
from loopscope.plan.parameters import cost, decode_flops, forward_flops
from loopscope.plan.training_flops import training_cost
from loopscope.recurrence import unroll
from tests.model.fixtures import VARIANTS, build

SEQ, BATCH = 64, 4
SIZES = {"dim": 64, "vocabulary": 200, "sequence": SEQ}


class Counter(TorchDispatchMode):
    """Sums torch's own formulas over what runs, in less time than FlopCounterMode, and gradients of gradients too."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        formula, of_others = _known(func)
        if of_others:
            with self:
                return func.decompose(*args, **(kwargs or {}))
        made = func(*args, **(kwargs or {}))
        if formula:
            self.total += formula(*args, **(kwargs or {}), out_val=made)
        return made

    def get_total_flops(self) -> int:
        return self.total


@cache
def _known(func: Any) -> tuple[Callable[..., int] | None, bool]:
    """Torch's formula of an operation, and whether it has none and is made of others."""
    formula = flop_registry.get(func._overloadpacket)
    return formula, formula is None and func.has_kernel_for_dispatch_key("CompositeImplicitAutograd")


@contextmanager
def counted() -> Iterator[Counter]:
    """Counts; attention by plain products, because torch has no formula for the CPU's fused kernel."""
    with sdpa_kernel(SDPBackend.MATH), Counter() as counter:
        yield counter


def test_the_counter_counts_as_torchs_own_does() -> None:
    config = build("plain", **SIZES)
    own = FlopCounterMode(display=False)
    for counter in (Counter(), own):
        torch.manual_seed(0)
        model, ids = LoopedTransformer(config), torch.randint(200, (BATCH, SEQ))
        with sdpa_kernel(SDPBackend.MATH), counter:
            build_objective(ObjectiveConfig(placement="dense"))(unroll(model, ids), ids).total.backward()
    assert counter.get_total_flops() == own.get_total_flops() > 0


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("settings", [{}, SIZES])
def test_parameters_are_the_modules(name: str, settings: dict[str, int]) -> None:
    config = build(name, **settings)
    assert cost(config).parameters == LoopedTransformer(config).parameter_count()


@pytest.mark.parametrize(
    "readout",
    [
        "layernorm",
        "raw",
        "final-only",
        {"kind": "alpha", "learned": True, "per_loop": True, "s_ref": "learned"},
    ],
)
@pytest.mark.parametrize("carry", [[], ["damping"], ["layernorm"]])
def test_parameters_of_readouts_and_carries(readout: object, carry: list[str]) -> None:
    config = build("plain", readout=readout, carry=carry)
    assert cost(config).parameters == LoopedTransformer(config).parameter_count()


@pytest.mark.smoke
def test_published_sizes() -> None:
    counts = {
        size: cost(recipe(size).model).parameters for size in ("laptop", "published-44m", "published-129m")
    }
    assert counts == {"laptop": 1_065_600, "published-44m": 43_934_208, "published-129m": 128_822_016}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("loops", [1, 4])
def test_inference_flops_within_one_percent(name: str, loops: int) -> None:
    model = LoopedTransformer(build(name, **SIZES)).eval().requires_grad_(False)
    ids = torch.randint(200, (BATCH, SEQ))
    with counted() as counter:
        for state in unroll(model, ids, loops):
            state.gate_logit()
            if state.is_last:
                state.logits()
    expected = counter.get_total_flops() / (BATCH * SEQ)
    assert cost(model.config, loops=loops).inference_flops == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("placement", ["terminal", "dense"])
def test_training_flops_within_one_percent(name: str, placement: str) -> None:
    """The objective that training uses, chunked head and all."""
    torch.manual_seed(0)
    model = LoopedTransformer(build(name, **SIZES))
    if model.gate is not None and placement != "exit-weighted":
        model.gate.requires_grad_(False)  # no placement trains it here, so no backward pass reaches it
    ids = torch.randint(200, (BATCH, SEQ))
    with counted() as counter:
        build_objective(ObjectiveConfig(placement=placement))(unroll(model, ids), ids).total.backward()
    exits = 1 if placement == "terminal" else 3
    expected = counter.get_total_flops() / (BATCH * SEQ)
    assert cost(model.config, exits=exits).training_flops == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("family", ["loopformer", "huginn", "universal"])
def test_the_catalogues_training_flops_are_those_of_a_step(family: str) -> None:
    """Second unroll of the shortcut, gradient through the last loops only: counted as a step runs them."""
    loops = (
        5 if family == "huginn" else 4
    )  # an even one: in evaluation the shorter way is half of it, its mean
    over = {
        "model": {**SIZES, "heads": 4, "layers": 1, "loops": loops},
        "data": {"tokenizer": {"vocabulary": 200}},
        "training": {"depth": {"backprop": 2}} if family == "huginn" else {},
    }
    config = recipe("laptop", "mine", {**merged(family_change(family, "laptop"), over)})
    depth = round(config.training.depth.average(loops))
    assert depth == (6 if family == "huginn" else 4)
    torch.manual_seed(0)
    model = LoopedTransformer(config.model).eval()
    ids = torch.randint(200, (BATCH, SEQ))
    objective = build_objective(config.objective)  # in evaluation, its shorter way is half the depth
    with counted() as counter:
        states = unroll_to(model, ids, (depth,), config.training.depth.backprop)
        objective(states, ids).total.backward()
    expected = counter.get_total_flops() / (BATCH * SEQ)
    assert training_cost(config) == pytest.approx(expected, rel=0.015)


def per_token(config: ModelConfig, settings: dict[str, object], checkpointing: bool = False) -> float:
    """FLOPs of one training step under an objective, by torch's counter."""
    torch.manual_seed(0)
    model = LoopedTransformer(config)
    model.gradient_checkpointing = "layer" if checkpointing else "none"
    if model.gate is not None:
        model.gate.requires_grad_(False)  # no placement here trains it
    ids = torch.randint(200, (BATCH, SEQ))
    objective = build_objective(ObjectiveConfig.model_validate(settings))
    with counted() as counter:
        objective(unroll(model, ids), ids).total.backward()
    return counter.get_total_flops() / (BATCH * SEQ)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradient_checkpointing_is_counted_as_it_runs(name: str) -> None:
    config = build(name, **SIZES)
    expected = per_token(config, {"placement": "dense"}, checkpointing=True)
    found = training_flops(config, SEQ, loops=3, exits=3, checkpointing=True)
    assert found == pytest.approx(expected, rel=0.01)
    assert found > 1.1 * training_flops(config, SEQ, loops=3, exits=3)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_jacobian_penalty_is_counted_as_it_runs(name: str, iterations: int) -> None:
    config = build(name, **SIZES)
    penalty = {"weight": 1.0, "iterations": iterations}
    without = per_token(config, {"placement": "terminal"})
    expected = per_token(config, {"placement": "terminal", "jacobian": penalty}) - without
    assert jacobian_flops(config, SEQ, iterations) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_depths_per_sequence_cost_what_the_deepest_does(checkpointing: bool) -> None:
    """Steps as the training loop runs them, in parts: forward to the deepest, gradients from the shallowest on."""
    steps, batch, parts = 3, 4, 2
    over = {
        "model": {**SIZES, "heads": 4, "layers": 1, "loops": 5},
        "data": {"tokenizer": {"vocabulary": 200}},
        "training": {
            "batch": batch,
            "accumulation": parts,
            "gradient_checkpointing": checkpointing,
            "depth": {"backprop": 2},
        },
    }
    config = recipe("laptop", "mine", {**merged(family_change("parcae", "laptop"), over)})
    assert config.training.depth.per_sequence
    torch.manual_seed(0)
    model = LoopedTransformer(config.model)
    model.gradient_checkpointing = "layer" if checkpointing else "none"
    objective = build_objective(config.objective)
    ids = torch.randint(200, (batch, SEQ))
    with counted() as counter:
        for step in range(steps):
            depths = draw_depths(config.training.depth, 5, 0, step, batch)
            for place in range(0, batch, batch // parts):
                own = slice(place, place + batch // parts)
                states = unroll_to(model, ids[own], depths[own], config.training.depth.backprop, max(depths))
                objective(states, ids[own]).total.backward()
    expected = counter.get_total_flops() / (steps * batch * SEQ)
    assert training_cost(config, steps) == pytest.approx(expected, rel=0.01)
    one_depth = merged(config.model_dump(), {"training": {"depth": {"per_sequence": False}}})
    assert training_cost(config) > training_cost(parse_config(one_depth, "test"))


def test_a_depth_that_is_drawn_costs_its_mean() -> None:
    """The formula against the mean over steps, each counted at the depth and the cut that it draws."""
    config = recipe("laptop", "huginn")
    depth, model = config.training.depth, config.model
    assert depth.backprop == 8
    drawn = [d for step in range(20_000) for d in draw_depths(depth, model.loops, 1, step, 1)]
    counts = {d: drawn.count(d) / len(drawn) for d in set(drawn)}
    flops = sum(share * training_flops(model, 128, d, 1, depth.backprop) for d, share in counts.items())
    assert training_cost(config) == pytest.approx(flops, rel=0.01)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("cached", [0, 40])
def test_a_decoded_token_costs_its_share_of_a_forward_pass(name: str, cached: int) -> None:
    """Scores are counted as a whole square: each token of a pass over n + 1 costs what one beside n cached does."""
    config = build(name, **SIZES)
    model = LoopedTransformer(config).eval().requires_grad_(False)
    batch = 64  # what is done once per pass is then little
    ids = torch.randint(200, (batch, cached + 1))
    with counted() as counter:
        for state in unroll(model, ids):
            state.gate_logit()
            if state.is_last:
                state.logits()
    expected = counter.get_total_flops() / (batch * (cached + 1))
    assert decode_flops(config, cached, loops=3) == pytest.approx(expected, rel=0.02)
    assert decode_flops(config, 40, 3, exits=3) - decode_flops(config, 40, 3) >= 2 * 2 * 64 * 200


def test_exits_cost_by_loop() -> None:
    """Inference to loop k and its one readout, for each k; a rule that reads logits at every loop pays k of them."""
    config = build("plain", **SIZES)
    model = LoopedTransformer(config).eval().requires_grad_(False)
    ids = torch.randint(200, (BATCH, SEQ))
    for k in (1, 2, 3):
        with counted() as counter:
            for state in unroll(model, ids, k):
                state.logits()
        expected = counter.get_total_flops() / (BATCH * SEQ)
        assert forward_flops(config, SEQ, k, exits=k) == pytest.approx(expected, rel=0.01)


def test_cache_bytes_are_those_of_the_keys_and_values() -> None:
    config = build("grouped queries", prelude=1)
    found = cost(config, number_bytes=2)
    assert (
        found.cache_bytes_per_loop == 2 * (2 * 2 * 8) * 2
    )  # layers · (keys, values) · heads · channels · bytes
    assert found.cache_bytes_fixed == (2 * 2 * 8) * 2


@pytest.mark.parametrize("name", ["plain", "ouro", "loopformer", "grouped queries", "deeploop"])
def test_activation_bytes_are_near_what_autograd_keeps(name: str) -> None:
    """Unique storages saved by one more loop, per token, parameters left out."""
    torch.manual_seed(0)
    model = LoopedTransformer(build(name, **SIZES))
    ids = torch.randint(200, (BATCH, SEQ))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def kept(loops: int) -> int:
        sizes: dict[int, int] = {}
        alive = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            alive.append(tensor)
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            states = list(unroll(model, ids, loops))
        assert states
        return sum(sizes.values())

    per_loop = (kept(4) - kept(2)) / 2 / (BATCH * SEQ)
    estimate = cost(model.config).activation_bytes_per_loop
    assert 0.8 * estimate < per_loop < 2 * estimate


def test_a_config_prices_depth_and_length() -> None:
    config = ModelConfig(dim=64, heads=4, layers=2, loops=4)
    assert cost(config, loops=8).inference_flops > 1.5 * cost(config).inference_flops
    assert cost(config, sequence=4096).inference_flops > cost(config).inference_flops
    assert cost(config, exits=1).training_flops < cost(config).training_flops
