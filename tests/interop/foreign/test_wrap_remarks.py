"""What a wrapped model says of how it is run: gradients that are cut in part, depths that its forward has not."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.recurrence import unroll
from tests.interop.fixtures import DIM, IDS, LABELS, Plain, build
from tests.interop.lookalikes import LoopLM, angles


@pytest.mark.parametrize("seed", range(3))
def test_a_router_that_reads_a_detached_state_is_told_of_and_not_refused(seed: int) -> None:
    """Of whole blocks as experts: what a loss sees directly, and what is carried, does not rest on that gradient."""
    torch.manual_seed(seed)
    module = LoopLM("experts of whole blocks").eval()
    model = loopscope.adapt(module)
    (remark,) = model.remarks
    assert re.search(r"LoopLM cuts part of the gradient inside a loop .* by \d+%: a router", remark)
    assert remark in loopscope.audit(model, IDS, LABELS).notes
    states = list(unroll(model, IDS))
    (gradient,) = torch.autograd.grad(states[-1].logits().sum(), states[0].hidden)
    entered = module.embed(IDS)
    table = angles(IDS.shape[1])[None, :, None]
    around = table.cos(), table.sin(), None
    first = module.moe_layer(entered, *around)[0].detach().requires_grad_()
    hidden = module.moe_layer(module.moe_layer(first, *around)[0], *around)[0]
    (own,) = torch.autograd.grad(module.lm_head(module.final_norm(hidden)).sum(), first)
    assert torch.allclose(gradient, own, atol=1e-4 * float(own.abs().max()))


class ReadoutPerLoop(Plain):
    """A readout of its own for every loop, so no loop beyond the trained depth."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(DIM) for _ in range(3))

    def forward(self, ids: Tensor) -> Any:
        x, logits = self.tokens(ids), []
        for loop in range(self.config.loops):
            x = self.stack(x)
            logits.append(self.lm_head(self.norms[loop](x)))
        return {"all_logits": logits}


def test_a_forward_that_goes_no_deeper_repeats_its_last_loop_beyond() -> None:
    module = build(ReadoutPerLoop)
    model = loopscope.wrap(module, "layers", set_loops="config.loops")
    assert (
        "The forward of ReadoutPerLoop runs no more than 3 loops: beyond, its last one is repeated."
        in model.remarks
    )
    own = module(IDS)["all_logits"]
    x = module.tokens(IDS)
    with torch.no_grad():
        for state in unroll(model, IDS, 5):
            x = module.stack(x)
            assert torch.allclose(state.hidden, x, atol=1e-5)
            if state.loop <= 3:
                assert torch.allclose(state.logits(), own[state.loop - 1], atol=1e-5)
    assert loopscope.audit(model, IDS, LABELS).verdict == "blind"
