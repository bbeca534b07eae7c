"""What a run of a foreign forward leaves behind: the calls of its parts, without the states they were called with."""

from dataclasses import dataclass, field

from jaxtyping import Int
from torch import Tensor, nn

from loopscope.interop.external.calls import Call


@dataclass
class Trace:
    """One whole run of the module's forward: what its parts were called with."""

    input_ids: Int[Tensor, "batch seq"]
    set_to: int | None  # the number of loops the forward was told to run; None where it was left alone
    calls: list[list[Call]] = field(default_factory=list)  # by loop and layer, without their states
    others: dict[nn.Module, Call] = field(default_factory=dict)  # last calls of readout and gate parts
    states: dict[int, Tensor] = field(default_factory=dict)  # the block's outputs, where they were asked for

    @property
    def depth(self) -> int:
        """Loops that the forward ran."""
        return len(self.calls)
