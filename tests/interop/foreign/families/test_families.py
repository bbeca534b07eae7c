"""Adapters of known families: against the module's own forward, its hooks, and finite differences.

HRM-Text and x-transformers are the real packages; Huginn, Ouro and Parcae are lookalikes with their structure.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import HrmTextConfig, HrmTextForCausalLM
from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

import loopscope
from loopscope.interop.foreign.adapt import FAMILIES
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import AbstractLoopedLM, LoopContext, unroll
from tests.interop import lookalikes

VOCABULARY = 40
IDS = torch.arange(20).view(2, 10) * 7 % VOCABULARY
LABELS = (IDS * 3 + 1) % VOCABULARY


def hrm(**settings: Any) -> nn.Module:
    values = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
    config = HrmTextConfig(
        vocab_size=VOCABULARY,
        num_attention_heads=2,
        initializer_range=0.3,
        **{**values, "H_cycles": 3, "L_cycles": 2, **settings},
    )
    return HrmTextForCausalLM(config)


def x_transformer(layers: dict[str, Any] | None = None, **settings: Any) -> nn.Module:
    decoder = Decoder(dim=32, depth=2, heads=2, attn_dim_head=16, pre_and_post_norm=True, **(layers or {}))
    return TransformerWrapper(
        num_tokens=VOCABULARY, max_seq_len=16, attn_layers=decoder, looped=True, **settings
    )


@dataclass(frozen=True)
class Case:
    """A family, a small module of it, and how to look into the module without the adapter."""

    make: Callable[[], Any]
    loops: int
    state: Callable[[Any], tuple[nn.Module, str]]  # the part whose input or output is H_k
    own: Callable[
        [Any, int], Tensor
    ]  # logits of the module's own forward at a depth, from a zero start state
    verdict: str


def hrm_at(module: Any, loops: int) -> Tensor:
    module.config.H_cycles = loops
    return module(IDS, use_cache=False).logits


def ouro_at(module: Any, loops: int) -> Tensor:
    module.model.total_ut_steps = module.config.total_ut_steps = loops
    return module(IDS).logits


def huginn_at(module: Any, loops: int) -> Tensor:
    return module(IDS, input_states=torch.zeros(2, 10, 32), num_steps=loops).logits


def parcae_at(module: Any, loops: int) -> Tensor:
    module.config.state_init = "zero"
    return module(IDS, return_logits=True, num_steps_pair=torch.tensor([loops, 0]))["logits"]


LAST_CORE = lambda module: (module.transformer.core_block[-1], "output")  # noqa: E731
CASES = {
    "hrm": Case(hrm, 3, lambda m: (m.model.H_module.final_norm, "input"), hrm_at, "removed"),
    "x-transformers": Case(
        x_transformer, 4, lambda m: (m.attn_layers, "output"), lambda m, k: m(IDS, looped_steps=k), "removed"
    ),
    "ouro": Case(lookalikes.OuroForCausalLM, 4, lambda m: (m.model.norm, "input"), ouro_at, "removed"),
    "ouro, layers give tuples": Case(
        lambda: lookalikes.OuroForCausalLM(returns_tuple=True),
        4,
        lambda m: (m.model.norm, "input"),
        ouro_at,
        "removed",
    ),
    "huginn": Case(lookalikes.RavenForCausalLM, 3, LAST_CORE, huginn_at, "removed"),
    "huginn, blocks give tuples": Case(
        lambda: lookalikes.RavenForCausalLM(returns_tuple=True), 3, LAST_CORE, huginn_at, "removed"
    ),
    # Not `damped`: the coda is a residual stack, through which the scale reaches the logits.
    "parcae": Case(lookalikes.Parcae, 4, LAST_CORE, parcae_at, "visible"),
    "parcae, softcap": Case(lambda: lookalikes.Parcae(softcap=3.0), 4, LAST_CORE, parcae_at, "visible"),
    "parcae, linear": Case(lambda: lookalikes.Parcae("linear"), 4, LAST_CORE, parcae_at, "visible"),
    "parcae, narrow": Case(lambda: lookalikes.Parcae(state_dim=16), 4, LAST_CORE, parcae_at, "visible"),
}
MAIN = ("hrm", "x-transformers", "ouro", "huginn", "parcae", "parcae, linear")
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_family = pytest.mark.parametrize("case", [CASES[name] for name in MAIN], ids=MAIN)


def build(case: Case) -> tuple[Any, AbstractLoopedLM]:
    torch.manual_seed(0)
    module = case.make().eval()
    return module, loopscope.adapt(module)


def captured(case: Case, module: Any, loops: int) -> tuple[list[Tensor], Tensor]:
    """H_k of every loop as hooks see them, and the logits, in the module's own forward."""
    part, side = case.state(module)
    states: list[Tensor] = []

    def hook(part: nn.Module, args: Any, output: Any) -> None:
        value = args[0] if side == "input" else output
        states.append(value[0] if isinstance(value, tuple) else value)

    handle = part.register_forward_hook(hook)
    try:
        with torch.no_grad():
            logits = case.own(module, loops)
    finally:
        handle.remove()
    return states, logits


