"""The shipped readouts, carries, injections and start states, and what a config has chosen of them.

One record a variant, to which its class points; a test holds both to each other: parameters counted on the module,
FLOPs by torch's counter, exponents and effects by scaling. Importable without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from loopscope.model.config.declarations import (
    CarryDeclaration,
    Exponent,
    InjectionDeclaration,
    ReadoutDeclaration,
    StartDeclaration,
    VariantDeclaration,
)
from loopscope.results.class_names import ClassNames, Shipped

if TYPE_CHECKING:
    from loopscope.model.config import ModelConfig

Declared = TypeVar("Declared", bound=VariantDeclaration)


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


@dataclass(frozen=True)
class Variant(Generic[Declared]):
    """A variant as a config has it: its declaration, with the settings it is asked with."""

    name: str
    declaration: Declared
    config: "ModelConfig"
    settings: Any

    def value(self, field: str) -> Any:
        """Return what the variant declares, for this config."""
        declared = getattr(self.declaration, field)
        return declared(self.config, self.settings) if callable(declared) else declared

    @property
    def parameters(self) -> int:
        """Trainable numbers."""
        return int(self.value("parameters"))

    @property
    def flops(self) -> int:
        """Of its matrix products, per token and use."""
        return int(self.value("flops"))

    @property
    def problem(self) -> str | None:
        """What it asks of the rest of the config and does not find."""
        return None if self.declaration.needs is None else self.declaration.needs(self.config, self.settings)


def readout_of(config: "ModelConfig") -> Variant[ReadoutDeclaration]:
    """Return the readout that a config names."""
    return _variant(READOUTS, config.readout.kind, config, config.readout.settings)


def carries_of(config: "ModelConfig") -> list[Variant[CarryDeclaration]]:
    """Return the steps between loops that a config names, in order."""
    return [_variant(CARRIES, name, config, config.carry_settings.get(name, {})) for name in config.carry]


def injection_of(config: "ModelConfig") -> Variant[InjectionDeclaration] | None:
    """Return the injection that a config names, or None."""
    kind = config.injection.kind
    return None if kind == "none" else _variant(INJECTIONS, kind, config, config.injection.settings)


def start_of(config: "ModelConfig") -> Variant[StartDeclaration]:
    """Return the start state that a config names."""
    return _variant(STARTS, config.start, config, config.start_settings)


def variants_of(config: "ModelConfig") -> list[Variant[Any]]:
    """Return all variants that a config names, in the order in which data passes them."""
    injection = injection_of(config)
    return [
        start_of(config),
        *([] if injection is None else [injection]),
        *carries_of(config),
        readout_of(config),
    ]


def exponent_of(config: "ModelConfig", last: bool) -> Exponent:
    """Return how the features of a config's readout grow with the state: see `ReadoutDeclaration.scale_exponent`."""
    readout = readout_of(config)
    at_last = readout.declaration.last_scale_exponent is not None
    found: Exponent = readout.value("last_scale_exponent" if last and at_last else "scale_exponent")
    return found if found == "fades" else float(found)


def _variant(
    names: ClassNames[Declared], name: str, config: "ModelConfig", given: Mapping[str, Any]
) -> Variant[Declared]:
    return Variant(name, names.declaration(name), config, names.settings(name, given))
