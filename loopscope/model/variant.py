"""What readouts, carries, injections and start states have in common: how a model builds one."""

import inspect
from abc import ABC
from typing import Any

from torch import nn

from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import Declared, Variant
from loopscope.results.class_names import ClassNames
from loopscope.results.declaration import DOCS


class AbstractVariant(nn.Module, ABC):
    """A part of a model that its config names, as a class. Every class declares itself, as its kind's base says."""

    def __init__(self, config: ModelConfig | None = None, settings: Any = None) -> None:
        """
        Args:
            config: of the model.
            settings: an instance of the settings that the class declares; None where it declares none.
        """
        super().__init__()

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "AbstractVariant":
        """Build one for a model. Override it where the constructor takes something else."""
        return cls(config, settings)


def build_variant(names: ClassNames[Declared], chosen: Variant[Declared]) -> Any:
    """Return the module of a variant that a config has chosen, held to the parameters that its class declares.

    Raises:
        ValueError: a constructor that does not take config and settings, or another number of parameters.
    """
    found, owner = names.load(chosen.name), f"{names.noun} {chosen.name}"
    if getattr(found.from_config, "__func__", None) is AbstractVariant.from_config.__func__:  # type: ignore[attr-defined]
        try:
            inspect.signature(found).bind(chosen.config, chosen.settings)
        except TypeError as error:
            raise ValueError(
                f"{owner} is made by {found.__name__}(config, settings), which its constructor does not take: {error}. "
                f"Take these two, or override from_config ({DOCS})"
            ) from None
    module = found.from_config(chosen.config, chosen.settings)
    count = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    if count != chosen.parameters:
        raise ValueError(
            f"{owner} declares {chosen.parameters:,} parameters, and its module has {count:,} (model.dim is "
            f"{chosen.config.dim}): correct `parameters` of its declaration, which costs go by ({DOCS})"
        )
    return module
