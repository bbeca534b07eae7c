"""FLOPs that no formula says: counted, against the formula where there is one, and against a module's own matrices."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

import loopscope
from loopscope.config.recipes import recipe
from loopscope.jobs.counted_flops import counted_flops
from loopscope.model.looped import LoopedTransformer
from loopscope.plan.flops import forward_flops
from tests.evaluation.lens.fixtures import dory, hrm
from tests.jobs.fixtures import OVER

IDS = torch.arange(12)[None]


@pytest.mark.parametrize("condition", ["dense/rmsnorm", "huginn:dense/rmsnorm"])
def test_a_count_is_what_the_config_says(condition: str) -> None:
    """Of the project's own families, whose formula another test holds to the counter with a gradient."""
    over = {"model": {**OVER["model"], "sequence": 12}, "data": OVER["data"]}
    model = LoopedTransformer(recipe("laptop", condition, over).model).eval()
    expected = [forward_flops(model.config, 12, loops, exits=1) for loops in range(1, 5)]
    assert counted_flops(model, IDS, 4) == pytest.approx(expected)


def linear_flops(layers: Any) -> float:
    """Two per weight and token, by hand."""
    return sum(2 * m.weight.numel() for layer in layers for m in layer.modules() if isinstance(m, nn.Linear))


def test_a_loop_of_dory_costs_its_recurrent_layers() -> None:
    torch.manual_seed(0)
    module = dory().eval()
    model = loopscope.adapt(module)
    found = counted_flops(model, IDS, 6)
    config = module.config
    recurrent = module.model.layers[1:3]
    scores = (
        4 * IDS.shape[1] * config.num_attention_heads * config.head_dim
    )  # queries on keys, weights on values
    loop = linear_flops(recurrent) + len(recurrent) * scores
    steps = [later - before for before, later in pairwise(found)]
    assert steps == [pytest.approx(loop)] * 5
    once = linear_flops([module.model.layers[0], module.model.layers[3], nn.ModuleList([module.lm_head])])
    assert found[0] == pytest.approx(
        once + 2 * scores + loop, rel=0.02
    )  # rotary angles are a small product too


def test_a_family_with_two_stacks_and_a_module_of_no_family_are_counted() -> None:
    torch.manual_seed(0)
    found = counted_flops(loopscope.adapt(hrm().eval()), IDS % 8, 4)
    assert len(found) == 4
    assert all(later > before > 0 for before, later in pairwise(found))


def test_what_cannot_be_run_is_not_counted() -> None:
    model = LoopedTransformer(recipe("laptop", "dense/raw", OVER).model).eval()

    def refuse(*given: Any) -> Any:
        raise RuntimeError("not by plain products")

    model.core = refuse  # type: ignore[method-assign]
    assert counted_flops(model, IDS, 2) == ()
