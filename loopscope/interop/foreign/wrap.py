"""`loopscope.wrap`: any looped module, by naming the block that it loops."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loopscope.guards import evaluating
from loopscope.interop.foreign.checks.agreement import (
    check_each_depth,
    check_logits,
    choose_shortcuts,
    depends_on_depth,
)
from loopscope.interop.foreign.checks.differing_loops import remark_on_differing_loops
from loopscope.interop.foreign.checks.gate import check_gate
from loopscope.interop.foreign.checks.lifted_gradients import check_and_lift_gradients
from loopscope.interop.foreign.checks.other_weights import checked_in_fp32, enlarging, other_weights
from loopscope.interop.foreign.checks.side_paths import (
    check_reads_one_loop,
    reads_last_alone,
    warn_of_side_paths,
)
from loopscope.interop.foreign.checks.side_states import find_side_states
from loopscope.interop.foreign.tracing.calls import CalledPart
from loopscope.interop.foreign.tracing.forward_runs import NoLogitsError, carry_and_batch, logits_of
from loopscope.interop.foreign.tracing.interceptor import ForwardInterceptor
from loopscope.interop.foreign.tracing.loop_count import LoopCount, SetLoops
from loopscope.interop.foreign.tracing.module_paths import find_block, find_callable, ways_to_call
from loopscope.interop.foreign.tracing.own_forward import Arguments, ForwardInputs, OwnForward
from loopscope.interop.foreign.tracing.trace import Trace
from loopscope.interop.foreign.tracing.traced_model import Step, TracedModel
from loopscope.recurrence import AbstractLoopedLM, check_loops

FOLLOW = "forward"
"""Readout of a module whose forward is followed from the last loop to the head."""

NamedPart = str | Callable[[Tensor], Tensor]
LoopedBlock = str | nn.Module | Callable[..., Any]


def wrap(
    module: Any,
    block: LoopedBlock | Sequence[LoopedBlock],
    *,
    readout: NamedPart | Sequence[NamedPart] | None = FOLLOW,
    head: NamedPart = "lm_head",
    embed: NamedPart | None = None,
    gate: NamedPart | Sequence[NamedPart] | None = None,
    loops: int | None = None,
    set_loops: SetLoops | None = None,
    forward_kwargs: Arguments | None = None,
    hidden: str | None = None,
    sequence: int | None = None,
    logits: str | int | Callable[[Any], Any] | None = None,
    inputs: ForwardInputs | None = None,
) -> AbstractLoopedLM:
    """Return a looped model made of a module's own forward: H_k is the block's output in its k-th call.

    What the forward does between two calls of the block is the carry, whatever it is. On a small random batch,
    the result has been compared with the module's own forward, and its gradients with finite differences. The
    module is left as it was: no hooks, its mode and the random generators put back. It must compute each loop
    once per forward, the same number of times for every input.

    Args:
        module: takes token ids [batch, seq] first; returns logits, or something that holds them.
        block: what is applied once per loop: the dotted path of a module, of a list of layers that all are, of a slice
            of one (`"model.layers[2:4]"`) or of a method (`"model.step"`); a list of such; or a function that the
            forward looks up by its name.
        readout: what is between H_k and the head: dotted paths or functions applied in order, None for
            nothing. Left out, the forward is followed from the last loop to the head.
        head: dotted path or function, from features to logits, for any leading shape.
        embed: dotted path or function from ids to the first loop's input. Left out, the forward is followed; so
            it is, with a warning, where something comes between the two (positions, a scale, layers).
        gate: what gives the exit gate's logit from H_k: dotted paths or functions applied in order. Compared
            with the calls that the forward makes of the last part that is a module; a warning says where it
            makes none.
        loops: the trained depth; left out, the number of times the forward calls the block.
        set_loops: how to run the forward at another depth: a keyword of it, the attributes that hold the
            number (`["config.total_ut_steps", "model.total_ut_steps"]`), or a function from the number to
            forward arguments. The trained depth is run this way too. Left out, loops beyond the trained depth
            repeat the last one.
        forward_kwargs: further arguments of the forward, or a function from ids to them.
        hidden: name of the block's argument that is the state; left out, its first float tensor.
        sequence: tokens of the batch that the checks run, for a module of one length; left out, 8, or where the
            forward refuses that, a length that its weights have.
        logits: where in what the forward returns the logits are, [batch, seq, vocab] or a list of one such tensor per
            loop (then every exit is checked): a key or an attribute (of a mapping in a tuple too), an index, or a
            function. Left out, `logits`.
        inputs: what the forward is called with in place of ids, as a function from ids to a tuple. Left out, ids; for a
            module with `initial_carry` that takes (carry, batch), a new carry and a batch of `inputs`, `labels` and
            `puzzle_identifiers`.

    Raises:
        ValueError: a path that does not exist, a block that is not looped, logits that are not the module's
            own, a gate that reads another tensor or gives a probability, gradients that the module cuts. Says
            what to change.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"module is {type(module).__name__}; give a torch.nn.Module, loaded and ready to run"
        )
    ways = find_block(module, block)
    if not ways or any(len(set(layers)) < len(layers) for layers in ways):
        raise ValueError(f"block is {block!r}, a list that is empty or holds the same layer twice")
    if loops is not None:
        check_loops(loops)
    own = OwnForward(
        module,
        forward_kwargs or {},
        LoopCount(module, set_loops),
        inputs=inputs or carry_and_batch(module),
        logits_at=logits,
        sequence=sequence,
    )
    model = TracedModel(
        module=module,
        interceptor=ForwardInterceptor(own, ways[0], hidden),
        readout=None if readout == FOLLOW else _steps(module, readout, "readout"),
        head=_part(module, head, "head"),
        gate=None if gate is None else _steps(module, gate, "gate"),
        embedding=None if embed is None else _part(module, embed, "embed"),
        loops=loops,
    )
    if readout == FOLLOW and not isinstance(model.head_step, nn.Module):
        raise ValueError(
            "head is a function, so the forward cannot be followed to it; say what it reads: readout='...', or "
            "None for the raw state"
        )
    with evaluating(module):
        with checked_in_fp32(model):
            _fit(model, block, ways, loops)
        if model.follows_head:  # as it is with the module's own types and weights
            assert model.example is not None
            model.example, _ = model.record(model.example.input_ids, model.loops)
            if model.remembers_before_head:
                assert isinstance(model.head_step, nn.Module)
                with torch.no_grad(), model.fixed_draws():
                    model.interceptor.remember_until(model.example, model.head_step)
    return model