@each_case
@pytest.mark.parametrize("times", [1, 2])
def test_states_and_logits_are_the_modules_own(case: Case, times: int) -> None:
    module, model = build(case)
    assert model.loops == case.loops
    depth = times * case.loops
    with torch.no_grad():
        states = list(unroll(model, IDS, depth))
        logits = states[-1].logits()
    own_states, own_logits = captured(case, copy.deepcopy(module), depth)
    assert len(own_states) == depth
    for state, own in zip(states, own_states, strict=True):
        assert torch.allclose(state.hidden, own, rtol=1e-4, atol=1e-5)
    assert torch.allclose(logits, own_logits, rtol=1e-4, atol=1e-5)


@each_family
def test_the_gradient_goes_through_every_loop(case: Case) -> None:
    _, model = build(case)
    model.double()
    states = list(unroll(model, IDS))
    (weights,) = (torch.randn(states[-1].hidden.shape[:2], generator=torch.Generator().manual_seed(0)),)

    def value(state: Any) -> Tensor:
        return (state.logits().logsumexp(dim=-1) * weights + state.logits()[..., 0]).sum()

    along = torch.randn(states[0].hidden.shape, generator=torch.Generator().manual_seed(1)).double()
    for index, state in enumerate(states[:-1]):
        (gradient,) = torch.autograd.grad(value(states[-1]), state.hidden, retain_graph=True)

        def shifted(step: float, loop: int = index + 1) -> float:
            run = unroll(model, IDS)
            current = next(run)
            while not current.is_last:
                moved = current.hidden + step * along if current.loop == loop else current.hidden
                current = run.send(moved)
            return float(value(current))

        with torch.no_grad():
            slope = (shifted(1e-3) - shifted(-1e-3)) / 2e-3
        # Norms that compute in fp32 whatever they are given leave about four digits.
        assert float((gradient * along).sum()) == pytest.approx(slope, rel=1e-2, abs=1e-3)


@each_family
def test_the_audit_runs_and_its_verdict_is_the_structures(case: Case) -> None:
    _, model = build(case)
    report = loopscope.audit(model, IDS, LABELS)
    assert report.verdict == case.verdict, report.why
    if case.verdict == "removed":
        assert all(abs(loop.carry) < 0.05 for loop in report.loops)


@each_case
def test_runs_repeat_and_disturb_nothing(case: Case) -> None:
    module, model = build(case)
    modes = [part.training for part in module.modules()]
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second = model(IDS), model(IDS)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.module is module
    assert [part.training for part in module.modules()] == modes
    for part in module.modules():
        assert "forward" not in part.__dict__
        assert not part._forward_hooks
        assert not part._forward_pre_hooks


@each_case
def test_a_tokens_states_do_not_depend_on_what_follows(case: Case) -> None:
    """Also where the module starts from a random state: here it is the same for every length."""
    _, model = build(case)
    with torch.no_grad():
        assert torch.allclose(model(IDS)[:, :6], model(IDS[:, :6]), rtol=1e-4, atol=1e-5)


