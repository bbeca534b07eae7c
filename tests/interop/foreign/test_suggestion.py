"""What `adapt` advises for a module that it does not know: a call of `wrap` that works, printed as code."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import loopscope
from loopscope.recurrence import unroll
from tests.interop.fixtures import IDS, VOCABULARY, Plain, build


class LastPosition(Plain):
    """Without targets the last position's logits alone, as training code gives them."""

    def forward(self, idx: Tensor, targets: Tensor | None = None, steps: int = 3) -> Any:
        x = self.tokens(idx)
        for _ in range(steps):
            x = self.stack(x)
        x = self.norm(x)
        if targets is None:
            return self.lm_head(x[:, [-1]]), None
        logits = self.lm_head(x)
        return logits, F.cross_entropy(logits.view(-1, VOCABULARY), targets.view(-1))


class Demanding(LastPosition):
    """The number of loops has no default."""

    def forward(self, ids: Tensor, L: int, detach_between_steps: bool = False) -> Any:
        return super().forward(ids, ids, L)[0]


class OnceByItself(LastPosition):
    """By itself it runs the recurrence once, under a name with another beginning."""

    def forward(self, idx: Tensor, targets: Tensor | None = None, rec_steps: int = 1) -> Any:
        return super().forward(idx, targets, rec_steps)


def advised(module: Any) -> tuple[str, Any]:
    """The call in the advice, and the model that it makes."""
    with pytest.raises(ValueError, match="structure of none of the families known") as refused:
        loopscope.adapt(module)
    found = re.search(r"loopscope\.wrap\(module, .*\)(?= works)", str(refused.value))
    assert found is not None, str(refused.value)
    return found[0], eval(found[0], {"loopscope": loopscope, "module": module})


@pytest.mark.parametrize(
    ("kind", "call", "own"),
    [
        (LastPosition, "set_loops='steps', forward_kwargs=lambda ids: {\"targets\": ids}", "steps"),
        (Demanding, "set_loops='L', loops=4", "L"),
        (OnceByItself, "set_loops='rec_steps', loops=4, forward_kwargs=", "rec_steps"),
    ],
)
def test_the_advice_is_a_call_that_works(kind: type[Plain], call: str, own: str) -> None:
    module = build(kind)
    code, model = advised(module)
    assert call in code
    given = {} if kind is Demanding else {"targets": IDS}
    with torch.no_grad():
        for state in unroll(model, IDS, model.loops + 2):
            output = module(IDS, **given, **{own: state.loop})
            assert torch.allclose(state.logits(), output if kind is Demanding else output[0], atol=1e-5)


def test_what_repeats_and_cannot_be_followed_is_named_with_the_reason() -> None:
    class HeadIsAProduct(Plain):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.tokens(ids)
            for _ in range(3):
                x = self.stack(x)
            return F.linear(self.norm(x), self.tokens.weight)

    with pytest.raises(ValueError, match=r"The largest is 'layers', called 3 times; of it wrap says: .*head"):
        loopscope.adapt(build(HeadIsAProduct))


def test_a_name_that_sets_no_depth_is_refused() -> None:
    class OfAFixedDepth(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.warmup_steps = 3

    with pytest.raises(
        ValueError, match="set_loops is 'warmup_steps', and by it the forward runs at no other"
    ):
        loopscope.wrap(build(OfAFixedDepth), "layers", set_loops="warmup_steps")
    code, model = advised(build(OfAFixedDepth))
    assert "warmup" not in code
    assert model.loops == 3