def _fit(model: TracedModel, block: object, ways: Sequence[Sequence[CalledPart]], loops: int | None) -> None:
    """Find the depth and the quick ways, and check everything that can be checked."""
    name = type(model.module).__name__
    ids, trace, output = _first_run(model, name, ways)
    if trace.depth < 2:
        times = "never called" if trace.depth == 0 else "called once"
        raise ValueError(
            f"block {block!r} is {times} in the forward of {name}: it is not a loop. Name the part that repeats"
        )
    if loops is not None and loops != trace.depth:
        raise ValueError(
            f"loops is {loops}, but the forward of {name} calls block {block!r} {trace.depth} times; give "
            "set_loops, which says how to run it at another depth, or leave loops out"
        )
    model.loops = model.interceptor.own.count.trained = trace.depth
    start = _start(model, ids)
    for what, state in (("the first loop's input", start), ("the block's output", trace.states[1])):
        if state.ndim != 3 or tuple(state.shape[:2]) != tuple(ids.shape):
            raise ValueError(
                f"{what} has shape {tuple(state.shape)} for ids of shape {tuple(ids.shape)}; a hidden state is "
                "[batch, seq, dim]. Name another block, or the argument that is the state with hidden=..."
            )
    find_side_states(model, trace)
    try:
        _check_values(model, trace, start, output)
    except Exception as error:
        # A loop that was passed over has left nothing, or something else, where a later one looks: a cache, a list.
        model.interceptor.reruns = True
        try:
            _check_values(model, trace, start, output)
        except Exception:
            raise error from None
    alone = reads_last_alone(model, trace)
    model.reads_last_alone = _check_again_with_other_weights(model, ids, trace.depth) and alone
    check_gate(model, trace)
    check_and_lift_gradients(model, trace, start)
    warn_of_side_paths(model, trace)
    model.depth_conditioned = depends_on_depth(model, trace)
    check_each_depth(model, trace)
    remark_on_differing_loops(model, trace)


