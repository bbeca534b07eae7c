"""Rounding against maps whose rounding is known in closed form, and what is refused or said."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import loopscope
from loopscope.audit.number_formats import check_formats
from loopscope.audit.rounding import measure_rounding
from loopscope.audit.rounding_errors import RoundedRun
from loopscope.audit.rounding_verdict import judge_rounding
from loopscope.audit.same_draws import Draws
from loopscope.recurrence import LoopContext
from loopscope.recurrence.model_errors import NOT_FINITE
from loopscope.results import LoopDynamics, RoundedLoop, audits_from_json, to_json
from loopscope.results.audits import AuditedModel, audit_values
from loopscope.results.origin import provenance
from tests.audit.fixtures import IDS, LABELS, audit, make
from tests.audit.toy_maps import DIM, TOKENS, Toy, basis, rounding, through_matrix


def test_a_bf16_sum_of_ones_stalls_at_256() -> None:
    """bf16 has 8 bits of mantissa: 256 + 1 is half of a last digit, and rounds back to even."""
    counting = Toy(lambda model, h, loop, context: h + 1, start=torch.zeros(DIM), loops=75)
    found = rounding(counting, "bf16")
    assert len(found.loops) == 300
    assert [row.state for row in found.loops[:256]] == [0.0] * 256
    assert max(row.stalled for row in found.loops[:256]) == 0.0
    assert [row.stalled for row in found.loops[256:]] == [1.0] * 44
    assert found.loops[-1].state == pytest.approx(44 / 300)
    assert found.outcome == "grows"  # once it has begun
    assert "At loop 257 100 % of the channels no longer move in bf16" in found.why


def test_a_sum_that_grows_keeps_its_error_whatever_the_start() -> None:
    """H_k = e + k·M e: the share that is wrong is that of M, at every loop; beside a large e it seems to grow."""
    matrix = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(1)) / DIM
    model = Toy(lambda m, h, loop, context: h + context.embedded @ m.matrix.T, matrix=matrix)
    found = rounding(model, "int4")
    assert found.outcome == "stays"
    assert found.growth == pytest.approx(0, abs=1e-5)
    assert found.loops[15].added == pytest.approx(found.loops[0].added, rel=1e-4)
    assert found.loops[15].state > 2 * found.loops[0].state
    assert "the direction stiffens" in found.why


def test_a_contraction_to_a_fixed_point_keeps_its_error() -> None:
    matrix, _ = basis(torch.linspace(0.1, 0.5, DIM))
    model = Toy(lambda m, h, loop, context: h @ m.matrix.T + context.embedded, matrix=matrix)
    found = rounding(model, "int8")
    assert found.outcome == "stays"
    assert found.loops[15].state == pytest.approx(found.loops[9].state, rel=3e-3)


@pytest.mark.parametrize("name", ["bf16", "fp16", "bf16-autocast", "int8", "int4", "fp8"])
def test_a_contraction_forgets_in_every_format(name: str) -> None:
    """Of an error e a loop leaves 0.6 e at most, so that they sum up to 2.5 e, and that is all."""
    matrix, _ = basis(torch.linspace(0.1, 0.6, DIM))
    model = Toy(lambda m, h, loop, context: h @ m.matrix.T + context.embedded, matrix=matrix)
    (found,) = loopscope.audit(model, IDS % 12, LABELS % 12, rounding=name).rounding
    assert found.outcome == "stays"
    assert found.loops[15].added <= 2.5 * max(row.added for row in found.loops[:2])
    assert "errors are forgotten as new ones come" in found.why
    assert "adds up" not in found.why


def test_what_is_lost_by_both_is_not_called_unmoved() -> None:
    """Infinity equals itself: a channel that has left fp16's numbers does not stand still."""
    found = rounding(Toy(lambda m, h, loop, context: 8 * h, start=torch.ones(DIM)), "fp16")
    assert found.loops[8].overflowed == 1.0
    assert found.loops[8].stalled == 0.0
    assert "no longer move" not in found.why


def test_an_error_that_a_stiff_direction_leaves_behind_is_said_to_shrink() -> None:
    found = rounding(Toy(lambda m, h, loop, context: h + 300, start=torch.ones(DIM)), "bf16", loops=40)
    assert ("keeps its share" in found.why) == (found.outcome == "stays")
    assert ("becomes a smaller share" in found.why) == (found.outcome == "dies out")


