"""One audit: everything measured on one batch, as one record."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loopscope.audit.carry import measure_carries
from loopscope.audit.declared import wrong_declarations
from loopscope.audit.dynamics import measure_dynamics
from loopscope.audit.expansion import measure_expansion
from loopscope.audit.input_checks import check_audit, check_subject, in_fp32, notes_on
from loopscope.audit.interventions import final_scale_sweep, radial_clamp, rescale_each_loop
from loopscope.audit.number_formats import check_formats
from loopscope.audit.padded_texts import PaddedTexts, padded_texts
from loopscope.audit.remedies import try_remedies
from loopscope.audit.rounding import measure_rounding
from loopscope.audit.side_scales import measure_side_scales, side_sentences
from loopscope.audit.tokens import token_norms
from loopscope.audit.verdict import check_saturation, loop_verdicts, model_verdict, why, worst_verdict
from loopscope.audit.visibility import loop_visibilities, measure_visibility, readout_visibility
from loopscope.guards import evaluating
from loopscope.numerics import scale
from loopscope.objectives.objective import Objective
from loopscope.objectives.placements import Dense
from loopscope.objectives.spelling import as_objective
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll
from loopscope.results import (
    ROUNDED_BY_DEFAULT,
    AuditReport,
    Carry,
    Clamped,
    Expansion,
    Judgement,
    LoopDynamics,
    LoopVerdict,
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

    Raises:
        ValueError: not a looped model, an objective or a format that is none, weights that are not finite, ids, labels
            or a mask that do not fit, a sequence that is too long, or tokens whose loss is exactly 0, so that no
            gradient shows what it sees.
    """
    return audit_each(model, input_ids, labels, [objective], attention_mask, rounding)[0]


def audit_each(
    model: Any,
    input_ids: Any,
    labels: Any,
    objectives: Sequence[Any],
    attention_mask: Any = None,
    rounding: str | Sequence[str] | None = ROUNDED_BY_DEFAULT,
) -> list[AuditReport]:
    """Audit a model under several objectives; what does not depend on them is measured once.

    Other arguments and errors are `audit`'s.
    """
    formats = check_formats(rounding)
    reports: list[AuditReport] = []
    facts: _Facts | None = None
    for objective in objectives:
        with _prepared(model, input_ids, labels, objective, attention_mask) as batch:
            with torch.no_grad():
                states = list(unroll(batch.model, batch.input_ids))
            facts = facts or _facts(batch, states, formats)
            reports.append(_measure(batch, states, facts))
    return reports


def judge(
    model: Any, input_ids: Any, labels: Any, objective: Any = None, attention_mask: Any = None
) -> Judgement:
    """Measure what the verdict rests on and nothing else: visibility and carry. Arguments and errors are `audit`'s.

    Returns:
        Verdict, why and the verdicts of loops 1..K, as `audit` gives them.
    """
    return judge_each(model, input_ids, labels, [objective], attention_mask)[0]


def judge_each(
    model: Any, input_ids: Any, labels: Any, objectives: Sequence[Any], attention_mask: Any = None
) -> list[Judgement]:
    """Judge a model under several objectives; carries, which do not depend on them, are measured once."""
    found: list[Judgement] = []
    carried: Sequence[Carry] = ()
    for objective in objectives:
        with _prepared(model, input_ids, labels, objective, attention_mask) as batch:
            with torch.no_grad():
                states = list(unroll(batch.model, batch.input_ids))
            carried = carried or measure_carries(states)
            found.append(
                _judgement(batch, states, loop_visibilities(states, batch.objective, batch.labels), carried)
            )
    return found


@dataclass(frozen=True)
class _Batch:
    """What is audited: the model in fp32 and evaluation mode, and tensors that gradients may reach.

    Of padded texts the tokens, packed into one row, by a model that runs each text alone.
    """

    model: AbstractLoopedLM
    input_ids: Tensor
    labels: Tensor
    objective: Objective
    notes: tuple[str, ...]
    padded: PaddedTexts | None

    @property
    def first(self) -> tuple[AbstractLoopedLM, Tensor]:
        """The model of one text, and the first text."""
        return (self.model, self.input_ids[:1]) if self.padded is None else self.padded.first

    @property
    def texts(self) -> tuple[AbstractLoopedLM, Tensor, Tensor]:
        """The model of whole texts, some of them (of padded ones the first) and their labels."""
        if self.padded is None:
            return self.model, self.input_ids, self.labels
        model, first = self.padded.first
        return model, first, self.labels[:, : first.shape[1]]  # packed in order


