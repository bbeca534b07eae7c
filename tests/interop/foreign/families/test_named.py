"""Families that `adapt` follows by name, and forms that `wrap` is told of: exits at every depth, and verdicts."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.audit.verdict import model_verdict
from loopscope.recurrence import unroll
from tests.interop.foreign.families.models import CASES, IDS, LABELS, Named


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_exits_are_the_modules_own_and_the_verdict_the_structures(case: Named) -> None:
    torch.manual_seed(0)
    try:
        module = case.make().eval()
    except ImportError as error:  # an older transformers
        pytest.skip(str(error))
    with warnings.catch_warnings():
        if case.open is loopscope.adapt:  # what goes along beside H_k is known, and told in the docs
            warnings.simplefilter("error")
        model = case.open(module)
    apart = copy.deepcopy(module)
    with torch.no_grad():
        own = {loops: case.own(apart, loops) for loops in range(1, 2 * model.loops + 1)}
        *_, last = unroll(model, IDS)
        assert torch.allclose(last.logits(), own[model.loops], atol=1e-4)
        for loops in range(1, model.loops):
            *_, last = unroll(model, IDS, loops)
            assert torch.allclose(last.logits(), own[loops], atol=1e-4)
        for state in unroll(model, IDS, 2 * model.loops):
            if case.on_the_way or state.is_last:
                assert torch.allclose(state.logits(), own[state.loop], atol=1e-4)
    assert model_verdict(judge(model, IDS, LABELS).loops) == case.verdict


def test_hrm_text_is_audited_with_its_whole_gradient_and_its_setting_left() -> None:
    """Its own forward runs early cycles without gradient, in evaluation too; the adapter runs the stacks itself."""
    from tests.interop.foreign.families.fixtures import hrm

    torch.manual_seed(0)
    module: Any = hrm(L_bp_cycles=[1]).eval()
    before = list(module.config.L_bp_cycles), list(module.model.L_bp_cycles_padded)
    model = loopscope.adapt(module)
    *_, last = unroll(model, IDS)
    (whole,) = torch.autograd.grad(last.logits().square().sum(), module.model.embed_tokens.weight)
    assert (list(module.config.L_bp_cycles), list(module.model.L_bp_cycles_padded)) == before
    module.model.L_bp_cycles_padded = [module.config.L_cycles] * module.config.H_cycles
    full = module(IDS, use_cache=False).logits.square().sum()
    (expected,) = torch.autograd.grad(full, module.model.embed_tokens.weight)
    assert torch.allclose(whole, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_a_stack_that_shares_a_part_is_no_loop() -> None:
    """Zamba2's form: one attention block within layers of their own weights."""

    class Host(nn.Module):
        def __init__(self, shared: nn.Module) -> None:
            super().__init__()
            self.own, self.shared = nn.Linear(8, 8), shared

        def forward(self, x: Tensor) -> Tensor:
            return x + self.shared(self.own(x))

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shared = nn.Linear(8, 8)
            self.tokens, self.lm_head = nn.Embedding(40, 8), nn.Linear(8, 40)
            self.layers = nn.ModuleList([Host(shared), nn.Linear(8, 8), Host(shared)])

        def forward(self, ids: Tensor) -> Tensor:
            x = self.tokens(ids)
            for layer in self.layers:
                x = layer(x)
            return self.lm_head(x)

    with pytest.raises(
        ValueError, match="layers.0.shared has the weights of layers.2.shared too.*not one map"
    ):
        loopscope.adapt(Stack().eval())
