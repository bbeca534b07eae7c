"""Remedies, tried on the spot: what would close a blind spot, measured on the model as it is.

Each changes what the loss sees or what is carried, without training, and is measured like the model itself.
The cost in cross-entropy is what the change does today: a model trained for one readout pays for another at
first, and a penalty costs nothing until training follows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.audit.carry import measure_carries
from loopscope.audit.interventions import exit_losses
from loopscope.audit.patched_model import NormBetweenLoops, PatchedModel, RawBeforeLast, RawEveryLoop
from loopscope.audit.verdict import hangs_on_larger, loop_verdicts, model_verdict
from loopscope.audit.visibility import loop_visibilities
from loopscope.objectives.objective import Objective
from loopscope.objectives.penalties import NormPenalty
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll, unroll_from
from loopscope.results import REMOVED, Carry, Remedy, Verdict

TRIED_PENALTY = 0.01
"""Weight of the penalty that is tried: the published one."""

READOUT_REMEDIES: Sequence[tuple[str, Callable[[AbstractLoopedLM], PatchedModel]]] = (
    ("read the raw state at every loop but the last (readout final-only)", RawBeforeLast),
    ("read the raw state at every loop (readout raw)", RawEveryLoop),
)


def try_remedies(
    states: Sequence[LoopState],
    carried: Sequence[Carry],
    objective: Objective,
    labels: Int[Tensor, "batch seq"],
    losses: Sequence[float],
) -> list[Remedy]:
    """Measure, for each change that would close a blind spot, the verdict it leads to and its cost in cross-entropy.

    Args:
        states: the model's own unroll, without gradients; a change of readout or loss leaves it as it is.
        carried: its carries.
        losses: cross-entropy of its exits.
    """
    model = states[0].model

    def remedy(change: str, verdict: Verdict, found: Sequence[float]) -> Remedy:
        mean, before = sum(found) / len(found), sum(losses) / len(losses)
        return Remedy(change, verdict, cross_entropy=mean, cost=mean - before)

    penalised = Objective(
        objective.placement,
        [*objective.penalties, NormPenalty(TRIED_PENALTY)],
        objective.token_loss,
        objective.extras,
    )
    judged = quick_verdict(states, carried, penalised, labels)
    remedies = [remedy(f"add a norm penalty of weight {TRIED_PENALTY}", judged, losses)]
    # A state of another width than the head's cannot be read raw.
    readable = states[-1].features().shape == states[-1].hidden.shape
    for change, kind in READOUT_REMEDIES if readable else ():
        changed = kind(model)
        read = [replace(state, model=changed) for state in states]
        judged = quick_verdict(read, carried, objective, labels)
        remedies.append(remedy(change, judged, exit_losses(read, labels, objective.token_loss)))
    normed = _unrolled(NormBetweenLoops(model), states)
    kept = measure_carries(normed, slopes=False)
    if not removes(kept):
        kept = measure_carries(normed)
    judged = quick_verdict(normed, kept, objective, labels)
    found = exit_losses(normed, labels, objective.token_loss)
    return [*remedies, remedy("put an RMSNorm between loops", judged, found)]


@torch.no_grad()
def _unrolled(changed: PatchedModel, states: Sequence[LoopState]) -> list[LoopState]:
    """The unroll of a model that differs by what is done between loops: the first loop is the same."""
    if not changed.stateless:
        return list(unroll(changed, states[0].context.input_ids, len(states)))
    first = replace(states[0], model=changed)
    return [first, *unroll_from(first, first.hidden)]


def removes(carried: Sequence[Carry]) -> bool:
    """Return whether every loop removes its scale, so that the verdict hangs on nothing else."""
    return len(carried) > 1 and all(abs(carry.mean) < REMOVED for carry in carried)


def quick_verdict(
    states: Sequence[LoopState],
    carried: Sequence[Carry],
    objective: Objective,
    labels: Int[Tensor, "batch seq"],
) -> Verdict:
    """Return the verdict alone: from direct visibility and carry, without the gradient through the unroll.

    What cannot change it is not measured: what is seen of a scale that is removed, nor of larger states where a term
    sees the ones there are.
    """
    if removes(carried):
        return "removed"
    loops = loop_verdicts(loop_visibilities(states, objective, labels, grown=False), carried)
    if hangs_on_larger(loops):
        loops = loop_verdicts(loop_visibilities(states, objective, labels), carried)
    return model_verdict(loops)
