"""Activations as counted from a config, against what autograd saves; the rest against tensors that are there."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives import token_loss
from loopscope.objectives.depth import unroll_to
from loopscope.objectives.objective import build_objective
from loopscope.ops import attention
from loopscope.ops.dispatch import OPERATIONS, without_op
from loopscope.plan import step_memory as memory
from loopscope.plan.step_memory import Placing, activation_bytes
from loopscope.plan.step_memory import step_memory as memory_of
from loopscope.plan.training_flops import exits_read

BATCH = 2
SHAPE = {"dim": 128, "layers": 2, "heads": 2, "loops": 3, "vocabulary": 144, "sequence": 40}


def config_of(condition: str, training: dict[str, Any] | None = None, **model: Any) -> RunConfig:
    data = {"tokenizer": {"vocabulary": 144}}
    over = {"model": {**SHAPE, **model}, "data": data, "training": training or {}}
    return recipe("laptop", condition, over)


@contextmanager
def as_on_a_gpu(on_cpu: bool) -> Iterator[None]:
    """Only the operations that a GPU has too."""
    with ExitStack() as off:
        for name, operation in OPERATIONS.items():
            if not on_cpu and not operation.everywhere:
                off.enter_context(without_op(name))
        yield


def saved_bytes(config: RunConfig, placing: Placing) -> float:
    """Bytes per token of all that autograd saves in a forward pass, weights and their casts left out.

    The gradient of an exit's features is made in the forward pass, and handed on where no hook sees it.
    """
    model = LoopedTransformer(config.model).train()
    model.gradient_checkpointing = config.training.gradient_checkpointing
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {tuple(parameter.shape) for parameter in model.parameters() if parameter.ndim == 2}
    shapes |= {(inputs, outputs) for outputs, inputs in shapes}
    kept: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tuple(tensor.shape) not in shapes:
            kept[storage.data_ptr()] = (storage.nbytes(), storage)
        return tensor

    ids = torch.randint(config.model.vocabulary, (BATCH, config.model.sequence + 1))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=placing.number == 2)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, as_on_a_gpu(placing.on_cpu), autocast:
        states = unroll_to(model, ids[:, :-1], (config.model.loops,), None, config.model.loops)
        build_objective(config.objective)(states, ids[:, 1:])
    exits = exits_read(config.objective, config.model.loops) * placing.number * config.model.dim
    return sum(count for count, _ in kept.values()) / (BATCH * config.model.sequence) + exits


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("on_cpu", [True, False], ids=["cpu", "gpu"])
@pytest.mark.parametrize(
    ("condition", "model"),
    [
        ("dense/rmsnorm", {}),
        ("dense/raw", {"positions": "rotary"}),
        ("terminal/rmsnorm", {"layers": 1, "loops": 5}),
        ("dense/rmsnorm", {"block": {"activation": "gelu"}, "attention": {"key_value_heads": 1}}),
        ("dense/rmsnorm", {"heads": 4}),
        ("dense/rmsnorm", {"block": {"width": 200}}),
        ("dense/rmsnorm+interloop", {"block": {"norm": "layernorm"}}),
        ("ouro", {}),
        ("deeploop", {}),
        ("hybrid", {}),
    ],
    ids=lambda value: str(value),
)
def test_activations_are_what_autograd_saves(
    condition: str, model: dict[str, Any], on_cpu: bool, number: int
) -> None:
    config, placing = config_of(condition, **model), Placing(on_cpu=on_cpu, number=number)
    assert activation_bytes(config, placing) == pytest.approx(saved_bytes(config, placing), rel=0.1)


@pytest.mark.parametrize("kept", ["layer", "loop"])
def test_checkpointing_keeps_states_and_one_stretch(kept: str) -> None:
    """What is saved meanwhile is states alone; the stretch that is computed again comes on top in the backward pass."""
    config, placing = config_of("dense/rmsnorm", {"gradient_checkpointing": kept}), Placing(on_cpu=True)
    one = memory.layer_bytes(config.model, placing, shared=True)
    again = one if kept == "layer" else config.model.layers * one
    states = activation_bytes(config, placing) - again
    assert states == pytest.approx(saved_bytes(config, placing), rel=0.05)


def test_the_constants_are_those_of_the_operations() -> None:
    assert memory.LOGIT_CHUNK == token_loss.CHUNK_ELEMENTS
    assert memory.NARROW_HEAD == attention.NARROW


def test_shards_divide_what_is_kept_and_gathering_once_holds_more() -> None:
    config = config_of("dense/rmsnorm", {"batch": 8})
    alone, ddp = memory_of(config, Placing()), memory_of(config, Placing("ddp", 4))
    shards = memory_of(config, Placing("fsdp", 4))
    by_layer = memory_of(config, Placing("fsdp", 4, gather_once=False))
    assert ddp.parameters == alone.parameters
    for part in ("parameters", "gradients", "moments"):
        assert getattr(shards, part) == pytest.approx(getattr(alone, part) / 4, rel=0.01)
    assert ddp.activations == pytest.approx(alone.activations / 4, rel=0.01)
    assert 0 < by_layer.gathered <= shards.gathered
    many = config_of("dense/rmsnorm", {"batch": 8}, layers=6)
    difference = (
        memory_of(many, Placing("fsdp", 4)).gathered
        - memory_of(many, Placing("fsdp", 4, gather_once=False)).gathered
    )
    shared = memory.count_parameters(many.model)["shared"]
    assert difference == pytest.approx(4 * shared * 4 / 6, rel=0.01)  # four of six layers more
