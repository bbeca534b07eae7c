"""What readouts, carries, injections and start states have in common: how a model builds one."""

from abc import ABC
from typing import Any

from torch import nn

from loopscope.model.config import ModelConfig


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
