"""`loopscope.wrap(gate=...)`: the gate has to read what the forward gives it, and to give a logit."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll
from tests.interop import lookalikes

IDS = torch.arange(20).view(2, 10) * 7 % lookalikes.VOCABULARY
LABELS = (IDS * 3 + 1) % lookalikes.VOCABULARY


class Probability(nn.Module):
    """A gate with its sigmoid inside."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(lookalikes.DIM, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.proj(x)).squeeze(-1)


class Exits(lookalikes.LoopLM):
    """LoopLM with the lines that read the gate left open: `lambdas(states)` gives every loop's."""

    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        raise NotImplementedError

    def forward(self, input_ids: Tensor, num_steps: int | None = None) -> Any:  # type: ignore[override]
        table = lookalikes.angles(input_ids.shape[1])[None, :, None]
        h, states = self.embed(input_ids), []
        for _ in range(num_steps or self.config.max_recurrent_steps):
            for layer in self.layers:
                h = layer(h, table.cos(), table.sin())
            states.append(h)
        return lookalikes.LoopLMOutput(
            [self.lm_head(self.final_norm(state)) for state in states], self.lambdas(states)
        )


class Normed(Exits):
    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        return [torch.sigmoid(self.exit_gate(self.final_norm(state))).squeeze(-1) for state in states]


class TwiceNormed(Exits):
    def __init__(self) -> None:
        super().__init__()
        self.gate_norm = nn.LayerNorm(lookalikes.DIM)

    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        return [self.exit_gate(self.gate_norm(self.final_norm(state))) for state in states]


class Raw(Exits):
    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        return [self.exit_gate(state) for state in states]


class Stacked(Exits):
    """One call for all loops, after the last."""

    axis = 0

    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        return list(self.exit_gate(torch.stack(states, self.axis)).unbind(self.axis))


class StackedInside(Stacked):
    axis = 2


class NormedStacked(Exits):
    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        return list(self.exit_gate(self.final_norm(torch.cat(states))).chunk(len(states)))


class Previous(Exits):
    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        return [self.exit_gate(state) for state in [states[0], *states[:-1]]]


class Pooled(Exits):
    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        return [self.exit_gate(state.mean(dim=1)) for state in states]


class ScaledInput(Exits):
    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        return [self.exit_gate(0.5 * state) for state in states]


