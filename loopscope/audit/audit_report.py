"""One audit: everything measured on one batch, as one record."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loopscope.audit.carry import measure_carries
from loopscope.audit.dynamics import measure_dynamics
from loopscope.audit.expansion import deeper, expansion_of
from loopscope.audit.fast_verdict import fast_carries
from loopscope.audit.interventions import final_scale_sweep, radial_clamp, rescale_each_loop
from loopscope.audit.judgement import fast_judgement, whole_judgement
from loopscope.audit.model_end import as_far_as_it_runs, depth_that_runs, of_an_end
from loopscope.audit.number_formats import check_formats
from loopscope.audit.prepared_batch import PreparedBatch, prepared
from loopscope.audit.remedies import try_remedies
from loopscope.audit.resting_scale import measure_resting_scale
from loopscope.audit.rounding import measure_rounding
from loopscope.audit.rounding_reference import ReferenceRun, rounded_rows
from loopscope.audit.same_draws import Draws
from loopscope.audit.tokens import token_norms
from loopscope.audit.total_visibility import whole_visibilities
from loopscope.audit.verdict import model_verdict
from loopscope.audit.visibility import readout_visibility
from loopscope.audit.wanted_weight import check_wanted_norm, wanted_scale
from loopscope.guards import device_of
from loopscope.machine_limits import give_back_freed
from loopscope.objectives.objective import Objective
from loopscope.objectives.spelling import as_objective
from loopscope.recurrence import LoopState
from loopscope.results import (
    ROUNDED_BY_DEFAULT,
    AuditReport,
    Carry,
    Clamped,
    Expansion,
    Judgement,
    LoopDynamics,
    LoopVisibility,
    Radial,
    Rounding,
    TokenNorms,
)

BEYOND = 4
"""Drift and rounding are followed to this many times the trained depth."""
RESCALED = 2.0
"""Factor by which each loop's state is multiplied to follow the effect on later exits."""


def audit(
    model: Any,
    input_ids: Any,
    labels: Any,
    objective: Any = None,
    attention_mask: Any = None,
    rounding: str | Sequence[str] | None = ROUNDED_BY_DEFAULT,
    wanted_norm: float | None = None,
) -> AuditReport:
    """Measure which loops carry a scale that no loss sees. Works in fp32, in evaluation mode.

    Costs about as much as a handful of training steps on the same batch, in time and in memory; memory does not
    grow with the depth to which drift is followed. The model is left as it was: mode, weights, gradients.

    Args:
        model: any looped model (`AbstractLoopedLM`); one in half precision is audited in fp32 copies of its
            weights, and the report says so.
        input_ids: token ids [batch seq]; a few thousand tokens are enough.
        labels: the token that follows each input token [batch seq]; -100 is not counted.
        objective: what the model was trained on: an `Objective`, an `ObjectiveConfig`, or a word (`"terminal"`,
            `"dense+norm_penalty=0.01"`). None judges dense cross-entropy without penalties.
        attention_mask: 1 at tokens, 0 at padding [batch seq], which may be left, right or both, not between tokens.
            Each row is measured as its text alone is; every mean is over tokens of texts, and no label of padding
            counts. None: no padding.
        rounding: number formats that the model is run in beside fp32 (`"bf16,fp16,bf16-autocast,int8,int4,fp8"`), on
            the first sequences, to four times the trained depth. `"none"` or None: no other.
        wanted_norm: the L2 norm that H is to have over all loops: the report names the weight of a norm penalty for it,
            and what it costs. None: no such size.

    Raises:
        ValueError: not a looped model, an objective or a format that is none, weights that are not finite, ids, labels
            or a mask that do not fit, a sequence that is too long, or tokens whose loss is exactly 0, so that no
            gradient shows what it sees.
    """
    return audit_each(model, input_ids, labels, [objective], attention_mask, rounding, wanted_norm)[0]


def audit_each(
    model: Any,
    input_ids: Any,
    labels: Any,
    objectives: Sequence[Any],
    attention_mask: Any = None,
    rounding: str | Sequence[str] | None = ROUNDED_BY_DEFAULT,
    wanted_norm: float | None = None,
) -> list[AuditReport]:
    """Audit a model under several objectives; what does not depend on them is measured once.

    Other arguments and errors are `audit`'s.
    """
    formats = check_formats(rounding)
    wanted_norm = check_wanted_norm(wanted_norm)
    judged = [as_objective(objective) for objective in objectives]
    reports: list[AuditReport] = []
    facts: _Facts | None = None
    with prepared(model, input_ids, labels, judged, attention_mask) as batch:
        generators = Draws(device_of(batch.model))
        states = batch.states()
        draws = generators.moved()
        for objective in judged:
            read = batch.reading_once(objective)
            seen = whole_visibilities(
                states, read, batch.labels
            )  # first: it reads exits with their gradients
            facts = facts or _facts(batch, states, formats, draws)
            reports.append(_report(batch, read, states, seen, facts, wanted_norm))
    return reports


