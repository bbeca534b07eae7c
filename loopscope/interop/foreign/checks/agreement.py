"""What `wrap` finds out and checks before it hands a model over, on a small random batch."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from loopscope.interop.foreign.checks.side_paths import reads_earlier_loops, why_no_readout
from loopscope.interop.foreign.tracing.calls import recording
from loopscope.interop.foreign.tracing.forward_runs import (
    HALF_TOLERANCE,
    LOGITS_TOLERANCE,
    disagreement,
    dtype_of,
    every_logits_of,
    logits_of,
)
from loopscope.interop.foreign.tracing.trace import Trace, probes
from loopscope.interop.foreign.tracing.traced_model import TracedModel
from loopscope.recurrence import LoopState, unroll

MOST_DEPTHS = 16
"""Depths up to which every exit is compared with a forward of that many loops."""
SOME_POSITIONS = "reads only some positions"


@torch.no_grad()
def choose_shortcuts(model: TracedModel, trace: Trace, start: Tensor) -> None:
    """Set `replays` and `passes_on` of a traced model where the quick way gives what following its forward gives."""
    interceptor, earlier = model.interceptor, trace.states
    after = _heads_by_loop(model, trace)
    interceptor.heads_at_end = after[trace.depth - 1] == trace.depth == sum(after)
    interceptor.head_per_loop = interceptor.heads_at_end or after == [1] * trace.depth
    tolerance = LOGITS_TOLERANCE.get(dtype_of(model.module), HALF_TOLERANCE)
    with model.fixed_draws():
        replays = [
            _close(interceptor.replay(trace, start, 1), interceptor.core(trace, earlier, start, 1), tolerance)
        ]
        passes_on = []
        for loop, probe in probes(trace).items():
            carried = interceptor.carry(trace, earlier, probe, loop)
            followed = interceptor.core(trace, {**earlier, loop: probe}, carried, loop + 1)
            replays.append(_close(interceptor.replay(trace, carried, loop + 1), followed, tolerance))
            passes_on.append(torch.equal(carried, probe))
    alone = not interceptor.side_names  # what goes on beside the state is followed
    model.replays, model.passes_on = all(replays) and alone, all(passes_on) and alone


def _heads_by_loop(model: TracedModel, trace: Trace) -> list[int]:
    """How often the forward calls its head after each loop and before the next."""
    head, last = model.head_step, model.interceptor.layers[-1]
    counts = [0] * trace.depth
    if not isinstance(head, nn.Module) or head is last:
        return counts
    with recording([head, last]) as calls:
        model.record(trace.input_ids, model.loops)
    loop = 0
    for call in calls:
        loop += call.module is last
        if call.module is head and loop:
            counts[loop - 1] += 1
    return counts


@torch.no_grad()
def check_logits(model: TracedModel, trace: Trace, output: object) -> None:
    """Raise ValueError unless readout and head of a traced model, at its last loop, give the module's own logits."""
    own, dtype = logits_of(output), dtype_of(model.module)
    *earlier, last = unroll(model, trace.input_ids)
    try:
        features = last.features()
        shape = tuple(features.shape)
        if shape[:2] != tuple(trace.input_ids.shape):
            raise ValueError(
                f"what reaches the head has shape {shape} for ids of shape {tuple(trace.input_ids.shape)}: the forward "
                f"{SOME_POSITIONS}. Name the readout (readout='...'), or make the forward give all "
                "logits (forward_kwargs=lambda ids: {'targets': ids}, say)"
            )
        logits = model.head(features)
    except RuntimeError as error:
        raise ValueError(
            f"the head cannot read what the readout gives it ({error}); name the head or the readout"
        ) from error
    difference = disagreement(logits, own, dtype)
    if difference is None:
        _check_earlier_exits(model, earlier, output)
        return
    head, readout_steps = model.head_step, model.readout_steps
    if isinstance(head, nn.Module):
        reason = (
            _readout_reason(model, trace, last.hidden, features, head) if readout_steps is not None else None
        )
        if reason is None:
            if try_following_head(model, trace, features, own):
                _check_earlier_exits(model, earlier, output)
                return
            reason = (
                "the head reads what it reads in the forward, but its output is not the logits (a softcap, a scale, a "
                "crop of the vocabulary, another head): name the right one, or give head=a function"
            )
    else:
        reason = "readout and head together are not what the forward does with the last state"
    raise ValueError(f"at loop {model.loops} {difference}; {reason}")


def _check_earlier_exits(model: TracedModel, states: Sequence[LoopState], output: object) -> None:
    """Where the forward gives every loop's logits, the earlier ones have to agree too."""
    own = every_logits_of(output)
    if len(own) != model.loops:
        return
    for state in states:
        difference = disagreement(state.logits(), own[state.loop - 1], dtype_of(model.module))
        if difference is not None:
            raise ValueError(
                f"at loop {state.loop} {difference}: the module reads this loop otherwise than its last. Subclass "
                "loopscope.AbstractLoopedLM, whose readout knows the loop"
            )


def try_following_head(model: TracedModel, trace: Trace, features: Tensor, own: Tensor) -> bool:
    """Set `follows_head` where running on from the head gives the forward's logits; return whether it does."""
    model.example, model.follows_head = trace, True
    others = features.clone()
    others[:, 0] = others[:, 0].flip(-1) + features.square().mean().sqrt()
    try:
        logits, changed = model.head(features), model.head(others)
    except Exception:  # the forward was not made for one long sequence
        logits = changed = own
    # A head whose output does not reach the logits would agree whatever it reads; one that tokens are mixed
    # behind could not be called on chunks of tokens.
    dtype = dtype_of(model.module)
    tolerance = LOGITS_TOLERANCE.get(dtype, HALF_TOLERANCE)
    apart = _close(changed[:, 1:], logits[:, 1:], tolerance) and not _close(changed, logits, tolerance)
    model.follows_head = apart and disagreement(logits, own, dtype) is None
    if model.follows_head:
        model.remembers_before_head = _remembers(model, trace, {logits: features, changed: others})
    return model.follows_head


