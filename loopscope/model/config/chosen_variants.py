"""What a config has chosen of the readouts, carries, injections and start states, shipped and of the user's own."""

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
from loopscope.model.config.variants import CARRIES, INJECTIONS, READOUTS, STARTS
from loopscope.results.class_names import ClassNames
from loopscope.results.declaration import check_value

if TYPE_CHECKING:
    from loopscope.model.config import ModelConfig

Declared = TypeVar("Declared", bound=VariantDeclaration)


@dataclass(frozen=True)
class Variant(Generic[Declared]):
    """A variant as a config has it: its declaration, with the settings it is asked with."""

    name: str
    declaration: Declared
    config: "ModelConfig"
    settings: Any
    noun: str = "variant"

    def value(self, field: str) -> Any:
        """Return what the variant declares, for this config.

        Raises:
            ValueError: a function of config and settings stands there, and gives what the field does not take.
        """
        declared = getattr(self.declaration, field)
        if not callable(declared):
            return declared
        found = declared(self.config, self.settings)
        check_value(f"{self.noun} {self.name}", field, found, self.declaration.kinds()[field], called=True)
        return found

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
    return Variant(name, names.declaration(name), config, names.settings(name, given), names.noun)