@contextmanager
def _prepared(
    model: Any, input_ids: Any, labels: Any, objective: Any, attention_mask: Any
) -> Iterator[_Batch]:
    objective = as_objective(objective)
    with torch.inference_mode(False):
        looped = check_subject(model, objective)
        padded = padded_texts(looped, input_ids, labels, attention_mask)
        if padded is not None:
            input_ids, labels = padded.input_ids, padded.labels
        measured = looped if padded is None else padded.model
        check_audit(measured, input_ids, labels, objective)
        # Slices of a batch are not contiguous, and some forwards view them; tensors of inference mode have no gradient.
        input_ids, labels = input_ids.clone(), labels.clone()
        with (
            evaluating(looped),
            in_fp32(looped, input_ids if padded is None else padded.first[1]) as notes,
            torch.autocast(input_ids.device.type, enabled=False),
        ):
            notes += (*looped.remarks, *(() if padded is None else padded.notes))
            yield _Batch(measured, input_ids, labels, objective or Objective(Dense()), notes, padded)


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


def _facts(batch: _Batch, states: Sequence[LoopState], formats: Sequence[str]) -> _Facts:
    model, input_ids, labels = batch.model, batch.input_ids, batch.labels
    clamped = radial_clamp(states, labels)
    rescaled = rescale_each_loop(states, labels, clamped["none"], RESCALED)
    dynamics = tuple(measure_dynamics(*batch.first))
    return _Facts(
        carried=measure_carries(states),
        clamped=clamped,
        readout=tuple(readout_visibility(states, labels)),
        expansion=measure_expansion(model, input_ids, BEYOND * model.loops),
        dynamics=dynamics,
        tokens=tuple(token_norms(states, places=None if batch.padded is None else batch.padded.places)),
        final_scale_sweep={f"{k:g}": v for k, v in final_scale_sweep(states[-1], labels).items()},
        rescaled={str(loop): run for loop, run in rescaled.items()},
        rounding=tuple(measure_rounding(*batch.texts, formats, BEYOND * model.loops, dynamics)),
    )


def _verdicts(
    batch: _Batch, states: Sequence[LoopState], seen: Sequence[LoopVisibility], carried: Sequence[Carry]
) -> list[LoopVerdict]:
    loops = loop_verdicts(seen, carried)
    if model_verdict(loops) in ("blind", "damped"):
        with torch.no_grad():
            check_saturation(seen, batch.objective.split(states, batch.labels))
    return loops


def _judgement(
    batch: _Batch, states: Sequence[LoopState], seen: Sequence[LoopVisibility], carried: Sequence[Carry]
) -> Judgement:
    loops = _verdicts(batch, states, seen, carried)
    verdict = model_verdict(loops)
    beside = measure_side_scales(states, batch.objective, batch.labels)
    said = side_sentences(beside)
    worst = worst_verdict([verdict, *(row.status for row in beside)])
    louder = {row.name for row in beside if row.status == worst != verdict}  # what the verdict is of
    terms = tuple(dict.fromkeys(path.split("/")[0] for loop in seen for path in loop.direct))
    reason = why(loops, seen, terms, batch.model.readout_name)
    return Judgement(
        verdict=worst,
        why=" ".join([*(said[name] for name in sorted(louder)), reason]),
        objective=batch.objective.name,
        terms=terms,
        loops=tuple(loops),
        rms=tuple(float(scale(state.hidden).mean()) for state in states),
        side_scales=tuple(beside),
        notes=(
            *batch.notes,
            *notes_on(states, batch.labels),
            *wrong_declarations(states, batch.objective.placement),
            *(sentence for name, sentence in said.items() if name not in louder),
        ),
    )


def _measure(batch: _Batch, states: Sequence[LoopState], facts: _Facts) -> AuditReport:
    labels, objective = batch.labels, batch.objective
    seen = measure_visibility(batch.model, objective, batch.input_ids, labels)
    carried = facts.carried
    judged = _judgement(batch, states, seen, carried)
    own = facts.clamped["none"]
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
        remedies=tuple(try_remedies(states, carried, objective, labels, own.cross_entropy))
        if model_verdict(judged.loops) in ("blind", "damped")
        else (),
        notes=judged.notes,
        side_scales=judged.side_scales,
        rounding=facts.rounding,
    )
