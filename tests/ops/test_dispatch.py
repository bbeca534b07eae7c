"""The predicate that decides between fast operation and plain formula, and what turns operations off."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
)
from torch.utils.hooks import RemovableHandle

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.ops import attention_dropout, dropout, linear, rms_norm, swiglu
from loopscope.ops.dispatch import OPERATIONS, cpu_ops, cpu_ops_apply, without_op
from loopscope.recurrence import unroll

FUNCTIONS = {
    "rms_norm": rms_norm._RMSNorm,
    "linear": linear._Linear,
    "swiglu": swiglu._SwiGLU,
    "attention": attention_dropout.DropoutAttention,
    "dropout_add": dropout._DropoutAdd,
}


class Taught(nn.Linear):
    """A user's own kind of matrix."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_runs_until_it_or_all_are_turned_off(name: str) -> None:
    x = torch.zeros(2)
    assert cpu_ops_apply(name, x)
    with without_op(name):
        assert not cpu_ops_apply(name, x)
        other = next(one for one in OPERATIONS if one != name)
        assert cpu_ops_apply(other, x)
    with cpu_ops("off"):
        assert not cpu_ops_apply(name, x)
        with cpu_ops(
            "auto"
        ):  # leaves it as it is: a step's own setting turns nothing on that a benchmark turned off
            assert not cpu_ops_apply(name, x)
    assert cpu_ops_apply(name, x)


def test_it_asks_for_device_gradient_and_derivatives() -> None:
    x = torch.zeros(2)
    assert not cpu_ops_apply("linear", torch.zeros(2, device="meta"))
    assert cpu_ops_apply("rms_norm", torch.zeros(2, device="meta"))
    with torch.no_grad():
        assert not cpu_ops_apply("linear", x)
        assert cpu_ops_apply("attention", x)
    with sdpa_kernel(SDPBackend.MATH):
        assert not cpu_ops_apply("attention", x)
        assert cpu_ops_apply("shared_weight", x)


@pytest.mark.parametrize(
    "hook", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_a_module_that_is_heard_or_of_a_users_own_type_is_called(hook: str) -> None:
    x, matrix = torch.zeros(2), nn.Linear(2, 2)
    assert cpu_ops_apply("linear", x, matrix)
    assert not cpu_ops_apply("linear", x, matrix, Taught(2, 2))
    assert cpu_ops_apply("add", x, observed=[Taught(2, 2)])
    handle = getattr(matrix, hook)(lambda *_: None)
    assert not cpu_ops_apply("linear", x, matrix)
    assert not cpu_ops_apply("add", x, observed=[matrix])
    handle.remove()
    assert cpu_ops_apply("linear", x, matrix)


@pytest.mark.parametrize(
    "hook",
    [register_module_forward_pre_hook, register_module_forward_hook, register_module_full_backward_hook],
)
def test_hooks_of_every_module_are_heard_in_training(hook: Callable[..., RemovableHandle]) -> None:
    model = LoopedTransformer(ModelConfig(dim=8, heads=2, layers=2, loops=2, vocabulary=16, tied=False))
    called: list[nn.Module] = []
    handle = hook(lambda module, *_: called.append(module))
    try:
        loss(model, torch.arange(6)[None]).backward()
    finally:
        handle.remove()
    unheard = {name for name, module in model.named_modules() if not any(module is one for one in called)}
    assert unheard == {"", "prelude", "layers", "coda", "carries"}, "those that are only lists"


def test_unknown_names_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no operation 'glu'"), without_op("glu"):
        pass
    with pytest.raises(ValueError, match="cpu_ops is 'on'"), cpu_ops("on"):
        pass


def loss(model: LoopedTransformer, ids: Tensor) -> Tensor:
    torch.manual_seed(1)
    return build_objective(ObjectiveConfig(placement="dense"))(unroll(model, ids[:, :-1]), ids[:, 1:]).total


def gradients(model: LoopedTransformer, ids: Tensor) -> list[Tensor]:
    total = loss(model, ids)
    return [total.detach(), *torch.autograd.grad(total, list(model.parameters()))]


@pytest.mark.smoke
@pytest.mark.parametrize("name", [*OPERATIONS, "all"])
def test_a_model_without_an_operation_has_the_same_loss_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(
        ModelConfig(dim=16, heads=2, layers=2, loops=2, vocabulary=29, sequence=12)
    ).train()
    ids = torch.randint(29, (2, 13))
    expected = gradients(model, ids)
    with cpu_ops("off") if name == "all" else without_op(name):
        found = gradients(model, ids)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*FUNCTIONS, "all"])
def test_what_is_turned_off_is_not_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, so that every operation has its turn; and each is called where nothing is turned off."""
    called: set[str] = set()

    def watched(known: str, apply: Callable[..., object]) -> Callable[..., object]:
        return lambda *inputs: (called.add(known), apply(*inputs))[1]

    for known, function in FUNCTIONS.items():
        monkeypatch.setattr(function, "apply", watched(known, function.apply))
    torch.manual_seed(0)
    config = ModelConfig(dim=16, heads=2, layers=1, loops=2, vocabulary=29, sequence=12, dropout=0.1)
    model = LoopedTransformer(config).train()
    ids = torch.randint(29, (2, 13))
    loss(model, ids)
    assert called == set(FUNCTIONS)
    called.clear()
    with cpu_ops("off") if name == "all" else without_op(name):
        loss(model, ids)
    assert called == (set() if name == "all" else set(FUNCTIONS) - {name})
