"""What a block may be, and where its number of loops may be found."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.audit.audit_report import judge
from tests.interop.fixtures import IDS, LABELS, Block, Plain, build


class Stepped(Plain):
    """The loop is a method, with a second thing that goes along."""

    def step(self, x: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        return self.stack(x) + 0.1 * momentum, 0.5 * momentum

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        momentum = torch.ones_like(x)
        for _ in range(self.config.loops):
            x, momentum = self.step(x, momentum)
        return self.lm_head(self.norm(x))


def apply(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """A free function, as a library's `step` is."""
    for layer in layers:
        x = layer(x)
    return x


class ByFunction(Plain):
    def stack(self, x: Tensor) -> Tensor:
        return apply(self.layers, x)


class Three(Plain):
    """A first and a last layer around the looped ones, in one list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(4))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.layers[0](self.tokens(ids))
        for _ in range(self.config.loops):
            x = self.layers[2](self.layers[1](x))
        return self.lm_head(self.norm(self.layers[3](x)))


@pytest.mark.parametrize(
    ("kind", "block", "verdict"),
    [
        (Stepped, "step", "blind"),
        (ByFunction, apply, "blind"),
        (Three, "layers[1:3]", "visible"),  # by the residual of the layer behind the loop
        (Three, "layers[-3:-1]", "visible"),
        (Three, ["layers[1]", "layers.2"], "visible"),
    ],
)
def test_a_block_may_be_a_method_a_function_a_slice_or_a_list(
    kind: type[Plain], block: Any, verdict: str
) -> None:
    module = build(kind)
    model = loopscope.wrap(module, block)
    assert model.loops == module.config.loops
    assert torch.allclose(model(IDS), module(IDS), atol=1e-5)
    assert {loop.status for loop in judge(model, IDS, LABELS).loops} == {verdict}
    assert "step" not in vars(module)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("layers[1:9]x", "has no such part"),
        ("layers[7]", "layers has 4 entries"),
        ([], "a list names one or more modules"),
        (["layers"], "each of them one step of a loop"),
        (lambda x: x, "is the function '<lambda>', which its module does not have under that name"),
    ],
)
def test_blocks_that_are_none(block: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loopscope.wrap(build(Three), block)


def test_the_number_of_loops_is_found_inside_a_config() -> None:
    class Configured(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.config = type(self.config)(loops=3, text_config=type(self.config)(recurrences=3))

        def forward(self, ids: Tensor) -> Tensor:
            x = self.tokens(ids)
            for _ in range(self.config.text_config.recurrences):
                x = self.stack(x)
            return self.lm_head(self.norm(x))

    module = build(Configured)
    model = loopscope.wrap(module, "layers", set_loops="recurrences")
    assert model.loops == 3
    with pytest.raises(ValueError, match="has no such part"):
        loopscope.wrap(module, "layers", set_loops="recurrence")