class PerLoop(Exits):
    """The gate is also told the loop, which a wrapped model cannot tell it."""

    class Gate(nn.Linear):
        def forward(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
            return super().forward(x) + (0.0 if offset is None else offset)

    def __init__(self) -> None:
        super().__init__()
        self.exit_gate = self.Gate(lookalikes.DIM, 1)

    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        return [self.exit_gate(state, torch.tensor(float(loop))) for loop, state in enumerate(states)]


class Unread(Exits):
    def lambdas(self, states: list[Tensor]) -> list[Tensor]:
        return []


class Certain(Raw):
    def __init__(self) -> None:
        super().__init__()
        self.exit_gate = Probability()  # type: ignore[assignment]


def build(kind: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    return kind().eval()


def wrapped(module: nn.Module, gate: Any) -> Any:
    """Wrapped without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the gate could not be checked")
        return loopscope.wrap(module, "layers", gate=gate, set_loops="num_steps")


@pytest.mark.parametrize(
    ("kind", "gate", "message"),
    [
        (Normed, "exit_gate", r"output of final_norm: gate=\['final_norm', 'exit_gate'\]"),
        (NormedStacked, "exit_gate", r"exit_gate' does not read what the forward gives it: at loop 1"),
        (TwiceNormed, "exit_gate", r"output of gate_norm: gate=\['final_norm', 'gate_norm', 'exit_gate'\]"),
        (TwiceNormed, ["final_norm", "exit_gate"], r"gate=\['final_norm', 'gate_norm', 'exit_gate'\]"),
        (Raw, ["final_norm", "exit_gate"], "exit_gate the block's output itself: gate='exit_gate'"),
        (Raw, [lambda x: 2 * x, "exit_gate"], "the block's output itself"),
        (Previous, "exit_gate", "at loop 2 the two differ.*the state of loop 1 there"),
        (Pooled, "exit_gate", r"\(2, 8, 32\) here, and \(2, 32\) by the forward at loop 1"),
        (ScaledInput, "exit_gate", r"at loop 1 the two differ.*gate=\['<part>', 'exit_gate'\]"),
        (PerLoop, "exit_gate", "gives another value here than in the forward: at loop 1"),
    ],
)
def test_a_gate_that_reads_something_else_is_refused(kind: Any, gate: Any, message: str) -> None:
    module = build(kind)
    with pytest.raises(ValueError, match=message):
        loopscope.wrap(module, "layers", gate=gate, set_loops="num_steps")
    assert all("forward" not in part.__dict__ for part in module.modules())


@pytest.mark.parametrize(
    ("kind", "gate"),
    [
        (lookalikes.LoopLM, "exit_gate"),
        (Raw, "exit_gate"),
        (Stacked, "exit_gate"),
        (StackedInside, "exit_gate"),
        (Normed, ["final_norm", "exit_gate"]),
        (NormedStacked, ["final_norm", "exit_gate"]),
        (TwiceNormed, ["final_norm", "gate_norm", "exit_gate"]),
        (Certain, "exit_gate.proj"),
    ],
)
def test_the_forwards_gate_is_accepted_without_a_warning(kind: Any, gate: Any) -> None:
    module = build(kind)
    model = wrapped(module, gate)
    heard: list[Tensor] = []
    last = module.exit_gate.proj if kind is Certain else module.exit_gate
    handle = last.register_forward_hook(lambda part, args, output: heard.append(output))
    with torch.no_grad():
        module(IDS)
    handle.remove()
    if kind is Stacked or kind is StackedInside:
        heard = list(heard[0].unbind(kind.axis))
    own = list(heard[0].chunk(model.loops)) if kind is NormedStacked else heard
    with torch.no_grad():
        for state, logit in zip(unroll(model, IDS), own, strict=True):
            assert torch.allclose(state.gate_logit(), logit.squeeze(-1), atol=1e-5)


def test_the_verdict_hangs_on_what_the_gate_reads() -> None:
    """What the refusal is for: the same weights, blind through the norm and visible past it."""
    objective = build_objective(ObjectiveConfig(placement="exit-weighted"))
    normed = wrapped(build(Normed), ["final_norm", "exit_gate"])
    raw = wrapped(build(Raw), "exit_gate")
    assert loopscope.audit(normed, IDS, LABELS, objective).verdict == "blind"
    assert loopscope.audit(raw, IDS, LABELS, objective).verdict == "visible"


@pytest.mark.parametrize(
    ("kind", "gate", "message"),
    [
        (Unread, "exit_gate", "gate 'exit_gate' is never called with a loop's state"),
        (Raw, lambda x: x.mean(dim=-1), "gate is a function"),
    ],
)
def test_a_gate_that_cannot_be_compared_is_warned_of(kind: Any, gate: Any, message: str) -> None:
    with pytest.warns(UserWarning, match=f"the gate could not be checked: {message}"):
        model = loopscope.wrap(build(kind), "layers", gate=gate)
    assert next(unroll(model, IDS)).gate_logit().shape == IDS.shape


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("exit_gate", r"it is a probability.*Name the part that gives the logit \('exit_gate.proj'\)"),
        (["exit_gate", lambda p: 1 - p], "Give the function without its sigmoid"),
    ],
)
def test_a_gate_that_gives_a_probability_is_refused(gate: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loopscope.wrap(build(Certain), "layers", gate=gate)


def test_a_probability_can_be_turned_into_its_logit() -> None:
    module = build(Certain)
    turned = wrapped(module, ["exit_gate", lambda p: torch.logit(p, eps=1e-6)])
    named = wrapped(module, "exit_gate.proj")
    for mine, other in zip(unroll(turned, IDS), unroll(named, IDS), strict=True):
        assert torch.allclose(mine.gate_logit(), other.gate_logit(), atol=1e-4)


def test_a_small_or_new_gate_is_not_taken_for_a_probability() -> None:
    module = build(Normed)
    nn.init.normal_(module.exit_gate.weight, std=1e-3)
    nn.init.constant_(module.exit_gate.bias, 0.5)
    assert wrapped(module, ["final_norm", "exit_gate"]) is not None
    nn.init.zeros_(module.exit_gate.weight)
    with pytest.warns(UserWarning, match=r"gate gives 0\.5 for every state"):
        loopscope.wrap(module, "layers", gate=["final_norm", "exit_gate"])
    nn.init.zeros_(module.exit_gate.bias)
    assert wrapped(module, ["final_norm", "exit_gate"]) is not None
