"""Rounding: the same weights and tokens in another number format, against fp32, loop by loop past the trained depth.

Of the first sequences only, so that the price does not grow with the batch. The fp32 states are kept for the
comparison (`ROUNDED_TOKENS` of each loop, one copy for all formats), the other run streams. A model that draws random
numbers draws the same in every format.

    reference    `rounding_reference`: the fp32 run
    format       `number_formats`: the weights in another format for a while
    errors       `rounding_errors`: every loop's, against the reference
    verdict      `rounding_verdict`, from how fast they change (`rounding_rate`), with reasons (`rounding_why`)
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.audit.model_end import as_far_as_it_runs, depth_that_runs, why_no_further
from loopscope.audit.number_formats import (
    FORMATS,
    check_formats,
    copies_are_large,
    in_format,
    is_exact,
    shared_matrices,
)
from loopscope.audit.rounding_errors import RoundedRun, compared
from loopscope.audit.rounding_reference import ReferenceRun, rounded_rows
from loopscope.audit.rounding_verdict import judge_rounding
from loopscope.audit.same_draws import Draws, draws_of, same_draws
from loopscope.recurrence import AbstractLoopedLM, unroll
from loopscope.recurrence.model_errors import NOT_FINITE, first_line
from loopscope.results import LoopDynamics, Rounding
from loopscope.wide_weights import is_narrow


def measure_rounding(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
    formats: Sequence[str],
    loops: int,
    dynamics: Sequence[LoopDynamics] = (),
    reference: ReferenceRun | None = None,
    draws: bool | None = None,
) -> list[Rounding]:
    """Run a model in other number formats and say what becomes of the error, format by format.

    Args:
        model: in evaluation mode and in fp32, by copies or at use (`wide_weights`). It is left as it was.
        labels: the token that follows each input token; -100 is not counted.
        formats: names of `number_formats.FORMATS`.
        loops: how deep, also past the trained depth.
        dynamics: of the same model, where known: what a loop does to a small change, for the sentence of why.
        reference: the fp32 run, of an unroll of this batch that was made for something else, too. A model that draws
            random numbers is run again.
        draws: whether its loops draw random numbers; None: that is found out with the first sequence.

    Returns:
        One record per format. A format that the machine or the model cannot run in is `not measured`, and says why.

    Raises:
        ValueError: a name that is no format's.
    """
    formats = check_formats(formats)
    if not formats:
        return []
    rows = rounded_rows(labels)
    if not rows:
        return [Rounding(name, "not measured", "No token has a label.") for name in formats]
    ids, labels = input_ids[rows], labels[rows]
    drawn = draws_of(model, ids, draws)
    if reference is None or drawn is not None:
        loops = depth_that_runs(model, ids, loops)
        reference = ReferenceRun(labels, range(len(rows)), loops)
        with _draws(drawn):
            for state in as_far_as_it_runs(unroll(model, ids, loops), model.loops):
                if not reference.see(state):
                    break
    if not reference.states:
        why = f"At loop 1 already the model {NOT_FINITE}: there is nothing to compare with."
        return [Rounding(name, "not measured", why) for name in formats]
    if is_narrow(reference.states[0]):
        why = "The model's own state is in half precision: there is nothing finer to compare with. Audit it in fp32."
        return [Rounding(name, "not measured", why) for name in formats]
    with _draws(drawn):
        shared = _shared(model, ids, formats)
    comparison = _Comparison(model, ids, labels, reference, drawn, shared)
    return [_of_format(comparison, name, dynamics) for name in formats]


@dataclass(frozen=True)
class _Comparison:
    """What every format is tried on: a model, texts, their fp32 run, its random numbers, the matrices of its loops."""

    model: AbstractLoopedLM
    ids: Int[Tensor, "batch seq"]
    labels: Int[Tensor, "batch seq"]
    reference: ReferenceRun
    drawn: Draws | None
    shared: Mapping[int, int]


def _draws(drawn: Draws | None) -> AbstractContextManager[None]:
    return nullcontext() if drawn is None else same_draws(drawn)


def _shared(model: AbstractLoopedLM, ids: Tensor, formats: Sequence[str]) -> dict[int, int]:
    """The matrices that loops apply to these texts; none where no format rounds them alone.

    Of a mixture, experts that any token is sent to in any loop.
    """
    if all(FORMATS[name].to_format is None for name in formats):
        return {}
    with torch.no_grad():
        states = unroll(model, ids)
        looked_at = list(states) if model.stateless else [next(iter(states))]
    if len(looked_at) > 1:  # it need not run past its last loop
        looked_at.pop()
    elif why_no_further(looked_at[0]) is not None:
        return {}
    return {key: axis for state in looked_at for key, axis in shared_matrices(state).items()}


def _of_format(comparison: _Comparison, name: str, dynamics: Sequence[LoopDynamics]) -> Rounding:
    if (refused := _refused(comparison, name)) is not None:
        return Rounding(name, "not measured", refused)
    try:
        measured = _measured(comparison, name)
    except Exception as error:  # whatever a stranger's forward, or this machine, says of a type
        return Rounding(name, "not measured", f"The model does not run in {name} here: {first_line(error)}")
    if measured is None:
        why = f"Rounding its shared matrices to {name} changes nothing: it reaches its weights in a way of its own."
        return Rounding(name, "not measured", why)
    found = judge_rounding(
        name, measured, comparison.reference.scales, dynamics, comparison.reference.reads_scale
    )
    if (last := len(measured.loops)) < comparison.reference.depth:
        end = "does not run" if comparison.reference.finite else NOT_FINITE
        return replace(found, why=f"{found.why} Beyond loop {last} the model {end}.")
    return found


def _refused(comparison: _Comparison, name: str) -> str | None:
    """Why a format is not tried on a model; None where it is."""
    chosen, reference = FORMATS[name], comparison.reference
    if chosen.autocast and reference.states[0].dtype == torch.float64:
        return "It computes in fp64, which autocast leaves as it is. Load it in fp32."
    if chosen.to_format is None:
        return None
    if any(parameter.is_meta for parameter in comparison.model.parameters()):
        return (
            f"Some weights are elsewhere until they are used, and {name} has to know which matrices every loop "
            "applies: load the model whole. bf16, fp16 and bf16-autocast can be measured as it is."
        )
    if not comparison.shared:
        return "No matrix that every loop applies was found: its weights are not parameters, or take no gradient."
    return None


def _measured(comparison: _Comparison, name: str) -> RoundedRun | None:
    """Every loop in a format; None where matrices of its loops became others, and the model did not see it.

    A forward may want its buffers in the type of its weights, or reach these in a way of its own: ways are tried until
    one runs, and something differs.
    """
    model, matrices = comparison.model, FORMATS[name].to_format is not None
    first = not copies_are_large(model, name)
    ways = [
        (copies, buffers)
        for copies in (first, not first)
        for buffers in ((False,) if matrices else (False, True))
    ]
    same: RoundedRun | None = None
    failed: Exception | None = None
    for copies, buffers in ways:
        try:
            with in_format(model, name, comparison.shared, buffers, copies), _draws(comparison.drawn):
                found = compared(model, comparison.ids, comparison.labels, comparison.reference)
        except Exception as error:  # whatever a stranger's forward says of a type
            failed = failed or error
            continue
        if found.differs():
            return found
        same = same or found
    if same is None and failed is not None:
        raise failed
    return same if not matrices or is_exact(model, name, comparison.shared) else None
