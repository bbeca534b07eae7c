"""Scales beside H_k, against forward hooks alone: what they carry, what the loss sees of them, and what is said."""

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.audit.side_scales import measure_side_scales, side_sentences
from loopscope.objectives.spelling import as_objective
from loopscope.recurrence import PaddedRows, unroll
from loopscope.results import AuditReport, SideScale, decode, to_json
from tests.interop.fixtures import DIM, IDS, LABELS, VOCABULARY

LOOPS = 4


class Step(nn.Module):
    """A state of unit size, and a momentum that adds up what moves it."""

    def __init__(self, reads: str, decay: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.SiLU(), nn.Linear(2 * DIM, DIM))
        self.reads, self.decay = reads, decay

    def forward(self, x: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        count = torch.arange(1, x.shape[1] + 1)[:, None]
        moves = self.inner(x.cumsum(dim=1) / count)
        if self.reads == "late":
            momentum = self.decay * momentum + moves
            return F.rms_norm(x + F.rms_norm(momentum, (DIM,)), (DIM,)), momentum
        read = F.rms_norm(momentum, (DIM,)) if self.reads == "normed" else momentum
        x = x + moves + read
        x = x if self.reads == "added" else F.rms_norm(x, (DIM,))
        return x, self.decay * momentum + x


class WithMomentum(nn.Module):
    def __init__(self, reads: str = "normed", decay: float = 1.0) -> None:
        super().__init__()
        self.tokens, self.step = nn.Embedding(VOCABULARY, DIM), Step(reads, decay)
        self.lm_head = nn.Linear(DIM, VOCABULARY)

    def forward(self, ids: Tensor, loops: int = LOOPS) -> Tensor:
        x = self.tokens(ids)
        momentum = x * 0.5
        for _ in range(loops):
            x, momentum = self.step(x, momentum)
        return self.lm_head(x)


def build(**settings: Any) -> WithMomentum:
    torch.manual_seed(0)
    module = WithMomentum(**settings).eval()
    with torch.no_grad():
        module.lm_head.weight.mul_(10)  # logits of a trained size
    return module


def outputs(module: WithMomentum, change: Any = lambda calls, output: output) -> list[tuple[Tensor, Tensor]]:
    """What the step put out in every call of one forward, as a hook changed it."""
    calls: list[tuple[Tensor, Tensor]] = []

    def hook(part: Any, args: Any, output: Any) -> Any:
        calls.append(change(len(calls) + 1, output))
        return calls[-1]

    handle = module.step.register_forward_hook(hook)
    logits = module(IDS)
    handle.remove()
    return [*calls, (logits, logits)]


@torch.no_grad()
def carry_by_hooks(module: WithMomentum, loop: int) -> float:
    logs = []
    for factor in (1.01, 0.99):
        found = outputs(module, lambda k, out, f=factor: (out[0], out[1] * f) if k == loop else out)
        logs.append(found[loop][1].square().mean(dim=-1).sqrt().log().double())
    return float((logs[0] - logs[1]).mean() / math.log(1.01 / 0.99))


def share_by_hooks(module: WithMomentum, loop: int) -> float:
    """Radial share of a terminal loss's gradient at the momentum, through the next state alone."""
    leaf: list[Tensor] = []

    def change(k: int, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if k == loop:
            leaf.append(output[1].detach().requires_grad_())
            return output[0].detach(), leaf[0]
        return (output[0], output[1].detach()) if k == loop + 1 else output

    logits = outputs(module, change)[-1][0]
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits.flatten(0, 1), LABELS.flatten()), leaf[0])
    return float(F.cosine_similarity(gradient, leaf[0].detach(), dim=-1).abs().mean())


