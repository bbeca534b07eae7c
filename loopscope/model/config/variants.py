"""The shipped readouts, carries, injections and start states.

One record a variant, to which its class points; a test holds both to each other: parameters counted on the module,
FLOPs by torch's counter, exponents and effects by scaling. Importable without torch.
"""

from typing import TYPE_CHECKING

from loopscope.model.config.declarations import (
    CarryDeclaration,
    InjectionDeclaration,
    ReadoutDeclaration,
    StartDeclaration,
)
from loopscope.results.class_names import ClassNames, Shipped

if TYPE_CHECKING:
    from loopscope.model.config import ModelConfig


def _alpha_exponent(config: "ModelConfig", _: object) -> float:
    readout = config.readout
    if readout.learned:  # its start, which is never quite at an end of its range
        return min(max(readout.alpha, readout.alpha_min + 1e-4), readout.alpha_max)
    return readout.alpha


def _alpha_parameters(config: "ModelConfig", _: object) -> int:
    readout = config.readout
    return (config.loops if readout.per_loop else 1) * (readout.learned + (readout.s_ref == "learned"))


READOUTS = ClassNames(
    noun="readout",
    setting="model.readout.kind",
    group="loopscope.readouts",
    base="loopscope.model.readouts.base:AbstractReadout",
    public="loopscope.model.AbstractReadout",
    shipped={
        "rmsnorm": Shipped(
            ReadoutDeclaration(
                scale_exponent=0.0, parameters=lambda config, _: config.dim, flops=0, norm=True
            ),
            "loopscope.model.readouts.normed:RMSNormReadout",
        ),
        "layernorm": Shipped(
            ReadoutDeclaration(
                scale_exponent=0.0, parameters=lambda config, _: 2 * config.dim, flops=0, norm=True
            ),
            "loopscope.model.readouts.normed:LayerNormReadout",
        ),
        "raw": Shipped(
            ReadoutDeclaration(scale_exponent=1.0, parameters=0, flops=0),
            "loopscope.model.readouts.raw:RawReadout",
        ),
        "final-only": Shipped(
            # It has a norm, but one that most loops do not use: nobody shares it.
            ReadoutDeclaration(
                scale_exponent=1.0,
                last_scale_exponent=0.0,
                parameters=lambda config, _: config.dim,
                flops=0,
            ),
            "loopscope.model.readouts.final_only:FinalOnlyReadout",
        ),
        "alpha": Shipped(
            ReadoutDeclaration(
                scale_exponent=_alpha_exponent,
                parameters=_alpha_parameters,
                flops=0,
                adapts=lambda config, _: config.readout.s_ref == "ema",
                fields=(
                    "alpha",
                    "learned",
                    "per_loop",
                    "s_ref",
                    "s_ref_value",
                    "ema_decay",
                    "alpha_min",
                    "alpha_max",
                ),
            ),
            "loopscope.model.readouts.alpha:AlphaReadout",
        ),
    },
)

_DIVIDES = "divides by the state's own size"
_SHRINKS = "multiplies the state by a learned factor below 1"


def _needs_readout_norm(config: "ModelConfig", _: object) -> str | None:
    if READOUTS.declaration(config.readout.kind).norm:
        return None
    return f"carry 'readout-norm' uses the readout's norm; readout {config.readout.kind!r} has none"


def _needs_injection(config: "ModelConfig", _: object) -> str | None:
    if config.injection.kind != "none":
        return None
    return (
        "carry 'decay' without an injection: the state would only fade. Set injection.kind: write (the "
        "learned write of the same discretisation), or another kind"
    )


def _needs_decay(config: "ModelConfig", _: object) -> str | None:
    if "decay" in config.carry:
        return None
    return "injection 'write' takes its step from the decay; add decay to carry"


CARRIES = ClassNames(
    noun="carry",
    setting="model.carry",
    group="loopscope.carries",
    base="loopscope.model.carries:AbstractCarry",
    public="loopscope.model.AbstractCarry",
    shipped={
        "rmsnorm": Shipped(
            CarryDeclaration(
                effect="removes", why=_DIVIDES, parameters=lambda config, _: config.dim, flops=0
            ),
            "loopscope.model.carries:RMSNormCarry",
        ),
        "layernorm": Shipped(
            CarryDeclaration(
                effect="removes", why=_DIVIDES, parameters=lambda config, _: 2 * config.dim, flops=0
            ),
            "loopscope.model.carries:LayerNormCarry",
        ),
        "readout-norm": Shipped(
            CarryDeclaration(
                effect="removes",
                why=_DIVIDES,
                parameters=0,
                flops=0,
                readout_norm=True,
                needs=_needs_readout_norm,
            ),
            "loopscope.model.carries:ReadoutNormCarry",
        ),
        "damping": Shipped(
            CarryDeclaration(effect="damps", why=_SHRINKS, parameters=1, flops=0, fields=("damping",)),
            "loopscope.model.carries:DampingCarry",
        ),
        "decay": Shipped(
            CarryDeclaration(
                effect="damps",
                why=_SHRINKS,
                parameters=lambda config, _: 2 * config.dim,
                flops=0,
                needs=_needs_injection,
                fields=("decay",),
            ),
            "loopscope.model.carries:DecayCarry",
        ),
    },
)

INJECTIONS = ClassNames(
    noun="injection",
    setting="model.injection.kind",
    group="loopscope.injections",
    base="loopscope.model.injections:AbstractInjection",
    public="loopscope.model.AbstractInjection",
    shipped={
        "add": Shipped(
            InjectionDeclaration(effect="keeps", parameters=0, flops=0),
            "loopscope.model.injections:AddInjection",
        ),
        "gated": Shipped(
            InjectionDeclaration(
                effect="keeps",
                parameters=lambda config, _: 2 * config.dim**2 + config.dim,
                flops=lambda config, _: 4 * config.dim**2,
            ),
            "loopscope.model.injections:GatedInjection",
        ),
        "concat": Shipped(
            InjectionDeclaration(
                effect="keeps",
                learned_map=True,
                parameters=lambda config, _: 2 * config.dim**2,
                flops=lambda config, _: 4 * config.dim**2,
            ),
            "loopscope.model.injections:ConcatInjection",
        ),
        "write": Shipped(
            InjectionDeclaration(
                effect="keeps",
                parameters=lambda config, _: config.dim**2,
                flops=lambda config, _: 2 * config.dim**2,
                input_flops=lambda config, _: 2 * config.dim**2,
                needs=_needs_decay,
            ),
            "loopscope.model.injections:WriteInjection",
        ),
    },
)
"""`none` is no injection, and no variant."""

STARTS = ClassNames(
    noun="start",
    setting="model.start",
    group="loopscope.starts",
    base="loopscope.model.initial_state:AbstractStart",
    public="loopscope.model.AbstractStart",
    shipped={
        "embedding": Shipped(
            StartDeclaration(shows_input=True, parameters=0, flops=0),
            "loopscope.model.initial_state:EmbeddingStart",
        ),
        "zero": Shipped(
            StartDeclaration(shows_input=False, parameters=0, flops=0),
            "loopscope.model.initial_state:ZeroStart",
        ),
        "random": Shipped(
            StartDeclaration(shows_input=False, parameters=0, flops=0),
            "loopscope.model.initial_state:RandomStart",
        ),
    },
)
