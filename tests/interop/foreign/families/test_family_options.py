"""Options of single families: exit gates, thresholds, shells, half precision, x-transformers' settings."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from x_transformers import AutoregressiveWrapper

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.audit.verdict import model_verdict
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll
from tests.interop import lookalikes
from tests.interop.foreign.families.fixtures import CASES, IDS, LABELS, build, hrm, x_transformer


@pytest.mark.parametrize("name", ["ouro", "x-transformers"])
def test_exit_gates(name: str) -> None:
    module, model = build(CASES[name])
    objective = build_objective(ObjectiveConfig(placement="exit-weighted"))
    assert {loop.status for loop in judge(model, IDS, LABELS, objective).loops} == {"removed"}
    with torch.no_grad():
        gates = [state.gate_logit() for state in unroll(model, IDS)]
        looped = module.model(IDS)[2] if name == "ouro" else None
        own = looped or module(IDS, return_intermediates=True)[1].exit_logits
    for gate, expected in zip(gates, own, strict=True):
        assert gate is not None
        assert torch.allclose(gate, expected.squeeze(-1), atol=1e-5)


def test_ouros_gate_is_trained_alone() -> None:
    """Its second stage on the module itself: the same logits, and a step that moves nothing but the gate."""
    module, model = build(CASES["ouro"])
    states = list(unroll(model, IDS))
    for state in states:
        alone = model.gate_alone(state.hidden, state.loop, state.context)
        assert alone is not None
        assert torch.equal(alone, state.gate_logit())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1)
    objective = build_objective(ObjectiveConfig(placement="gate-improvement"))
    objective(unroll(model, IDS), LABELS).total.backward()
    optimizer.step()
    moved = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"model.early_exit_gate.weight", "model.early_exit_gate.bias"}


def test_ouro_with_an_exit_threshold_is_compared_at_its_last_exit() -> None:
    torch.manual_seed(0)
    module = lookalikes.OuroForCausalLM(threshold=0.5).eval()
    model = loopscope.adapt(module)
    with torch.no_grad():
        assert not torch.allclose(module(IDS).logits, model(IDS))
        assert torch.allclose(module(IDS, exit_at_step=3).logits, model(IDS), atol=1e-5)


def test_shells_are_taken_off() -> None:
    class OptimizedModule(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self._orig_mod = inner

    module = lookalikes.OuroForCausalLM()
    assert loopscope.adapt(OptimizedModule(module)).module is module
    adapted = loopscope.adapt(module)
    assert loopscope.adapt(adapted) is adapted
    inner = x_transformer()
    assert loopscope.adapt(AutoregressiveWrapper(inner)).module is inner


@pytest.mark.parametrize("make", [hrm, lookalikes.Parcae], ids=["hrm", "parcae"])
def test_half_precision_is_unrolled_as_it_is_and_audited_in_a_copy(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = make().bfloat16()
    model = loopscope.adapt(module)
    assert [state.hidden.dtype for state in unroll(model, IDS, 6)] == [torch.bfloat16] * 6
    report = loopscope.audit(model, IDS, LABELS)
    assert "bfloat16" in report.notes[0]
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert report.verdict == model_verdict(judge(model.float(), IDS, LABELS).loops)


@pytest.mark.parametrize(
    ("layers", "settings", "verdict"),
    [
        ({"use_rmsnorm": True, "rotary_pos_emb": True}, {"use_abs_pos_emb": False}, "removed"),
        ({"use_scalenorm": True, "ff_glu": True}, {"tie_embedding": True}, "removed"),
        ({"alibi_pos_bias": True}, {"num_memory_tokens": 3, "emb_dim": 16}, "removed"),
        ({"attn_qk_norm": True}, {"sigsoftmax_logits": True, "post_emb_norm": True}, "removed"),
        # Dynamic tanh takes the place of the norms and keeps the scale; the raw head sees it.
        ({"use_dynamic_tanh": True}, {}, "visible"),
    ],
)
def test_x_transformers_with_its_options(
    layers: dict[str, Any], settings: dict[str, Any], verdict: str
) -> None:
    torch.manual_seed(0)
    module = x_transformer(layers, max_looped_steps=2, **settings).eval()
    model = loopscope.adapt(module)
    assert model.loops == 2
    with torch.no_grad():
        *_, last = unroll(model, IDS, 2 * model.loops)
        assert torch.allclose(last.logits(), module(IDS, looped_steps=2 * model.loops), atol=1e-4)
        every = module(IDS, looped_pred_all_logits=True, return_intermediates=True)[1].all_pred_logits
        if not settings.get("num_memory_tokens") and not settings.get("sigsoftmax_logits"):
            for state, own in zip(unroll(model, IDS), every, strict=True):
                assert torch.allclose(state.logits(), own, atol=1e-5)
    assert model_verdict(judge(model, IDS, LABELS).loops) == verdict
