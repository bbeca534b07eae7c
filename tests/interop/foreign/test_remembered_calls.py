"""What a forward does behind its head is run for other features without running what precedes the head."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from loopscope.interop.foreign.tracing.remembered_calls import answering, remembering
from loopscope.recurrence import unroll
from tests.interop.fixtures import IDS, Plain, build


class Capped(Plain):
    """A softcap behind the head."""

    def forward(self, ids: Tensor) -> Any:
        return 2 * torch.tanh(super().forward(ids) / 2)


class Looking(Capped):
    """It looks at what precedes its head."""

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.stack(x)
        scale = 1 + self.norm(x).mean()
        return 2 * torch.tanh(self.lm_head(self.norm(x)) / 2) * (scale / scale.detach())


def counted(module: Any) -> Counter[str]:
    """How often layers and the head compute; a hook on a layer itself would see calls that are answered too."""
    calls: Counter[str] = Counter()
    module.lm_head.register_forward_hook(lambda *_: calls.update(["lm_head"]))
    for layer in module.layers:
        layer.norm.register_forward_hook(lambda *_: calls.update(["layer"]))
    return calls


@pytest.mark.parametrize("kind", [Capped, Looking])
@pytest.mark.smoke
def test_a_head_is_followed_without_what_precedes_it(kind: type[Plain]) -> None:
    module = build(kind)
    model: Any = loopscope.wrap(module, "layers")
    assert (model.follows_head, model.remembers_before_head) == (True, True)
    *_, last = unroll(model, IDS)
    features = last.features().detach()
    calls = counted(module)
    logits = model.head(features)
    assert calls == {"lm_head": 1}
    assert torch.allclose(logits, module(IDS), atol=1e-5)
    leaf = features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(leaf).sum(), leaf)
    again = features.clone().requires_grad_()
    (due,) = torch.autograd.grad((2 * torch.tanh(module.lm_head(again) / 2)).sum(), again)
    assert torch.allclose(gradient, due, atol=1e-5)


def test_the_outermost_calls_before_a_part_are_remembered_in_order() -> None:
    module = build(Plain)
    with remembering(module.lm_head) as found:
        own = module(IDS)
    layers = list(module.layers)
    assert set(found) == {module.tokens, *layers, module.norm}
    assert [len(found[part]) for part in (module.tokens, *layers, module.norm)] == [1, 3, 3, 1]
    calls = counted(module)
    with answering(found):
        assert torch.equal(module(IDS), own)
        assert calls == {"lm_head": 1}
        module(IDS)  # one run more than is remembered
        assert calls["layer"] == 6
    module(IDS)
    assert calls["layer"] == 12