def _remembers(model: TracedModel, trace: Trace, slowly: Mapping[Tensor, Tensor]) -> bool:
    """Whether the head gives the same where what precedes it is not run again. Leaves the trace so if it does."""
    assert isinstance(model.head_step, nn.Module)
    try:
        with model.fixed_draws():
            model.interceptor.remember_until(trace, model.head_step)
        if all(torch.equal(model.head(features), logits) for logits, features in slowly.items()):
            return True
    except Exception:  # a forward that looks at what precedes its head
        pass
    trace.before_head = {}
    return False


@torch.no_grad()
def depends_on_depth(model: TracedModel, trace: Trace) -> bool:
    """Return whether the forward, set to run twice as deep (or less deep, where it takes no more), has other states."""
    if not model.interceptor.own.count:
        return False
    tolerance = LOGITS_TOLERANCE.get(dtype_of(model.module), HALF_TOLERANCE)
    for loops in (2 * trace.depth, trace.depth - 1):
        try:
            other, _ = model.record(trace.input_ids, loops, states=True)
        except Exception:  # it takes no such depth
            continue
        both = other.states.keys() & trace.states.keys()
        return not all(_close(other.states[loop], trace.states[loop], tolerance) for loop in both)
    return False


@torch.no_grad()
def check_each_depth(model: TracedModel, trace: Trace) -> None:
    """Raise ValueError where a shorter or a longer unroll's last exit is not the forward's at that many loops.

    Depths that the forward does not run are passed over: 1 to `MOST_DEPTHS`, and one beyond the trained one. Where the
    exits on the way are not the forward's, they are read by depth, or every depth is run by itself; a forward that
    gives every loop's logits says itself what they are.
    """
    if not model.interceptor.own.count:
        return
    by_depth: dict[int, Tensor] = {}
    all_given = True
    for loops in (*range(1, min(model.loops, MOST_DEPTHS)), model.loops + 1):
        try:
            _, output = model.record(trace.input_ids, loops)
            own = logits_of(output)
        except Exception:  # it takes no such depth
            model.runs_deeper = loops <= model.loops
            continue
        by_depth[loops], all_given = own, all_given and len(every_logits_of(output)) == loops
        *_, last = unroll(model, trace.input_ids, loops)
        difference = disagreement(last.logits(), own, dtype_of(model.module))
        if difference is not None:
            raise ValueError(
                f"run to {loops} loops, where it was made for {model.loops}, {difference}: this depth is read in "
                "another way. Leave set_loops out to have the trained depth alone, or subclass "
                "loopscope.AbstractLoopedLM"
            )
    if not by_depth:
        raise ValueError(
            f"set_loops is {model.interceptor.own.count.how!r}, and by it the forward runs at no other depth than "
            f"{model.loops} (1 to {model.loops + 1} were tried): it is not what sets the number of loops. Name what "
            "does, or leave it out"
        )
    if not model.runs_deeper:
        model.remarks = (
            *model.remarks,
            f"The forward of {type(model.module).__name__} runs no more than {model.loops} loops: beyond, its last one "
            "is repeated.",
        )
    if model.depth_conditioned or all_given or _are_exits_on_the_way(model, trace, by_depth):
        return
    model.reads_by_depth = model.readout_steps is None and set(by_depth) >= set(range(1, model.loops))
    if not (model.reads_by_depth and _are_exits_on_the_way(model, trace, by_depth)):
        model.reads_by_depth, model.depth_conditioned = False, True


def _are_exits_on_the_way(model: TracedModel, trace: Trace, by_depth: Mapping[int, Tensor]) -> bool:
    """Whether the exits of one long unroll are what the forward gives when set to as many loops."""
    dtype = dtype_of(model.module)
    return all(
        disagreement(state.logits(), by_depth[state.loop], dtype) is None
        for state in unroll(model, trace.input_ids, max(by_depth, default=1))
        if state.loop in by_depth
    )


def _readout_reason(
    model: TracedModel, trace: Trace, hidden: Tensor, features: Tensor, head: nn.Module
) -> str | None:
    """Why a named readout is not what the module uses; None where it is, or where that cannot be seen."""
    try:
        with model.fixed_draws():
            own = model.interceptor.features(trace, trace.states, hidden, model.loops, head)
    except ValueError:
        return "the forward never calls this head after its last loop: another head makes its logits"
    if own.shape[-1] != features.shape[-1]:
        return f"the readout gives {features.shape[-1]} channels, and the head is called with {own.shape[-1]}"
    own_part = features[:, features.shape[1] - own.shape[1] :]
    if _close(own_part, own, LOGITS_TOLERANCE.get(dtype_of(model.module), HALF_TOLERANCE)):
        return None
    if reads_earlier_loops(model, trace):
        return why_no_readout(model, trace)
    gap = float((own_part - own).abs().max())
    return (
        f"the readout is not what the module uses: what reaches its head differs by {gap:.3g}. "
        "Name the right one, or leave readout out to follow the forward"
    )


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return one.shape == other.shape and float((one - other).abs().max()) <= tolerance * float(
        other.abs().max()
    )
