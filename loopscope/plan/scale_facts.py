"""What a model's config alone says about the scale of its state: who hides it, removes it, damps it, keeps it.

These are the facts that a static reading combines over loops. Each comes with its reason, and tests hold each
against a measured derivative. Three things can see the scale of H_k directly: its readout, its gate and a penalty
(the objective's affair). What happens to it on the way to H_{k+1} is the carry's and the core's effect.
"""

from dataclasses import dataclass
from typing import Literal

from loopscope.model.config import ModelConfig

Sight = Literal["nothing", "ratio", "scale"]
"""nothing: scale cannot be seen. ratio: only against something of fixed size, so it fades as 1/s. scale: it is seen."""

Effect = Literal["removes", "damps", "keeps"]
"""Of a relative change of scale: removes leaves nothing of it, damps shrinks the state, keeps carries it on."""


@dataclass(frozen=True)
class Sees:
    """What a reader of H_k sees of its scale, and why."""

    sight: Sight
    why: str


@dataclass(frozen=True)
class Does:
    """What a part of a loop does to the scale, and why."""

    effect: Effect
    why: str


def readout_sees(config: ModelConfig, loop: int, loops: int) -> Sees:
    """What loop `loop`'s cross-entropy sees of its state's scale, through coda and readout."""
    kind, last = config.readout.kind, loop == loops
    if config.coda_norm:
        return Sees("nothing", "the readout's norm comes before the coda")
    normed = (
        kind in ("rmsnorm", "layernorm") or (kind == "final-only" and last) or readout_exponent(config) == 0
    )
    if not config.coda:
        if normed:
            return Sees("nothing", f"readout {kind} divides by the state's own size")
        return Sees("scale", f"readout {kind} shows the size, as its power {_power(config)}")
    if config.block.ends_in_norm:
        return Sees("ratio", f"coda layers end in a norm of a sum (placement {config.block.placement})")
    if normed:
        return Sees(
            "ratio", f"the coda adds branches of fixed size before readout {kind} divides by the whole"
        )
    return Sees("scale", f"the coda adds to the state and readout {kind} shows the size")


def gate_sees(config: ModelConfig, loop: int, loops: int) -> Sees | None:
    """What the exit gate sees, or None without one."""
    if not config.exit_gate:
        return None
    if config.gate_reads == "hidden":
        return Sees("scale", "the gate is linear in the raw state")
    seen = readout_sees(config, loop, loops)
    return Sees(seen.sight, f"the gate reads the readout: {seen.why}")


def carry_does(config: ModelConfig) -> Does:
    """What is done to the scale between H_k and the next loop's input. Agrees with `AbstractCarry.removes_scale`."""
    for kind in config.carry:
        if kind in ("rmsnorm", "layernorm", "readout-norm"):
            return Does("removes", f"carry {kind} divides by the state's own size")
    for kind in config.carry:
        if kind in ("damping", "decay"):
            return Does("damps", f"carry {kind} multiplies the state by a learned factor below 1")
    return Does("keeps", "nothing is done to the state between loops")


def core_does(config: ModelConfig) -> Does:
    """What the next loop (injection, loop embedding, shared layers) does to the scale of what it receives."""
    placement = config.block.placement
    if config.block.ends_in_norm:
        return Does(
            "removes", f"every layer ends in a norm (placement {placement}), so H has the norm's size"
        )
    branches = "pre-norm branches" if placement == "pre" else "branches with norms on both sides"
    if config.injection.kind == "none":
        return Does("keeps", f"the residual passes the state on; {branches} only add to it")
    if config.injection.kind == "concat":
        return Does(
            "keeps",
            f"injection concat passes the state on through a learned matrix; {branches} only add to it",
        )
    return Does(
        "keeps",
        f"the residual passes the state on; injection {config.injection.kind} and {branches} only add",
    )


def step_does(config: ModelConfig) -> Does:
    """Both together: what becomes of a change of s_k in s_{k+1}."""
    carry, core = carry_does(config), core_does(config)
    order: tuple[Effect, ...] = ("removes", "damps", "keeps")
    return min((carry, core), key=lambda does: order.index(does.effect))


def holds_scale(config: ModelConfig) -> str:
    """In a few words, what in the architecture holds the state's scale; for tables."""
    if config.loops == 1:
        return "nothing has to: one loop, no recurrence"
    step = step_does(config)
    if step.effect != "keeps":
        return step.why
    first, last = readout_sees(config, 1, max(config.loops, 2)), readout_sees(config, 1, 1)
    seen = first if first.sight == "scale" else last
    if seen.sight == "scale":
        return f"the loss: {seen.why}"
    if config.exit_gate and config.gate_reads == "hidden":
        return "the gate alone: it is linear in the raw state"
    if seen.sight == "ratio":
        return f"the loss, fading as 1/s: {seen.why}"
    return f"nothing: {seen.why}"


def readout_exponent(config: ModelConfig) -> float:
    """p such that scaling H_k by c scales the features by c^p at a loop that is not the last; a learned one's start."""
    match config.readout.kind:
        case "rmsnorm" | "layernorm":
            return 0.0
        case "alpha":
            readout = config.readout
            if readout.learned:  # never quite at an end of its range
                return min(max(readout.alpha, readout.alpha_min + 1e-4), readout.alpha_max)
            return readout.alpha
    return 1.0


def _power(config: ModelConfig) -> str:
    return f"{readout_exponent(config):g}"
