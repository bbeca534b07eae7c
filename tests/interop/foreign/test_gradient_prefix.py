"""Modules that run loops without a gradient, and those that take and return a carry."""

import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.recurrence import unroll
from tests.interop.fixtures import DIM, IDS, LABELS, VOCABULARY, Injected, Plain, build

LENGTH = 10


@dataclass
class Inner:
    high: Tensor
    low: Tensor


class Level(nn.Module):
    """Post-norm layers over tokens of one number, after TRM: a norm ends the block."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.channels = nn.Linear(LENGTH, LENGTH), nn.Linear(DIM, DIM)

    def forward(self, hidden_states: Tensor, input_injection: Tensor) -> Tensor:
        x = hidden_states + input_injection
        x = F.rms_norm(x + self.tokens(x.transpose(1, 2)).transpose(1, 2), (DIM,))
        return F.rms_norm(x + self.channels(x), (DIM,))


class Recursive(nn.Module):
    """(carry, batch) to (carry, outputs): all cycles but the last under no_grad."""

    cycles, low_cycles = 2, 2

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.level = nn.Embedding(VOCABULARY, DIM), Level()
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)
        self.register_buffer("high", torch.randn(DIM))
        self.register_buffer("low", torch.randn(DIM))

    def initial_carry(self, batch: dict[str, Tensor]) -> Inner:
        shape = (*batch["inputs"].shape, DIM)
        return Inner(self.high.expand(shape), self.low.expand(shape))

    def cycle(self, high: Tensor, low: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(self.low_cycles):
            low = self.level(low, high + embedded)
        return self.level(high, low), low

    def forward(self, carry: Inner, batch: dict[str, Tensor]) -> tuple[Inner, dict[str, Tensor]]:
        embedded = self.embedding(batch["inputs"])
        high, low = carry.high, carry.low
        with torch.no_grad():
            for _ in range(self.cycles - 1):
                high, low = self.cycle(high, low, embedded)
        high, low = self.cycle(high, low, embedded)
        outputs = {"logits": self.lm_head(high), "q_halt_logits": high[:, 0, 0]}
        return Inner(high.detach(), low.detach()), outputs


class Prefixed(Plain):
    """All loops but the last under no_grad, in a plain recurrence."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        with torch.no_grad():
            for _ in range(self.config.loops - 1):
                x = self.stack(x)
        return self.lm_head(self.norm(self.stack(x)))


class PrefixedFirst(Plain):
    """Only the first loop, which has a gradient of its own start alone."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for loop in range(self.config.loops):
            with torch.set_grad_enabled(torch.is_grad_enabled() and loop > 0):
                x = self.stack(x)
        return self.lm_head(self.norm(x))


class Between(Injected):
    """What is between loops has no gradient; the loops have."""

    def forward(self, ids: Tensor, loops: int | None = None) -> Tensor:
        embedded = x = self.tokens(ids)
        for loop in range(self.config.loops):
            with torch.set_grad_enabled(torch.is_grad_enabled() and loop == self.config.loops - 1):
                x = self.inject(torch.cat([x, embedded], dim=-1))
            x = self.between(self.stack(x))
        return self.lm_head(self.norm(x))


@pytest.mark.smoke  # it rests on private names of torch
def test_a_carry_and_a_batch_in_and_out() -> None:
    module = build(Recursive)
    with pytest.warns(
        UserWarning, match=r"Recursive runs loops 1 to 3 of 6 without a gradient \(torch.no_grad\)"
    ):
        model: Any = loopscope.wrap(module, "level", sequence=LENGTH)
    assert model.loops == 6  # two low passes and a high one, twice
    own = module(module.initial_carry({"inputs": IDS}), {"inputs": IDS})[1]["logits"]
    assert torch.allclose(model(IDS), own, atol=1e-5)
    report = loopscope.audit(model, IDS, LABELS)
    assert report.verdict == "removed"
    assert {loop.status for loop in report.loops} == {"removed"}
    assert any("without a gradient" in note for note in report.notes)
    assert torch.is_grad_enabled()


def test_what_a_forward_is_called_with_may_be_said() -> None:
    module = build(Recursive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = loopscope.wrap(
            module,
            "level",
            inputs=lambda ids: (module.initial_carry({"inputs": ids}), {"inputs": ids}),
            logits=lambda output: output[1]["logits"],
        )
        by_key = loopscope.wrap(module, "level", logits="logits")
    assert torch.equal(named(IDS), by_key(IDS))


@pytest.mark.parametrize(
    ("kind", "like", "loops"),
    [
        (Prefixed, Plain, "loops 1 to 2 of 3"),
        (PrefixedFirst, Plain, "loop 1 of 3"),
        (Between, Injected, "part of its loops"),
    ],
)
def test_loops_without_a_gradient_have_one_in_audits_alone(
    kind: type[Plain], like: type[Plain], loops: str
) -> None:
    module, whole = build(kind), build(like)
    with pytest.warns(UserWarning, match=f"{kind.__name__} runs {loops} without a gradient"):
        model = loopscope.wrap(module, "layers")
    measured = [
        (one.carry, one.direct)
        for of in (model, loopscope.wrap(whole, "layers"))
        for one in judge(of, IDS, LABELS).loops
    ]
    assert measured[:3] == [pytest.approx(figures, rel=1e-4, abs=1e-6) for figures in measured[3:]]
    first, *_, last = unroll(model, IDS)
    (gradient,) = torch.autograd.grad(last.logits().sum(), first.hidden)
    *_, due_last = due = list(unroll(loopscope.wrap(whole, "layers"), IDS))
    (expected,) = torch.autograd.grad(due_last.logits().sum(), due[0].hidden)
    assert torch.allclose(gradient, expected, atol=1e-5)
    module(IDS).sum().backward()
    assert module.tokens.weight.grad is None or kind is not Prefixed  # its own forward is as it was
    assert torch.is_grad_enabled()


def test_hrm_text_has_its_whole_gradient_by_its_own_setting() -> None:
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "HrmTextForCausalLM"):
        pytest.skip(f"transformers {transformers.__version__} has no HRM-Text")
    config = transformers.HrmTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        head_dim=8,
        num_hidden_layers=4,
        H_cycles=2,
        L_cycles=3,
        L_bp_cycles=[1],
    )
    torch.manual_seed(0)
    module = transformers.HrmTextForCausalLM(config).eval()
    before = list(module.model.L_bp_cycles_padded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the low stack goes along beside H_k
        wrapped = loopscope.wrap(module, "model.H_module")  # refused, were the gradient cut
    assert module.model.L_bp_cycles_padded == before != [3, 3]
    assert wrapped.remarks == ()
    assert {loop.status for loop in judge(wrapped, IDS, LABELS).loops} == {"removed"}
    report = loopscope.audit(loopscope.adapt(module), IDS, LABELS)
    assert report.verdict == "removed"
    assert {(side.name, side.status) for side in report.side_scales} == {("low stack", "removed")}