def test_a_readout_that_reads_a_growing_scale_is_named() -> None:
    """What is wrong of H is a share of it, and what reaches a raw readout grows with the scale."""

    class Raw(Toy):
        def readout(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            return hidden

    class Normed(Toy):
        def readout(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            return F.normalize(hidden, dim=-1)

    matrix, _ = basis(torch.linspace(0.5, 1.4, DIM))
    raw, normed = (rounding(kind(through_matrix, matrix=matrix), "int8", loops=24) for kind in (Raw, Normed))
    assert raw.loops[-1].state == pytest.approx(normed.loops[-1].state)
    assert raw.lost_at is not None
    assert normed.lost_at is None
    assert "and the readout reads it" in raw.why
    assert "reads it" not in normed.why


def test_an_error_made_once_dies_out_in_a_contraction() -> None:
    """Only loop 1 goes through the matrix; from then on H goes half of the way to 2 at every loop."""

    def step(model: Toy, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return hidden @ model.matrix.T if loop == 1 else 0.5 * hidden + 1

    class Once(Toy):
        def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            mapped = hidden @ self.matrix.T
            return mapped if loop == 1 else 0.5 * hidden + 1 + 0 * mapped

    matrix = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(1))
    found = rounding(Once(step, matrix=matrix), "int4", loops=12)
    assert found.outcome == "dies out"
    assert found.growth == pytest.approx(math.log(0.5), rel=0.02)
    assert "halves every 1.0 loops" in found.why


@pytest.mark.parametrize("name", ["bf16", "int8"])
def test_a_stretched_direction_amplifies_at_its_own_rate(name: str) -> None:
    """The state rests on an eigenvector of 1; what rounding puts on that of 1.5 grows 1.5 times a loop."""
    values = torch.cat([torch.tensor([1.5, 1.0]), torch.linspace(0.0, 0.5, DIM - 2)])
    matrix, vectors = basis(values)
    found = rounding(Toy(through_matrix, start=4 * vectors[:, 1], matrix=matrix), name, loops=14)
    assert found.outcome == "grows"
    assert found.growth == pytest.approx(math.log(1.5), rel=0.1)
    assert found.growth_interval is not None
    assert found.power is None
    assert max(row.stalled for row in found.loops) < 0.5  # fp32's own rounding is no move
    assert "doubles every 1." in found.why


def test_a_norm_that_squares_in_fp16_returns_zeros_and_says_so() -> None:
    class Narrow(Toy):
        def readout(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            return hidden * torch.rsqrt(hidden.square().mean(dim=-1, keepdim=True))

    found = rounding(Narrow(lambda m, h, loop, context: h + 100, start=torch.zeros(DIM)), "fp16")
    assert found.outcome == "breaks"
    assert found.broken_at == 3  # 300² is beyond 65,504
    assert found.loops[1].emptied == 0
    assert "zeros at loop 3, without an error" in found.why


def run_of(rows: Sequence[RoundedLoop], tokens: int = 5) -> RoundedRun:
    """A run whose tokens are all alike."""
    added, state = (
        torch.tensor([getattr(row, name) for row in rows])[:, None].expand(-1, tokens)
        for name in ("added", "state")
    )
    return RoundedRun(tuple(rows), added, state)


def test_a_format_that_is_too_coarse_for_the_model_is_blamed_and_not_its_loops() -> None:
    level = [RoundedLoop(loop, 0.26, 0.3, 0.25, 4.4, 0.34, 0.0, 0.0, 0.0) for loop in range(1, 9)]
    stretching = [LoopDynamics(1, 1.9, 0.5, 1.8, True)]
    found = judge_rounding("int4", run_of(level), [1.0] * 8, stretching)
    assert (found.outcome, found.broken_at, found.lost_at) == ("breaks", 1, 1)
    assert found.why.endswith("that is the format, not the loops.")
    adding = [
        replace(row, state=0.02 * row.loop, added=0.02 * row.loop, excess=0.02 * row.loop) for row in level
    ]
    found = judge_rounding("int4", run_of(adding), [1.0] * 8, stretching)
    assert "The same error is made again in every loop, and that adds up" in found.why
    rising = [replace(row, added=0.01 * 1.5**row.loop) for row in adding]
    found = judge_rounding("int4", run_of(rising), [1.0] * 8, stretching)
    assert (found.outcome, found.broken_at, found.lost_at) == ("breaks", 5, 1)
    assert "a loop stretches a small change (up to 1.80 times)" in found.why


def test_an_overflow_breaks_where_it_comes() -> None:
    found = rounding(Toy(lambda m, h, loop, context: 8 * h, start=torch.ones(DIM)), "fp16")
    assert found.outcome == "breaks"
    assert found.broken_at == 6  # 8⁶ is 262,144
    assert "not finite from loop 6 on" in found.why


def test_what_fp32_does_not_survive_is_not_blamed_on_a_format() -> None:
    dying = Toy(lambda m, h, loop, context: 1e9 * h, start=torch.ones(DIM))
    found = rounding(dying, "bf16")
    assert [row.loop for row in found.loops] == [1, 2]  # (1e9)³ is a number of fp32, and its square is none
    assert found.outcome != "breaks"
    assert "without bound" not in found.why
    assert found.why.endswith(f"Beyond loop 2 the model {NOT_FINITE}.")
    gone = Toy(lambda m, h, loop, context: h / 0)
    assert rounding(gone, "bf16").outcome == "not measured"


def test_a_format_that_does_not_run_is_said() -> None:
    def only_fp32(model: Toy, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        if hidden.dtype != torch.float32:
            raise RuntimeError("no kernel for this type")
        return hidden

    found = rounding(Toy(only_fp32), "fp16")
    assert found.outcome == "not measured"
    assert found.why == "The model does not run in fp16 here: no kernel for this type"
    no_matrix = rounding(Toy(lambda m, h, loop, context: h + 1), "int8")
    assert no_matrix.outcome == "not measured"


def test_an_audit_tries_bf16_and_what_it_is_asked_for() -> None:
    report = audit(make())
    assert [tried.format for tried in report.rounding] == ["bf16"]
    assert len(report.rounding[0].loops) == 4 * len(report.loops)
    several = loopscope.audit(make(), IDS, LABELS, "dense", rounding="int8, fp8,bf16-autocast,int8")
    assert [tried.format for tried in several.rounding] == ["int8", "fp8", "bf16-autocast"]
    by_format = {tried.format: tried.loops[0].state for tried in several.rounding}
    assert by_format["int8"] < by_format["fp8"] < 0.2
    assert loopscope.audit(make(), IDS, LABELS, rounding="none").rounding == ()
    for nothing in ("", ",,", " "):
        with pytest.raises(ValueError, match="which names no format; name some of bf16, fp16"):
            loopscope.audit(make(), IDS, LABELS, rounding=nothing)
    with pytest.raises(ValueError, match="rounding is 'fp4'; it must be of bf16"):
        measure_rounding(make(), IDS, LABELS, ["fp4"], 4)
    with pytest.raises(ValueError, match="rounding is 'bf61'; it must be of bf16, fp16"):
        loopscope.audit(make(), IDS, LABELS, rounding="bf61")
    for wrong in (3, ("int8", None)):
        with pytest.raises(ValueError, match="it must be names of bf16"):
            check_formats(wrong)


def test_a_model_stored_in_bf16_and_padded_texts_are_measured_too() -> None:
    mask = torch.ones_like(IDS)
    mask[1, 8:] = 0
    report = loopscope.audit(make().bfloat16(), IDS, LABELS, "dense", mask)
    assert report.rounding[0].outcome != "not measured"
    assert report.rounding[0].tokens == IDS.shape[1]


def test_a_record_comes_back_from_json_and_reads_as_a_sentence() -> None:
    report = loopscope.audit(make(), IDS, LABELS, rounding="int4")
    kept = AuditedModel("toy", report, "given", (), "text", (2, 12), 1, {}, provenance("cpu", 1))
    (again,) = audits_from_json(to_json(audit_values(kept)))
    assert again.report.rounding == report.rounding
    assert report.rounding[0].why in " ".join(str(report).split())
    values: Any = json.loads(to_json(audit_values(kept)))
    del values["rounding"]  # one that an earlier version kept
    assert audits_from_json(json.dumps(values))[0].report.rounding == ()


def test_whole_precision_loses_nothing() -> None:
    """The way of comparing is exact: a matrix that int8 holds exactly gives no error at all."""
    steps = torch.randint(-127, 128, (DIM, DIM), generator=torch.Generator().manual_seed(2)).float()
    steps[:, 0] = 127
    model = Toy(lambda m, h, loop, context: F.normalize(h @ m.matrix.T, dim=-1), matrix=steps / 128)
    found = rounding(model, "int8")
    assert max(row.state for row in found.loops) < 1e-6
    assert found.outcome == "stays"


def test_one_loop_says_nothing_of_what_becomes_of_an_error() -> None:
    once = Toy(through_matrix, loops=1, matrix=basis(torch.linspace(0.1, 0.5, DIM))[0])
    (found,) = measure_rounding(once.eval(), TOKENS, TOKENS, ["int8"], 1)
    assert (found.outcome, found.growth, len(found.loops)) == ("stays", None, 1)
    assert "Too few loops" in found.why
    assert [len(each.loops) for each in measure_rounding(once, TOKENS, TOKENS, ["int8"], 4)] == [4]


def test_a_model_in_half_precision_that_nobody_widens_is_not_compared_with_itself() -> None:
    narrow = Toy(through_matrix).bfloat16().eval()
    (found,) = measure_rounding(narrow, TOKENS, TOKENS, ["bf16"], 4)
    assert found.outcome == "not measured"
    assert "nothing finer to compare with" in found.why


def test_a_run_that_was_made_for_drift_serves_as_well_as_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Checks of types draw Python's numbers, so that every model seems to draw in tests: here none does."""
    own = loopscope.audit(make(), IDS, LABELS, rounding="bf16,int8").rounding
    monkeypatch.setattr(Draws, "moved", lambda generators: False)
    shared = loopscope.audit(make(), IDS, LABELS, rounding="bf16,int8").rounding
    for one, other in zip(own, shared, strict=True):
        assert one.outcome == other.outcome
        for row, same in zip(one.loops, other.loops, strict=True):
            assert row.state == pytest.approx(same.state, rel=1e-3)
            assert row.excess == pytest.approx(same.excess, abs=1e-5)