def judge(
    model: Any, input_ids: Any, labels: Any, objective: Any = None, attention_mask: Any = None
) -> Judgement:
    """Measure what the verdict rests on and nothing else: visibility and carry. Arguments and errors are `audit`'s.

    Returns:
        Verdict and the verdicts of loops 1..K, as `audit` gives them. Carries are one-sided differences, off by about a
        thousandth, and what readouts that hide the scale let through reads 0.
    """
    return judge_each(model, input_ids, labels, [objective], attention_mask)[0]


def judge_each(
    model: Any, input_ids: Any, labels: Any, objectives: Sequence[Any], attention_mask: Any = None
) -> list[Judgement]:
    """Judge a model under several objectives; carries, which do not depend on them, are measured once."""
    judged = [as_objective(objective) for objective in objectives]
    with prepared(model, input_ids, labels, judged, attention_mask) as batch:
        states = batch.states()
        carried = fast_carries(states)
        reads = [batch.reading_once(objective) for objective in judged]
        return [fast_judgement(batch, read, states, carried) for read in reads]


@dataclass(frozen=True)
class _Facts:
    """What is measured of the model and the text alone, whatever it is judged under."""

    carried: Sequence[Carry]
    clamped: Mapping[str, Clamped]
    readout: tuple[Radial, ...]
    expansion: Expansion
    dynamics: tuple[LoopDynamics, ...]
    tokens: tuple[TokenNorms, ...]
    final_scale_sweep: Mapping[str, float]
    rescaled: Mapping[str, Clamped]
    rounding: tuple[Rounding, ...]


def _facts(batch: PreparedBatch, states: Sequence[LoopState], formats: Sequence[str], draws: bool) -> _Facts:
    labels, readings = batch.labels, batch.readings
    readout = readout_visibility(states, labels, readings)
    clamped = radial_clamp(states, labels, readings)
    rescaled = rescale_each_loop(states, labels, clamped["none"], RESCALED, readings)
    dynamics = tuple(measure_dynamics(*batch.first))
    give_back_freed()  # the records of gradients
    depth = depth_that_runs(*batch.first, BEYOND * batch.model.loops)
    through = as_far_as_it_runs(deeper(states, depth), batch.model.loops)
    reference: ReferenceRun | None = None
    if formats and batch.padded is None:
        reference = ReferenceRun(labels, rounded_rows(labels), depth, readings)
    expansion = expansion_of(through if reference is None else _watched(through, reference))
    return _Facts(
        carried=measure_carries(states),
        clamped=clamped,
        readout=tuple(readout),
        expansion=expansion,
        dynamics=dynamics,
        tokens=tuple(token_norms(states, places=None if batch.padded is None else batch.padded.places)),
        final_scale_sweep={
            f"{factor:g}": loss
            for factor, loss in final_scale_sweep(states[-1], labels, token_loss=readings).items()
        },
        rescaled={str(loop): run for loop, run in rescaled.items()},
        rounding=tuple(measure_rounding(*batch.texts, formats, depth, dynamics, reference, draws)),
    )


def _watched(states: Iterable[LoopState], reference: ReferenceRun) -> Iterator[LoopState]:
    """One unroll for drift and for what rounding is compared with."""
    for state in states:
        reference.see(state)
        yield state


def _report(
    batch: PreparedBatch,
    objective: Objective,
    states: Sequence[LoopState],
    seen: Sequence[LoopVisibility],
    facts: _Facts,
    wanted_norm: float | None,
) -> AuditReport:
    carried = facts.carried
    judged = whole_judgement(batch, objective, states, seen, carried)
    own = facts.clamped["none"]
    verdict = model_verdict(judged.loops)
    resting = measure_resting_scale(states, objective, verdict, seen)
    if wanted_norm is not None:
        resting = replace(resting, wanted=wanted_scale(resting, wanted_norm))
    return AuditReport(
        verdict=judged.verdict,
        why=judged.why,
        objective=judged.objective,
        terms=judged.terms,
        loops=judged.loops,
        cross_entropy=own.cross_entropy,
        visibility=tuple(seen),
        readout=facts.readout,
        carry=tuple(carried),
        expansion=facts.expansion,
        dynamics=facts.dynamics,
        tokens=facts.tokens,
        final_scale_sweep=facts.final_scale_sweep,
        radial_clamp=facts.clamped,
        rescaled=facts.rescaled,
        remedies=tuple(try_remedies(states, carried, objective, batch.labels, own.cross_entropy))
        if verdict in ("blind", "damped")
        else (),
        notes=(*judged.notes, *of_an_end(len(facts.expansion.rms), len(states), BEYOND * len(states))),
        side_scales=judged.side_scales,
        rounding=facts.rounding,
        resting=resting,
    )
