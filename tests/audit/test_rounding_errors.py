"""Which outcome an error comes to where the state shrinks, comes back, stalls, or leaves a format's range."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import loopscope
from loopscope.audit.rounding import measure_rounding
from loopscope.audit.rounding_errors import RoundedRun
from loopscope.audit.rounding_verdict import judge_rounding
from loopscope.audit.rounding_why import adds_up
from loopscope.evaluation import prognose
from loopscope.recurrence import LoopContext
from loopscope.results import LoopDynamics, RoundedLoop, Rounding
from tests.audit.toy_maps import DIM, TOKENS, Toy, rounding

LOOPS = 32


def turn() -> Tensor:
    """A rotation, by up to 0.9 a loop."""
    random = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(4))
    turned: Tensor = torch.matrix_exp(0.15 * (random - random.T))
    return turned


class Normed(Toy):
    """Its readout divides by the state's size."""

    def readout(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return F.normalize(hidden.float(), dim=-1).to(hidden.dtype)


def test_an_error_is_judged_by_what_it_does_to_exits_whatever_the_scale_does() -> None:
    """H goes to c R H: exits, and the error of their direction, do not depend on c."""

    def at(factor: float) -> Rounding:
        model = Normed(lambda m, h, loop, context: factor * (h @ m.matrix.T), matrix=turn(), loops=8)
        return rounding(model, "int8", LOOPS)

    same, shrinking, growing = at(1.0), at(0.8), at(1.3)
    for found in (shrinking, growing):
        assert found.loops[-1].direction == pytest.approx(same.loops[-1].direction, rel=1e-3)
    assert [found.outcome for found in (same, shrinking, growing)] == ["grows"] * 3


def test_a_state_that_comes_back_to_its_start_keeps_its_error() -> None:
    found = rounding(Toy(lambda m, h, loop, context: -h), "bf16")
    assert found.outcome == "stays"
    assert found.loops[3].added == pytest.approx(found.loops[0].added)


def test_a_sum_that_stalls_at_once_grows_and_says_from_which_loop_on() -> None:
    """256 + 1 is 256 in bf16, and what is missing grows with every loop."""
    counting = Toy(lambda m, h, loop, context: h + 1, start=torch.full((DIM,), 256.0))
    found = rounding(counting, "bf16", LOOPS)
    assert [row.stalled for row in found.loops] == [1.0] * LOOPS
    assert found.outcome == "grows"
    assert found.loops[-1].state == pytest.approx(LOOPS / (256 + LOOPS))
    assert "At loop 1 100 % of the channels no longer move in bf16" in found.why
    assert "over what the loops add" not in found.why


def test_a_state_below_the_smallest_number_of_a_format_breaks_it() -> None:
    found = rounding(Normed(lambda m, h, loop, context: h / 2), "fp16", LOOPS)
    assert found.outcome == "breaks"
    assert "of the tokens is zeros at loop" in found.why
    assert "no longer move" not in found.why


def test_a_readout_of_zeros_in_fp32_is_not_blamed_on_a_format() -> None:
    class Silent(Toy):
        def readout(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            return 0 * hidden

    assert rounding(Silent(lambda m, h, loop, context: h + 1), "fp16").outcome != "breaks"


@pytest.mark.parametrize(("steepness", "rate"), [(3.0, True), (8.0, False)])
def test_an_error_that_is_soon_as_large_as_the_state_grows_though_it_has_no_rate(
    steepness: float, rate: bool
) -> None:
    model = Toy(lambda m, h, loop, context: torch.sin(steepness * (h @ m.matrix.T)), matrix=turn())
    found = rounding(model, "int8", 12)
    assert found.loops[0].state < 0.1
    assert found.loops[-1].state > 1
    assert found.outcome == "grows"
    assert (found.growth is not None) == rate
    assert ("too soon to say how fast" in found.why) != rate
    assert "Too few loops" not in found.why


def test_a_scale_that_grows_by_a_factor_stiffens_nothing() -> None:
    found = rounding(Toy(lambda m, h, loop, context: 2 * h), "bf16")
    assert found.outcome == "stays"
    assert "stiffens" not in found.why


def test_an_error_that_is_none_is_said_to_be_none() -> None:
    found = rounding(Toy(lambda m, h, loop, context: (h @ m.matrix.T) / 2), "int8")
    assert found.outcome == "stays"
    assert "The format holds these numbers." in found.why
    assert "errors are forgotten" not in found.why


def test_exits_that_lose_and_win_again_are_counted() -> None:
    def said(excess: Sequence[float]) -> str:
        rows = [
            RoundedLoop(k, 0.1, 0.1, 0.1, 1.0, each, 0.0, 0.0, 0.0) for k, each in enumerate(excess, start=1)
        ]
        errors = torch.full((len(rows), 5), 0.1)
        return judge_rounding("int8", RoundedRun(tuple(rows), errors, errors), [1.0] * len(rows), []).why

    assert "From loop 2 on the exit loses 1 %" in said([0.0, 0.02, 0.03, 0.04])
    assert "2 of 4 exits lose 1 % of perplexity or more, the first at loop 2." in said([0.0, 0.02, 0.0, 0.04])
    assert "Exit 4 loses 1 %" in said([0.0, 0.0, 0.0, 0.04])
    assert "No exit to loop 4 loses" in said([0.0] * 4)


@pytest.mark.parametrize(
    ("scales", "stiffens"),
    [
        ([1.0 + k for k in range(16)], True),
        ([0.3, *[1.15] * 15], False),
        ([2.0**k for k in range(16)], False),
    ],
)
def test_a_direction_stiffens_where_a_scale_goes_on_growing_by_amounts(
    scales: list[float], stiffens: bool
) -> None:
    rows = [RoundedLoop(k, 0.1, 0.1, 0.1, 1.0, 0.0, 0.0, 0.0, 0.0) for k in range(1, 17)]
    errors = torch.full((16, 5), 0.1)
    found = judge_rounding("int8", RoundedRun(tuple(rows), errors, errors), scales, [])
    assert ("the direction stiffens" in found.why) == stiffens


def test_a_map_that_shrinks_state_and_error_alike_forgets_nothing() -> None:
    dynamics = [LoopDynamics(k, 0.8, 0.8, 0.8, True) for k in (1, 2)]
    rows = [RoundedLoop(k, 0.1, 0.1, 0.1, 1.0, 0.0, 0.0, 0.0, 0.0) for k in range(1, 9)]
    errors = torch.full((8, 5), 0.1)
    for shrink, forgets in ((0.8, False), (1.0, True)):
        scales = [shrink**k for k in range(8)]
        found = judge_rounding("int8", RoundedRun(tuple(rows), errors, errors), scales, dynamics)
        assert ("errors are forgotten" in found.why) == forgets


def test_one_token_does_not_say_how_sure_its_growth_is() -> None:
    model = Toy(lambda m, h, loop, context: h @ m.matrix.T, matrix=turn())
    one = torch.tensor([[3]])
    (found,) = measure_rounding(model.eval(), one, one, ["int8"], LOOPS)
    assert (found.outcome, found.growth_interval, found.tokens) == ("stays", None, 1)
    assert "One token does not say how sure that is." in found.why


def test_sequences_without_a_label_are_passed_over() -> None:
    model = Toy(lambda m, h, loop, context: h + h @ m.matrix.T, matrix=turn()).eval()
    texts = torch.arange(1536).view(3, 512) % 12
    labels = texts.clone()
    labels[0] = -100
    (found,) = measure_rounding(model, texts, labels, ["bf16"], 4)
    (second,) = measure_rounding(model, texts[1:2], labels[1:2], ["bf16"], 4)
    assert found == second
    (none,) = measure_rounding(model, texts[:1], labels[:1], ["bf16"], 4)
    assert (none.outcome, none.why) == ("not measured", "No token has a label.")


class Drawing(Toy):
    """A random start, and noise in every loop, in whatever type the model is."""

    def embed(self, input_ids: Tensor) -> Tensor:
        rows = self.table[input_ids]
        return rows + torch.randn(rows.shape, dtype=rows.dtype)

    def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return (hidden + hidden @ self.matrix.T) / 2 + 0.1 * torch.randn_like(hidden)


class DrawingElsewhere(Drawing):
    """With numpy, and from the second loop on alone."""

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.table[input_ids]

    def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        later = (hidden + hidden @ self.matrix.T) / 2
        if loop < 2:
            return later
        noise = torch.from_numpy(np.random.randn(*hidden.shape)).to(hidden.dtype)
        return later + 0.1 * noise


def test_it_draws_the_same_whoever_draws_and_in_whichever_loop() -> None:
    model = DrawingElsewhere(lambda m, h, loop, context: h, matrix=turn())
    before = repr(np.random.get_state())
    found = rounding(model, "bf16")
    assert repr(np.random.get_state()) == before
    assert 0 < max(row.state for row in found.loops) < 0.02


def test_an_audit_leaves_random_numbers_as_they_were() -> None:
    model = Drawing(lambda m, h, loop, context: h, matrix=turn())
    before = torch.get_rng_state()
    loopscope.audit(model, TOKENS, TOKENS)
    prognose(model, TOKENS, TOKENS)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("name", "most"), [("bf16", 0.02), ("fp16", 0.002), ("int8", 0.05)])
def test_a_model_that_draws_random_numbers_draws_the_same_in_every_format(name: str, most: float) -> None:
    model = Drawing(lambda m, h, loop, context: h, matrix=turn())
    before = torch.get_rng_state()
    found = rounding(model, name)
    assert torch.equal(torch.get_rng_state(), before)
    assert 0 < max(row.state for row in found.loops) < most


class InBuffers(Toy):
    """Without a single parameter."""

    def __init__(self) -> None:
        super().__init__(lambda m, h, loop, context: h @ m.matrix.T, matrix=turn())
        for name in ("table", "matrix"):
            values = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, values)


