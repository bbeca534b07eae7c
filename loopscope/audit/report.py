"""One audit: everything measured on one batch, as one record."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.audit.carry import Carry, carries
from loopscope.audit.expansion import Expansion, expansion
from loopscope.audit.interventions import Clamped, exit_losses, final_scale_sweep, radial_clamp, rescale_at
from loopscope.audit.remedies import Remedy, try_remedies
from loopscope.audit.tokens import TokenNorms, token_norms
from loopscope.audit.verdict import LoopVerdict, Status, loop_verdicts, model_verdict, why
from loopscope.audit.visibility import LoopVisibility, Radial, readout_visibility, visibility
from loopscope.objectives.objective import Objective
from loopscope.objectives.placements import Dense
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import AbstractLoopedLM, check_input_ids

BEYOND = 4
"""Drift is followed to this many times the trained depth."""
RESCALED = 2.0
"""Factor by which each loop's state is multiplied to follow the effect on later exits."""


@dataclass(frozen=True)
class AuditReport:
    """What one batch shows about a looped model. Losses are in nats per token."""

    verdict: Status
    why: str
    objective: tuple[str, ...]  # the loss terms that were judged
    loops: tuple[LoopVerdict, ...]
    cross_entropy: tuple[float, ...]  # per exit, at the trained depth
    visibility: tuple[LoopVisibility, ...]
    readout: tuple[Radial, ...]  # every loop's own cross-entropy by itself
    carry: tuple[Carry, ...]
    expansion: Expansion  # to `BEYOND` times the trained depth
    tokens: tuple[TokenNorms, ...]
    final_scale_sweep: Mapping[str, float]  # factor to cross-entropy of the last exit
    radial_clamp: Mapping[str, Clamped]
    rescaled: Mapping[str, Clamped]  # loop whose state was doubled to the exits' losses
    remedies: tuple[Remedy, ...]  # tried where the verdict is blind or damped


def audit(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
    objective: Objective | None = None,
) -> AuditReport:
    """Measure which loops carry a scale that no loss sees. Works in fp32, in evaluation mode.

    Args:
        labels: the token that follows each input token; -100 is not counted.
        objective: what the model was trained on; None judges dense cross-entropy without penalties.

    Raises:
        ValueError: weights that are not finite, labels that do not fit, or a sequence that is too long.
    """
    check_input_ids(input_ids)
    _check_weights(model)
    _check_labels(model, input_ids, labels)
    objective = objective or Objective(Dense())
    was_training, dtypes = model.training, {p.dtype for p in model.parameters()}
    if dtypes - {torch.float32, torch.float64}:
        raise ValueError(
            f"the model's weights are {', '.join(map(str, dtypes))}; audits measure in fp32: call model.float() first"
        )
    model.eval()
    try:
        return _measure(model, input_ids, labels, objective)
    finally:
        model.train(was_training)


def _measure(model: AbstractLoopedLM, input_ids: Tensor, labels: Tensor, objective: Objective) -> AuditReport:
    seen = visibility(model, objective, input_ids, labels)
    carried = carries(model, input_ids, model.loops)
    loops = loop_verdicts(seen, carried)
    verdict = model_verdict(loops)
    terms = sorted({path.split("/")[0] for loop in seen for path in loop.direct})
    return AuditReport(
        verdict=verdict,
        why=why(loops, terms),
        objective=tuple(terms),
        loops=tuple(loops),
        cross_entropy=tuple(exit_losses(model, input_ids, labels)),
        visibility=tuple(seen),
        readout=tuple(readout_visibility(model, input_ids, labels)),
        carry=tuple(carried),
        expansion=expansion(model, input_ids, BEYOND * model.loops),
        tokens=tuple(token_norms(model, input_ids)),
        final_scale_sweep={f"{k:g}": v for k, v in final_scale_sweep(model, input_ids, labels).items()},
        radial_clamp=radial_clamp(model, input_ids, labels),
        rescaled={
            str(loop): rescale_at(model, input_ids, labels, loop, RESCALED)
            for loop in range(1, model.loops + 1)
        },
        remedies=tuple(try_remedies(model, objective, input_ids, labels))
        if verdict in ("blind", "damped")
        else (),
    )


def _check_weights(model: AbstractLoopedLM) -> None:
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"the weights of {name} are not all finite; audit an earlier checkpoint")


def _check_labels(model: AbstractLoopedLM, input_ids: Tensor, labels: Tensor) -> None:
    if labels.shape != input_ids.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, input_ids {tuple(input_ids.shape)}; give one label per token"
        )
    counted = labels[labels != IGNORE_INDEX]
    if not counted.numel():
        raise ValueError("every label is -100: there is no token to measure a loss on")
    with torch.no_grad():
        vocabulary = model.head(model.embed(input_ids[:1, :1])).shape[-1]
    for name, ids in (("labels", counted), ("input_ids", input_ids)):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocabulary:
            raise ValueError(f"{name} go from {low} to {high}; this model has ids 0 to {vocabulary - 1}")