def measured(
    model: Any, ids: Tensor = IDS, labels: Tensor = LABELS, objective: str = "terminal"
) -> list[SideScale]:
    with torch.no_grad():
        states = list(unroll(model, ids))
    found = as_objective(objective)
    assert found is not None
    return measure_side_scales(states, found, labels)


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"reads": "normed"}, "blind"),  # its norm grows by one a loop, and nothing holds it
        ({"reads": "late"}, "blind"),  # read after what moves it was added, it also turns a little
        ({"reads": "normed", "decay": 0.8}, "damped"),
        ({"reads": "added", "decay": 0.5}, "visible"),
    ],
)
def test_carry_and_share_are_what_hooks_measure(settings: dict[str, Any], status: str) -> None:
    module = build(**settings)
    rows = measured(loopscope.wrap(module, "step", set_loops="loops"))
    assert [(row.name, row.loop) for row in rows] == [("momentum", loop) for loop in range(1, LOOPS + 1)]
    with torch.no_grad():
        own = [momentum.square().mean(dim=-1).sqrt().mean() for _, momentum in outputs(module)[:-1]]
    assert [row.rms for row in rows] == pytest.approx([float(size) for size in own], rel=1e-4)
    for row in rows[:-1]:
        assert row.carry == pytest.approx(carry_by_hooks(module, row.loop), abs=2e-3)
        assert row.share == pytest.approx(share_by_hooks(module, row.loop), rel=2e-2, abs=1e-5)
    assert {row.status for row in rows} == {status}
    assert "momentum goes from loop to loop" in side_sentences(rows)["momentum"]
    if status == "blind":
        assert rows[-1].rms > (2 if settings["reads"] == "normed" else 0.5) * rows[0].rms
        with torch.no_grad():
            sizes = [float(state.norm()) for state, _ in outputs(module)[:-1]]
        assert sizes[-1] == pytest.approx(sizes[0], rel=1e-4)


def test_a_blind_momentum_is_the_verdict_and_is_said_everywhere() -> None:
    model = loopscope.wrap(build(), "step", set_loops="loops")
    report = loopscope.audit(model, IDS, LABELS)
    assert {loop.status for loop in report.loops} == {"removed"}
    assert report.verdict == "blind"
    assert report.why.startswith("Beside H_k, momentum goes from loop to loop (its RMS is ")
    assert "no loss term sees it" in report.why
    assert report.why.endswith("it is removed.")
    assert decode(AuditReport, json.loads(to_json(report))).side_scales == report.side_scales
    fast = judge(model, IDS, LABELS)
    assert (fast.verdict, fast.why, fast.side_scales) == (report.verdict, report.why, report.side_scales)


def test_a_harmless_momentum_is_a_note() -> None:
    report = loopscope.audit(loopscope.wrap(build(reads="added", decay=0.5), "step"), IDS, LABELS)
    assert report.verdict == "visible"
    assert report.why.startswith("The scale of loops 1-4 is seen by")
    assert any(note.startswith("Beside H_k, momentum goes from loop to loop") for note in report.notes)


def test_interventions_reach_later_loops_through_the_momentum() -> None:
    """A changed state changes the momentum of the next loop, and that the state after it."""
    module = build(reads="raw", decay=0.5)
    model = loopscope.wrap(module, "step", set_loops="loops")
    with torch.no_grad():
        states = unroll(model, IDS)
        first = next(states)
        sent = [states.send(2 * first.hidden).hidden, *(state.hidden for state in states)]
        due = outputs(module, lambda k, out: (2 * out[0], out[1]) if k == 1 else out)[1:-1]
    for hidden, (state, _) in zip(sent, due, strict=True):
        assert torch.allclose(hidden, state, atol=1e-5)


def test_padded_texts_have_the_rows_of_the_text() -> None:
    model = loopscope.wrap(build(), "step")
    text, labels = IDS[:1, :6], LABELS[:1, :6]
    mask = F.pad(torch.ones_like(text), (2, 0))
    packed = PaddedRows(model, mask == 1, packed=True)
    for one, other in zip(measured(packed, text, labels), measured(model, text, labels), strict=True):
        assert (one.name, one.status) == (other.name, other.status)
        assert (one.carry, one.share) == pytest.approx((other.carry, other.share), rel=1e-3)


def test_what_is_handed_through_is_no_state() -> None:
    """A table that every loop gets and returns, or a tensor that the next loop does not read."""

    class Handing(WithMomentum):
        def forward(self, ids: Tensor, loops: int = LOOPS) -> Tensor:
            x = self.tokens(ids)
            for _ in range(loops):
                x, _ = self.step(x, torch.ones_like(x))
            return self.lm_head(x)

    torch.manual_seed(0)
    assert measured(loopscope.wrap(Handing().eval(), "step")) == []
