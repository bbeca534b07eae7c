"""`loopscope.wrap` on lookalikes of published models: LoopLM (rkstgr), LoopFormer, looped_nanochat, and families."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll
from tests.interop import lookalikes

IDS = torch.arange(20).view(2, 10) * 7 % lookalikes.VOCABULARY
LABELS = (IDS * 3 + 1) % lookalikes.VOCABULARY


def build(kind: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    return kind(**settings).eval()


def equal_steps(loops: int) -> dict[str, list[float]]:
    return {"steps": [1 / loops] * loops}


def inputs_of(part: nn.Module, run: Any) -> list[Tensor]:
    found: list[Tensor] = []
    handle = part.register_forward_pre_hook(lambda part, args: found.append(args[0]))
    try:
        with torch.no_grad():
            run()
    finally:
        handle.remove()
    return found


def test_looplm_is_blind_but_for_its_gate() -> None:
    module = build(lookalikes.LoopLM)
    model = loopscope.wrap(module, "layers", gate="exit_gate", set_loops="num_steps")
    own = module(IDS, num_steps=6)
    states = inputs_of(module.final_norm, lambda: module(IDS, num_steps=6))
    with torch.no_grad():
        for state, hidden, logits, gate in zip(
            unroll(model, IDS, 6), states, own.logits, own.exit_lambdas, strict=True
        ):
            assert torch.allclose(state.hidden, hidden, atol=1e-5)
            assert torch.allclose(state.logits(), logits, atol=1e-4)
            assert torch.allclose(torch.sigmoid(state.gate_logit()), gate, atol=1e-5)
    assert {loop.status for loop in judge(model, IDS, LABELS).loops} == {"blind"}
    report = loopscope.audit(model, IDS, LABELS, build_objective(ObjectiveConfig(placement="exit-weighted")))
    assert report.verdict == "visible"
    for loop in report.visibility[:-1]:
        by_path = {path: entry.absolute for path, entry in loop.direct.items()}
        assert max(value for path, value in by_path.items() if path.endswith("/gate")) > 1e-3
        assert max(value for path, value in by_path.items() if path.endswith("/readout")) < 1e-4


def test_loopformer_is_blind() -> None:
    module = build(lookalikes.LoopFormer)
    with pytest.raises(
        ValueError, match="reads only some positions.*forward_kwargs=lambda ids: {'targets': ids}"
    ):
        loopscope.wrap(module, "transformer.h")
    model: Any = loopscope.wrap(module, "transformer.h", readout="transformer.norm_f", set_loops=equal_steps)
    assert (model.loops, model.replays, model.passes_on, model.depth_conditioned) == (4, True, True, True)
    with torch.no_grad():
        assert torch.allclose(model(IDS)[:, -1:], module(IDS)[0], atol=1e-5)
        for loops in range(1, 9):  # below the trained depth too, where every step is longer
            *_, last = unroll(model, IDS, loops)
            own = module(IDS, targets=IDS, **equal_steps(loops))[0]
            assert torch.allclose(last.logits(), own, atol=1e-5)
    followed = loopscope.wrap(
        module, "transformer.h", forward_kwargs=lambda ids: {"targets": ids, **equal_steps(4)}
    )
    assert torch.allclose(followed(IDS), model(IDS), atol=1e-5)
    assert (
        loopscope.wrap(
            module, "transformer.h", readout="transformer.norm_f", loops=2, set_loops=equal_steps
        ).loops
        == 2
    )
    loops = judge(model, IDS, LABELS).loops
    assert {loop.status for loop in loops} == {"blind"}
    assert all(loop.carry > 0.5 for loop in loops)


@pytest.mark.parametrize("injection", ["inject_init_prelude", "passthrough"])
def test_looped_nanochat_removes_scale(injection: str) -> None:
    module = build(lookalikes.LoopedNanochat, injection=injection)
    model: Any = loopscope.wrap(module, "transformer.recur", set_loops="num_recur")
    # The norm between loops is followed, the crop and the softcap behind the head are too.
    assert (model.loops, model.passes_on, model.follows_head) == (4, False, True)
    assert not model.depth_conditioned
    own = inputs_of(module.norm_recur, lambda: module(IDS, num_recur=8))
    with torch.no_grad():
        states = list(unroll(model, IDS, 8))
        for state, hidden in zip(states, own, strict=True):
            assert torch.allclose(state.hidden, hidden, atol=1e-5)
        assert torch.allclose(states[-1].logits(), module(IDS, num_recur=8)[0], atol=1e-5)
        chunk = states[-1].features().flatten(0, 1)[3:7]
        assert torch.allclose(model.head(chunk), states[-1].logits().flatten(0, 1)[3:7], atol=1e-5)
    assert {loop.status for loop in judge(model, IDS, LABELS).loops} == {"removed"}

    def head(features: Tensor) -> Tensor:
        return 15 * torch.tanh(module.lm_head(features)[..., : lookalikes.VOCABULARY] / 15)

    named = loopscope.wrap(
        module, "transformer.recur", readout=["norm_recur", "transformer.coda", "norm_final"], head=head
    )
    assert torch.allclose(named(IDS), model(IDS), atol=1e-5)


def test_truncated_backpropagation_is_refused() -> None:
    with pytest.raises(ValueError, match="truncated backpropagation as by bptt_k"):
        loopscope.wrap(build(lookalikes.LoopedNanochat, bptt_k=2), "transformer.recur")


def test_a_detach_that_changes_no_value_is_refused_too() -> None:
    """The state is passed on as it is, so only the gradient through the forward shows the cut."""
    module = build(lookalikes.LoopLM)
    with pytest.raises(
        ValueError, match="the gradient from loop 1 to the next loop.*detach_between_steps=False"
    ):
        loopscope.wrap(module, "layers", forward_kwargs={"detach_between_steps": True})


def test_known_families_give_the_same_when_wrapped() -> None:
    """Two ways to the same model: the adapter, which knows its parts, and the forward, followed."""
    ouro = build(lookalikes.OuroForCausalLM)
    wrapped = loopscope.wrap(
        ouro,
        "model.layers",
        gate=["model.norm", "model.early_exit_gate"],
        set_loops=["model.total_ut_steps", "config.total_ut_steps"],
    )
    for mine, other in zip(unroll(wrapped, IDS, 8), unroll(loopscope.adapt(ouro), IDS, 8), strict=True):
        assert torch.allclose(mine.hidden, other.hidden, atol=1e-5)
        assert torch.allclose(mine.logits(), other.logits(), atol=1e-5)
        assert torch.allclose(mine.gate_logit(), other.gate_logit(), atol=1e-5)
    huginn = build(lookalikes.RavenForCausalLM)
    zero = {"input_states": torch.zeros(2, 8, lookalikes.DIM)}
    with pytest.warns(UserWarning, match="runs loops 1 to 3 of 3 without a gradient"):
        loopscope.wrap(huginn, "transformer.core_block", forward_kwargs={"num_steps": 3, **zero})
    wrapped = loopscope.wrap(
        huginn,
        "transformer.core_block",
        forward_kwargs=lambda ids: {
            "num_steps": torch.tensor([0, 3]),
            "input_states": torch.zeros(*ids.shape, lookalikes.DIM),
        },
    )
    assert torch.allclose(wrapped(IDS), loopscope.adapt(huginn)(IDS), atol=1e-5)
    told = loopscope.wrap(
        huginn,
        "transformer.core_block",
        set_loops=lambda loops: {"num_steps": torch.tensor([0, loops])},
        forward_kwargs=lambda ids: {"input_states": torch.zeros(*ids.shape, lookalikes.DIM)},
    )
    for mine, other in zip(unroll(told, IDS, 6), unroll(loopscope.adapt(huginn), IDS, 6), strict=True):
        assert torch.allclose(mine.logits(), other.logits(), atol=1e-5)
