"""Carries and radial shares of structures drawn at random, against forward hooks alone: none of our code measures."""

import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.audit.carry import SCALE_STEP, measure_carries
from loopscope.recurrence import unroll
from tests.interop.fixtures import DIM, VOCABULARY, Block

LOOPS = 4
IDS = torch.randint(VOCABULARY, (4, 17), generator=torch.Generator().manual_seed(0))
LABELS = IDS.roll(-1, 1)


class Drawn(nn.Module):
    """A looped model whose parts are drawn: what goes along beside H_k, what is between loops, how it is read."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.before, self.between, self.reads, self.injects = (
            int(torch.randint(2, (1,), generator=draws)) for _ in range(4)
        )
        self.weight = float(torch.rand(1, generator=draws))
        torch.manual_seed(seed)
        self.tokens, self.block, self.norm = nn.Embedding(VOCABULARY, DIM), Block(), nn.RMSNorm(DIM)
        self.lm_head = nn.Linear(DIM, VOCABULARY)
        with torch.no_grad():
            self.lm_head.weight.mul_(10)  # logits of a trained size

    def forward(self, ids: Tensor) -> Tensor:
        e = self.tokens(ids)
        x, before = e, None
        for _ in range(LOOPS):
            hidden = self.block(x)
            x = hidden + (0 if before is None or not self.before else self.weight * before)
            x = F.rms_norm(x, (DIM,)) if self.between else x
            x = x + self.weight * e if self.injects else x
            before = hidden
        return self.lm_head(hidden if self.reads else self.norm(hidden))


def by_hooks(module: Drawn, loop: int) -> float:
    """d log s_{loop + 1} / d log s_loop, by scaling the block's output in one call of the module's own forward."""
    up, down = (log_size_after(module, loop, factor) for factor in (1 + SCALE_STEP, 1 - SCALE_STEP))
    return float((up - down).mean() / math.log((1 + SCALE_STEP) / (1 - SCALE_STEP)))


def log_size_after(module: Drawn, loop: int, factor: float) -> Tensor:
    states: list[Tensor] = []

    def scaled(part: Any, args: Any, output: Tensor) -> Tensor:
        states.append(output * factor if len(states) == loop - 1 else output)
        return states[-1]

    hook = module.block.register_forward_hook(scaled)
    with torch.no_grad():
        module(IDS)
    hook.remove()
    return states[loop].square().mean(-1).sqrt().log().double()


def radial_share(module: Drawn) -> float:
    """Mean over tokens of abs cosine between H_K and the gradient of the last cross-entropy at it."""
    states: list[Tensor] = []

    def leaf(part: Any, args: Any, output: Tensor) -> Tensor:
        states.append(output.detach().requires_grad_() if len(states) == LOOPS - 1 else output)
        return states[-1]

    hook = module.block.register_forward_hook(leaf)
    loss = F.cross_entropy(module(IDS).flatten(0, 1), LABELS.flatten())
    hook.remove()
    (gradient,) = torch.autograd.grad(loss, states[-1])
    return float(F.cosine_similarity(gradient, states[-1].detach(), dim=-1).abs().mean())


@pytest.mark.parametrize("seed", range(10))
def test_carries_and_radial_shares_are_what_hooks_measure(seed: int) -> None:
    module = Drawn(seed).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a state before last that goes along is warned of, and followed
        model = loopscope.wrap(module, "block")
    with torch.no_grad():
        states = list(unroll(model, IDS))
    measured = measure_carries(states)[:-1]
    expected = [by_hooks(module, loop) for loop in range(1, LOOPS)]
    assert [carry.mean for carry in measured] == pytest.approx(expected, abs=2e-3)
    share = radial_share(module)
    assert (share > 0.01) == bool(module.reads)  # at random weights a raw readout shows a few percent
    for loop, carry in zip(judge(model, IDS, LABELS).loops[:-1], expected, strict=True):
        assert loop.status == ("removed" if abs(carry) < 0.05 else "visible" if module.reads else "blind")


def test_the_draw_has_every_kind() -> None:
    kinds = {(m.before, m.between, m.reads) for m in map(Drawn, range(10))}
    assert {kind[0] for kind in kinds} == {kind[1] for kind in kinds} == {kind[2] for kind in kinds} == {0, 1}
