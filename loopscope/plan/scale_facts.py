"""What a model's config alone says about the scale of its state: who hides it, removes it, damps it, keeps it.

These are the facts that a static reading combines over loops. Each comes with its reason, and tests hold each
against a measured derivative. Three things can see the scale of H_k directly: its readout, its gate and a penalty
(the objective's affair). What happens to it on the way to H_{k+1} is the carry's and the core's effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import carries_of, exponent_of, injection_of
from loopscope.model.config.declarations import Effect, Exponent

Sight = Literal["nothing", "ratio", "scale"]
"""nothing: scale cannot be seen. ratio: only against something of fixed size, so it fades as 1/s. scale: it is seen."""

_WHY: dict[Effect, str] = {
    "removes": "leaves nothing of the state's scale",
    "damps": "shrinks the state",
    "keeps": "carries the state's scale on",
}
"""What is said of a variant that declares an effect and no reason."""


@dataclass(frozen=True)
class ReaderSight:
    """What a reader of H_k sees of its scale, and why."""

    sight: Sight
    why: str


@dataclass(frozen=True)
class ScaleEffect:
    """What a part of a loop does to the scale, and why."""

    effect: Effect
    why: str


def readout_sees(config: ModelConfig, loop: int, loops: int) -> ReaderSight:
    """Return what loop `loop`'s cross-entropy sees of its state's scale, through coda and readout."""
    kind, exponent = config.readout.kind, exponent_of(config, last=loop == loops)
    if config.coda_norm:
        return ReaderSight("nothing", "the readout's norm comes before the coda")
    if not config.coda:
        return _shown(kind, exponent)
    if config.block.ends_in_norm:
        return ReaderSight(
            "ratio", f"coda layers end in a norm of a sum (placement {config.block.placement})"
        )
    if exponent == 0:
        return ReaderSight(
            "ratio", f"the coda adds branches of fixed size before readout {kind} divides by the whole"
        )
    if exponent == "fades":
        return ReaderSight(
            "ratio", f"the coda adds to the state, and readout {kind} shows its size less as it grows"
        )
    return ReaderSight("scale", f"the coda adds to the state and readout {kind} shows the size")


def _shown(kind: str, exponent: Exponent) -> ReaderSight:
    if exponent == 0:
        return ReaderSight("nothing", f"readout {kind} divides by the state's own size")
    if exponent == "fades":
        return ReaderSight("ratio", f"readout {kind} shows the size less as it grows")
    return ReaderSight("scale", f"readout {kind} shows the size, as its power {exponent:g}")


def gate_sees(config: ModelConfig, loop: int, loops: int) -> ReaderSight | None:
    """Return what the exit gate sees of the scale, or None without one."""
    if not config.exit_gate:
        return None
    if config.gate_reads == "hidden":
        return ReaderSight("scale", "the gate is linear in the raw state")
    seen = readout_sees(config, loop, loops)
    return ReaderSight(seen.sight, f"the gate reads the readout: {seen.why}")


def carry_does(config: ModelConfig) -> ScaleEffect:
    """Return what is done to the scale between H_k and the next loop's input, as the carry's steps declare it."""
    steps = [
        ScaleEffect(
            step.value("effect"), f"carry {step.name} {step.declaration.why or _WHY[step.value('effect')]}"
        )
        for step in carries_of(config)
    ]
    return _strongest(steps) if steps else ScaleEffect("keeps", "nothing is done to the state between loops")


def core_does(config: ModelConfig) -> ScaleEffect:
    """Return what the next loop (injection, loop embedding, shared layers) does to the scale of what it receives."""
    placement = config.block.placement
    if config.block.ends_in_norm:
        return ScaleEffect(
            "removes", f"every layer ends in a norm (placement {placement}), so H has the norm's size"
        )
    branches = "pre-norm branches" if placement == "pre" else "branches with norms on both sides"
    injection = injection_of(config)
    if injection is None:
        return ScaleEffect("keeps", f"the residual passes the state on; {branches} only add to it")
    effect: Effect = injection.value("effect")
    if effect != "keeps":
        return ScaleEffect(effect, f"injection {injection.name} {injection.declaration.why or _WHY[effect]}")
    if injection.declaration.learned_map:
        return ScaleEffect(
            "keeps",
            f"injection {injection.name} passes the state on through a learned matrix; {branches} only add to it",
        )
    return ScaleEffect(
        "keeps", f"the residual passes the state on; injection {injection.name} and {branches} only add"
    )


def step_does(config: ModelConfig) -> ScaleEffect:
    """Return what carry and next loop together make of a change of s_k in s_{k+1}."""
    return _strongest([carry_does(config), core_does(config)])


def _strongest(parts: Sequence[ScaleEffect]) -> ScaleEffect:
    """The first of those that leave least."""
    order: tuple[Effect, ...] = ("removes", "damps", "keeps")
    return min(parts, key=lambda does: order.index(does.effect))


def holds_scale(config: ModelConfig) -> str:
    """Say in a few words what in the architecture holds the state's scale; for tables."""
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
