"""Exits that a long unroll cannot read off its own forward: what the head reads is that of as many loops."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.audit.verdict import model_verdict
from loopscope.cli.evaluate_depth_print import print_curves
from loopscope.evaluation import depth_curves
from loopscope.recurrence import unroll
from loopscope.report.evaluations.depth import quality
from loopscope.report.evaluations.groups import make_groups
from loopscope.report.looks import Looks
from loopscope.results import ModelEvaluation
from tests.interop.fixtures import IDS, LABELS, Plain, build
from tests.interop.lookalikes import LoopFormer, MixtureOfRecursions


class Counted(Plain):
    """A depth that the forward takes as an argument."""

    def forward(self, ids: Tensor, loops: int | None = None) -> Any:
        return self.lm_head(self.norm(self.read(self.tokens(ids), loops or self.config.loops)))

    def read(self, x: Tensor, loops: int) -> Tensor:
        raise NotImplementedError


class Summed(Counted):
    """The head reads a weighted sum of all loops' states, as adaptive computation time does."""

    def read(self, x: Tensor, loops: int) -> Tensor:
        total = torch.zeros_like(x)
        for loop in range(loops):
            x = self.stack(x)
            total = total + 0.5**loop * x
        return total


class Branched(Counted):
    """The block is one branch of a stream."""

    def read(self, x: Tensor, loops: int) -> Tensor:
        for _ in range(loops):
            x = x + self.stack(x)
        return x


class Restarting(Counted):
    """Every loop starts from the same state; the loop before reaches it, and the head, by what is inside the loop."""

    def read(self, x: Tensor, loops: int) -> Tensor:
        state = middle = torch.zeros_like(x)
        for _ in range(loops):
            message = self.between(state) + self.between(middle)
            middle = self.layers[0](x + message)
            state = self.layers[1](middle + message)
        return self.between(state) + middle


@pytest.mark.parametrize(
    ("kind", "verdict"), [(Summed, "visible"), (Branched, "visible"), (Restarting, "removed")]
)
@pytest.mark.filterwarnings("ignore:what follows loop 2")
def test_exits_of_one_unroll_are_those_of_as_many_loops(kind: type[Counted], verdict: str) -> None:
    module = build(kind)
    model: Any = loopscope.wrap(module, "layers", set_loops="loops")
    assert model.reads_by_depth
    with torch.no_grad():
        for state in unroll(model, IDS, 6):
            assert torch.allclose(state.logits(), module(IDS, state.loop), atol=1e-5)
    assert {loop.status for loop in judge(model, IDS, LABELS).loops} == {verdict}


@pytest.mark.filterwarnings("ignore:what follows loop 2")
def test_tokens_that_leave_keep_their_state() -> None:
    module = build(MixtureOfRecursions)
    model = loopscope.wrap(module, "shared_blocks", set_loops="num_recursions")
    with torch.no_grad():
        own = {}
        for depth in range(1, 7):
            module.num_recursions = depth
            own[depth] = module(IDS).logits
        module.num_recursions = 3
        for state in unroll(model, IDS, 6):
            assert torch.allclose(state.logits(), own[state.loop], atol=1e-5)
    # Of a token that left, nothing is carried on: the mean over tokens is below 1.
    assert model_verdict(judge(model, IDS, LABELS).loops) == "blind"


def test_a_sum_over_loops_needs_a_way_to_set_them() -> None:
    with pytest.raises(ValueError, match="Name what sets the number of loops with set_loops"):
        loopscope.wrap(build(Summed), "layers")


@pytest.mark.parametrize("readout", ["norm", None])
def test_one_that_has_it_is_asked_for_what_is_left(readout: str | None) -> None:
    with pytest.raises(
        ValueError, match="Leave readout out, so that the forward is followed to its head: an exit"
    ):
        loopscope.wrap(build(Summed), "layers", readout=readout, set_loops="loops")
    with pytest.raises(
        ValueError, match="Leave readout out, .*, and name what sets the number of loops with set_l"
    ):
        loopscope.wrap(build(Summed), "layers", readout=readout)


def test_a_positional_argument_is_found_by_its_name() -> None:
    """Also while its calls are being recorded."""

    class Second(Plain):
        class Step(nn.Module):
            def __init__(self, stack: Any) -> None:
                super().__init__()
                self.stack = [stack]

            def forward(self, table: Tensor, state: Tensor) -> Tensor:
                return self.stack[0](state + table)

        def __init__(self) -> None:
            super().__init__()
            self.step = self.Step(self.stack)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.tokens(ids)
            table = 0.1 * torch.ones_like(x)
            for _ in range(self.config.loops):
                x = self.step(table, x)
            return self.lm_head(self.norm(x))

    module = build(Second)
    assert torch.allclose(loopscope.wrap(module, "step", hidden="state")(IDS), module(IDS), atol=1e-5)


def test_exits_on_the_way_are_announced_where_the_depth_changes_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model that knows its depth: what audits, curves and exits print says whose exits they are."""
    model = loopscope.adapt(build(LoopFormer))
    assert model.depth_conditioned
    ids, labels = IDS[:, :8], LABELS[:, :8]
    (note,) = [note for note in loopscope.audit(model, ids, labels).notes if "how many loops are run" in note]
    assert f"exits on the way of a run of {model.loops}" in note
    curves = depth_curves(model, [(ids, labels)], 1.0, 3)
    names = {"name": "m", "condition": None, "size": None, "seed": None, "trained_loops": model.loops}
    about = {"parameters": 1, "data": "text", "bytes_per_token": 1.0, "windows": 2, "sequence": 8}
    evaluation = ModelEvaluation(**names, **about, depth=curves, depth_conditioned=True)
    for record, said in ((evaluation, True), (replace(evaluation, depth_conditioned=False), False)):
        print_curves(record)
        printed = " ".join(capsys.readouterr().out.split())
        assert ("every depth was run by itself" in printed) is said
    groups = make_groups([evaluation], [], None, Looks([("m", None)]))
    assert "The states of m depend on how many loops are run" in quality(groups).caption