@each_case
def test_a_context_of_other_hands_gives_the_same(case: Case) -> None:
    """Nothing that was recorded is needed: an equal context made anew, at any loop, runs as before."""
    _, model = build(case)
    with torch.no_grad():
        states = list(unroll(model, IDS))
        before, last = states[-2], states[-1]
        context = LoopContext(IDS, before.context.embedded.clone(), case.loops)
        carried = model.carry(before.hidden, before.loop, context)
        assert torch.allclose(model.core(carried, last.loop, context), last.hidden, rtol=1e-4, atol=1e-5)
        assert torch.allclose(model.readout(last.hidden, last.loop, context), last.features(), atol=1e-5)


@each_case
def test_an_adapter_that_disagrees_is_refused(case: Case) -> None:
    """A version whose forward does one thing more than the adapter knows."""

    class Drifted(case.make().__class__):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            if isinstance(output, Tensor):
                return output * 1.01
            if isinstance(output, dict) and not hasattr(output, "logits"):
                logits = output["logits"]
                return {**output, "logits": None if logits is None else logits * 1.01}
            output.logits = output.logits * 1.01
            return output

    torch.manual_seed(0)
    module = case.make()
    module.__class__ = Drifted
    with pytest.raises(ValueError, match=r"the logits differ by up to .* Use loopscope.wrap"):
        loopscope.adapt(module)


@pytest.mark.parametrize("name", ["ouro", "x-transformers"])
def test_exit_gates(name: str) -> None:
    module, model = build(CASES[name])
    objective = build_objective(ObjectiveConfig(placement="exit-weighted"))
    assert loopscope.audit(model, IDS, LABELS, objective).verdict == "removed"
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
    assert report.verdict == loopscope.audit(model.float(), IDS, LABELS).verdict


def test_unknown_modules_are_told_of_wrap() -> None:
    names = "|".join(family.family for family in FAMILIES).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(
        ValueError, match=rf'({names}).*loopscope.wrap\(module, block="layers", head="lm_head"\)'
    ):
        loopscope.adapt(lookalikes.LoopLM())
    with pytest.raises(ValueError, match="module is str"):
        loopscope.adapt("ByteDance/Ouro-1.4B")
    plain = TransformerWrapper(num_tokens=9, max_seq_len=4, attn_layers=Decoder(dim=32, depth=1, heads=1))
    with pytest.raises(ValueError, match="without looped=True: it is not a loop"):
        loopscope.adapt(plain)
    with pytest.raises(ValueError, match="OuroForCausalLM.*loopscope.adapt.*loopscope.wrap"):
        loopscope.audit(lookalikes.OuroForCausalLM(), IDS, LABELS)


@pytest.mark.parametrize("config", [SimpleNamespace(), None])
def test_a_module_without_its_trained_depth_is_refused(config: Any) -> None:
    torch.manual_seed(0)
    module = lookalikes.RavenForCausalLM()
    module.config = config
    with pytest.raises(ValueError, match=r"the parts of Huginn, but no config\.mean_recurrence"):
        loopscope.adapt(module)
    del module.config
    with pytest.raises(ValueError, match=r"no config\.mean_recurrence"):
        loopscope.adapt(module)


def test_what_cannot_be_reproduced_is_refused_by_name() -> None:
    noisy = lookalikes.RavenForCausalLM()
    noisy.config.test_time_noise = 0.1
    with pytest.raises(ValueError, match="Set config.test_time_noise = 0"):
        loopscope.adapt(noisy)
    unset = lookalikes.OuroForCausalLM()
    nn.init.constant_(unset.lm_head.weight, torch.nan)
    with pytest.raises(ValueError, match="not finite: its weights may never have been set"):
        loopscope.adapt(unset)
    broken = lookalikes.OuroForCausalLM()
    del broken.model.embed_tokens
    with pytest.raises(ValueError, match="looks like Ouro, but cannot be run as such .*embed_tokens"):
        loopscope.adapt(broken)
    for settings, word in (
        ({"use_cls_token": True}, "use_cls_token"),
        ({"mixture_of_softmax": True}, "mixture_of_softmax"),
        ({"num_output_heads": 2}, "num_output_heads"),
    ):
        with pytest.raises(ValueError, match=f"built with {word}"):
            loopscope.adapt(x_transformer(**settings))


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
    assert loopscope.audit(model, IDS, LABELS).verdict == verdict