def _check_values(model: TracedModel, trace: Trace, start: Tensor, output: Any) -> None:
    choose_shortcuts(model, trace, start)
    check_reads_one_loop(model, trace)
    check_logits(model, trace, output)


@torch.no_grad()
def _check_again_with_other_weights(model: TracedModel, ids: Tensor, depth: int) -> bool:
    """Quick ways, readout and head hold for other weights too; a forward that these break proves nothing.

    Returns:
        Whether a loop of theirs reads nothing of the loops before but the last one's state, as far as can be said.
    """
    try:
        with other_weights(model.module, model.head_step):
            factor = enlarging(model.record(ids, model.loops)[1])
    except Exception:  # not even its own forward
        return False
    with other_weights(model.module, model.head_step, factor):
        try:
            trace, output = model.record(ids, model.loops, states=True)
            finite = bool(torch.isfinite(logits_of(output)).all())
        except Exception:
            return False
        if trace.depth != depth or not finite:
            return False
        quick = model.replays, model.passes_on
        choose_shortcuts(model, trace, _start(model, ids))
        model.replays, model.passes_on = model.replays and quick[0], model.passes_on and quick[1]
        check_logits(model, trace, output)
        return reads_last_alone(model, trace)


@torch.no_grad()
def _first_run(
    model: TracedModel, name: str, ways: Sequence[Sequence[CalledPart]]
) -> tuple[Tensor, Trace, Any]:
    """A run on an example batch, with the block's calls found in whichever way they are made."""
    try:
        ids = _example_ids(model)
    except NoLogitsError:
        raise
    except Exception as error:
        raise ValueError(
            f"the forward of {name} failed on a batch of ids ({type(error).__name__}: {error}); pass what else it "
            "needs in forward_kwargs"
        ) from error
    for layers in ways:
        model.interceptor.layers = layers
        trace, output = model.record(ids, model.loops, states=True)
        if trace.depth:
            break
    if trace.depth and model.trained_count is None and model.interceptor.own.count:
        # Told nothing, a forward may take another path to the same depth: Huginn's default has no gradient.
        model.trained_count = model.interceptor.own.count.trained = trace.depth
        trace, output = model.record(ids, trace.depth, states=True)
    return ids, trace, output


def _example_ids(model: TracedModel) -> Tensor:
    """Ids that the forward takes; where it fails without a cache of its own making, it makes one."""
    own = model.interceptor.own

    try:
        return own.example(model.trained_count)
    except NoLogitsError:
        raise
    except Exception:
        own.makes_cache = True
        try:
            return own.example(model.trained_count)
        except Exception:
            own.makes_cache = False
        raise


def _start(model: TracedModel, ids: Tensor) -> Tensor:
    """The first loop's input. A named embedding that gives another one is left, and the forward followed."""
    with model.fixed_draws():
        own = model.interceptor.start(ids, model.trained_count).detach()
    if model.embedding is not None:
        named_start = model.embedding(ids).detach()
        if named_start.shape != own.shape or not bool(
            (named_start - own).abs().max() <= 1e-4 * own.abs().max()
        ):
            warnings.warn(
                "what embed gives is not the first loop's input: something follows it (positions, a scale, layers). "
                "The forward is followed instead, as without embed",
                stacklevel=4,
            )
            model.embedding = None
    return own


def _part(module: nn.Module, part: NamedPart, argument: str) -> Step:
    return find_callable(module, part, argument) if isinstance(part, str) else part


def _steps(module: nn.Module, parts: NamedPart | Sequence[NamedPart] | None, argument: str) -> list[Step]:
    """Parts in order; a list of layers counts as its layers."""
    steps: list[Step] = []
    for part in [] if parts is None else [parts] if isinstance(parts, str) or callable(parts) else parts:
        step = _part(module, part, argument)
        steps += next(iter(ways_to_call(step)), []) if isinstance(step, nn.Module) else [step]
    return steps
