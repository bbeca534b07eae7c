"""Modules and arguments that `loopscope.wrap` refuses, by name."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from tests.interop.fixtures import (
    DIM,
    VOCABULARY,
    Injected,
    Plain,
    build,
)


class Detached(Injected):
    def forward(self, ids: Tensor, loops: int | None = None) -> Any:
        embedded = x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.stack(self.inject(torch.cat([x.detach(), embedded], dim=-1)))
        return self.lm_head(self.norm(x))


class PlainDetached(Plain):
    """The state is passed on as it is: the values are those of a forward without the detach."""

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.stack(x.detach())
        return self.lm_head(self.norm(x))


class TwoReadouts(Plain):
    """Raw at every loop but the last: no single readout is the module's."""

    def forward(self, ids: Tensor) -> Any:
        x, found = self.tokens(ids), []
        for loop in range(self.config.loops):
            x = self.stack(x)
            found.append(self.lm_head(self.norm(x) if loop == self.config.loops - 1 else x))
        return SimpleNamespace(logits=found)


class Averaged(Plain):
    """The head reads the mean of all loops' states."""

    def forward(self, ids: Tensor) -> Any:
        x, found = self.tokens(ids), []
        for _ in range(self.config.loops):
            x = self.stack(x)
            found.append(x)
        return self.lm_head(self.norm(torch.stack(found).mean(dim=0)))


class AveragedPair(Averaged):
    loops = 2


class AveragedInjected(Plain):
    """The same where a carry is followed, so that the history gives the last loop's logits all the same."""

    def forward(self, ids: Tensor) -> Any:
        embedded = x = self.tokens(ids)
        found: Any = 0.0
        for _ in range(self.config.loops):
            x = self.stack(self.inject(torch.cat([x, embedded], dim=-1)))
            found = found + x
        return self.lm_head(self.norm(found))


class OnlyLoss(Plain):
    def forward(self, ids: Tensor) -> Any:
        return {"logits": None, "loss": super().forward(ids).mean()}


class NeedsMore(Plain):
    def forward(self, ids: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
        return super().forward(ids)


class SequenceFirst(Plain):
    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids).transpose(0, 1)
        for _ in range(self.config.loops):
            x = self.stack(x)
        return self.lm_head(self.norm(x.transpose(0, 1)))


class Zigzag(Plain):
    def stack(self, x: Tensor) -> Tensor:
        return self.layers[0](self.layers[1](self.layers[0](x)))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Plain, {"block": "layer"}, r"block is 'layer', but Plain has no such part; did you mean layers"),
        (Plain, {"block": "norm"}, "block 'norm' is called once in the forward of Plain: it is not a loop"),
        (Plain, {"block": "tokens"}, "Embedding is called without a float tensor"),
        (Plain, {"block": "inject"}, "block 'inject' is never called"),
        (Plain, {"block": "config"}, "which is SimpleNamespace, not a module"),
        (Plain, {"head": "head"}, r"head is 'head', but Plain has no such part; did you mean lm_head"),
        (Plain, {"head": "config"}, "cannot be called"),
        (Plain, {"readout": None}, "the readout is not what the module uses: what reaches its head differs"),
        (Plain, {"readout": "between"}, "the readout is not what the module uses"),
        (Plain, {"readout": "inject"}, "the head cannot read what the readout gives it"),
        (Plain, {"readout": "norm", "head": nn.Linear(8, VOCABULARY)}, "name the head or the readout"),
        (Plain, {"readout": "norm", "head": nn.Linear(DIM, 7)}, "the vocabulary is 7 entries wide"),
        (Plain, {"readout": "norm", "head": lambda x: x}, "not what the forward does with the last state"),
        (Plain, {"head": lambda x: x}, "say what it reads"),
        (Plain, {"head": "inject"}, "does not call this head after its last loop.* name the readout too"),
        (Plain, {"gate": "inject"}, "gate cannot read the state"),
        (Plain, {"gate": "norm"}, "an exit gate gives one logit per token"),
        (Plain, {"loops": 5}, "calls block 'layers' 3 times; give set_loops"),
        (Plain, {"set_loops": "config.depth"}, "set_loops is 'config.depth', but Plain has no such part"),
        (Plain, {"set_loops": "config"}, "must be the attribute that holds the number of loops"),
        (Injected, {"loops": 5, "set_loops": lambda loops: {}}, "asks the forward for 5 loops, but it calls"),
        (Plain, {"hidden": "state"}, "hidden is 'state', but Block is called with"),
        (Plain, {"forward_kwargs": {"steps": 3}}, "pass what else it needs in forward_kwargs"),
        (NeedsMore, {}, "pass what else it needs in forward_kwargs"),
        (Averaged, {}, "the head reads the states of earlier loops too"),
        (Averaged, {"readout": "norm"}, "the head reads the states of earlier loops too"),
        (AveragedPair, {}, "there is no readout of one loop's state"),
        (AveragedInjected, {}, "the head reads the states of earlier loops too"),
        (OnlyLoss, {}, "returns no logits"),
        (Detached, {}, "the gradient from loop 1 to the next loop misses the finite difference by 100%"),
        (PlainDetached, {}, "the gradient from loop 1 to the next loop misses the finite difference by 100%"),
        (PlainDetached, {"readout": "norm"}, "the gradient from loop 1 to the next loop misses"),
        (
            TwoReadouts,
            {"readout": "norm"},
            "at loop 1 the logits differ.*reads this loop otherwise than its last",
        ),
        (SequenceFirst, {}, r"a hidden state is \[batch, seq, dim\]"),
        (Zigzag, {}, "are not called once each, in their order, per loop"),
    ],
)
def test_bad_input_is_refused(kind: type[Plain], settings: dict[str, Any], message: str) -> None:
    module = build(kind)
    with pytest.raises(ValueError, match=message):
        loopscope.wrap(module, **{"block": "layers", **settings})
    assert all("forward" not in part.__dict__ for part in module.modules())
    assert module.config.loops == kind.loops