def test_a_model_without_parameters_is_rounded_in_its_buffers() -> None:
    found = rounding(InBuffers(), "bf16")
    assert 1e-3 < found.loops[0].state < 0.02
    assert rounding(InBuffers(), "int8").outcome == "not measured"


def test_autocast_of_a_model_in_fp64_is_not_measured() -> None:
    model = Toy(lambda m, h, loop, context: h @ m.matrix.T, matrix=turn()).double()
    assert rounding(model, "bf16-autocast").why.startswith("It computes in fp64")
    assert rounding(model, "bf16").outcome != "not measured"


def test_what_adds_up_is_asked_of_errors_that_are_free_to_grow() -> None:
    """An error that fills the state at loop 3 has grown no more than the number of loops at loop 12."""
    states = (0.17, 0.49, 0.93, *(1.3,) * 9)
    rows = [
        RoundedLoop(k, each, each, each, 1.0, 0.0, 0.0, 0.0, 0.0) for k, each in enumerate(states, start=1)
    ]
    assert not adds_up(rows)
    slowly = [RoundedLoop(k, 0.01 * k, 0.01 * k, 0.01, 1.0, 0.0, 0.0, 0.0, 0.0) for k in range(1, 13)]
    assert adds_up(slowly)


def test_weights_of_a_convolution_are_rounded_as_those_of_a_linear_map() -> None:
    class Convolving(Toy):
        def __init__(self) -> None:
            super().__init__(lambda m, h, loop, context: h, matrix=turn())
            self.convolution = nn.Conv1d(DIM, DIM, 1, bias=False)
            self.convolution.weight.data.copy_(turn()[..., None])
            del self.matrix

        def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            return self.convolution(hidden.mT).mT

    linear = rounding(Toy(lambda m, h, loop, context: h @ m.matrix.T, matrix=turn()), "int4")
    convolution = rounding(Convolving(), "int4")
    assert linear.loops[0].state > 0.02
    assert convolution.loops[-1].state == pytest.approx(linear.loops[-1].state, rel=1e-4)
