"""A verdict and what is said beside it: why, of side states, of the input, of where a model ends, of declarations."""

from collections.abc import Sequence

import torch

from loopscope.audit.declared import wrong_declarations
from loopscope.audit.fast_verdict import fast_verdict
from loopscope.audit.input_checks import notes_on
from loopscope.audit.model_end import of_no_further_loop
from loopscope.audit.prepared_batch import PreparedBatch
from loopscope.audit.side_scales import measure_side_scales, side_sentences
from loopscope.audit.verdict import (
    check_not_saturated,
    loop_verdicts,
    model_verdict,
    saturated_loops,
    why,
    worst_verdict,
)
from loopscope.numerics import scale
from loopscope.objectives.objective import Objective
from loopscope.recurrence import LoopState
from loopscope.results import Carry, Judgement, LoopVerdict, LoopVisibility


def fast_judgement(
    batch: PreparedBatch, objective: Objective, states: Sequence[LoopState], carried: Sequence[Carry]
) -> Judgement:
    """Judge by what `fast_verdict` measures; `carried` are `fast_carries`.

    Raises:
        ValueError: a loss of exactly 0 shows nothing.
    """
    found = fast_verdict(states, objective, batch.labels, carried)
    check_not_saturated(found.saturated)
    return _judgement(batch, objective, states, found.seen, found.loops)


def whole_judgement(
    batch: PreparedBatch,
    objective: Objective,
    states: Sequence[LoopState],
    seen: Sequence[LoopVisibility],
    carried: Sequence[Carry],
) -> Judgement:
    """Judge by what a whole audit has measured. Raises as `fast_judgement` does."""
    loops = loop_verdicts(seen, carried)
    if model_verdict(loops) in ("blind", "damped"):
        with torch.no_grad():
            check_not_saturated(saturated_loops(seen, objective.split(states, batch.labels)))
    return _judgement(batch, objective, states, seen, loops)


def _judgement(
    batch: PreparedBatch,
    objective: Objective,
    states: Sequence[LoopState],
    seen: Sequence[LoopVisibility],
    loops: Sequence[LoopVerdict],
) -> Judgement:
    verdict = model_verdict(loops)
    beside = measure_side_scales(states, objective, batch.labels)
    said = side_sentences(beside)
    worst = worst_verdict([verdict, *(row.status for row in beside)])
    louder = {row.name for row in beside if row.status == worst != verdict}  # what the verdict is of
    terms = tuple(dict.fromkeys(path.split("/")[0] for loop in seen for path in loop.direct))
    reason = why(loops, seen, terms, batch.model.readout_name)
    return Judgement(
        verdict=worst,
        why=" ".join([*(said[name] for name in sorted(louder)), reason]),
        objective=objective.name,
        terms=terms,
        loops=tuple(loops),
        rms=tuple(float(scale(state.hidden).mean()) for state in states),
        side_scales=tuple(beside),
        notes=(
            *batch.notes,
            *notes_on(states, batch.labels),
            *of_no_further_loop(states, loops),
            *wrong_declarations(states, objective.placement),
            *(sentence for name, sentence in said.items() if name not in louder),
        ),
    )
