"""What placements declare of themselves, and the shipped ones. Importable without torch.

Training asks the class; costs, the static audit and checks of a config ask the declaration. A test holds both to
each other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from loopscope.results.class_names import UNDECLARED, ClassNames, Shipped

if TYPE_CHECKING:
    from loopscope.objectives.config import ObjectiveConfig

Reads = Literal["last", "all"] | Callable[[int, int, "ObjectiveConfig", Any], bool]
"""The last loop of an unroll, every loop, or a function of loop, loops, the objective's config and own settings."""

Gate = Literal["unused", "weighs", "alone"]
"""weighs: its probabilities weigh the exits, and its gradient reaches H_k. alone: only the gate is trained."""


@dataclass(frozen=True, kw_only=True)
class PlacementDeclaration:
    """A placement: which loops' cross-entropies make the loss. Fields without a default must be given.

    Attributes:
        reads: the loops whose cross-entropy enters the loss.
        by_token: it weighs tokens one by one, so that the head's product is done once more in the backward pass.
        gate: what it does with the exit gate; all but `unused` need a model with one.
        fewest_loops: an unroll needs so many.
        settings: a pydantic model of its own settings (`objective.settings`), or None where it has none.
        fields: settings of `objective` that belong to it alone; for shipped placements.
    """

    reads: Reads = UNDECLARED
    by_token: bool = UNDECLARED
    gate: Gate = UNDECLARED
    fewest_loops: int = 1
    settings: type[BaseModel] | None = None
    fields: tuple[str, ...] = ()


def _weighed(loop: int, loops: int, config: "ObjectiveConfig", _: object) -> bool:
    weights = config.loop_weights if config.final_loop_weights is None else config.final_loop_weights
    return weights is None or weights[loop - 1] > 0


PLACEMENTS = ClassNames(
    noun="placement",
    setting="objective.placement",
    group="loopscope.placements",
    base="loopscope.objectives.placements:AbstractPlacement",
    shipped={
        "terminal": Shipped(
            PlacementDeclaration(reads="last", by_token=False, gate="unused"),
            "loopscope.objectives.placements:Terminal",
        ),
        "dense": Shipped(
            PlacementDeclaration(
                reads=_weighed,
                by_token=False,
                gate="unused",
                fields=("loop_weights", "final_loop_weights"),
            ),
            "loopscope.objectives.placements:Dense",
        ),
        "exit-weighted": Shipped(
            PlacementDeclaration(reads="all", by_token=True, gate="weighs", fields=("entropy_weight",)),
            "loopscope.objectives.placements:ExitWeighted",
        ),
        "gate-improvement": Shipped(
            PlacementDeclaration(
                reads="all",
                by_token=False,
                gate="alone",
                fewest_loops=2,
                fields=("gate_slope", "gate_threshold"),
            ),
            "loopscope.objectives.gate_stage:GateImprovement",
        ),
    },
)


@dataclass(frozen=True)
class Placement:
    """A placement as an objective's config has it."""

    name: str
    declaration: PlacementDeclaration
    config: "ObjectiveConfig"
    settings: Any

    def reads(self, loop: int, loops: int) -> bool:
        """Return whether the cross-entropy of `loop` enters the loss of an unroll of `loops`."""
        declared = self.declaration.reads
        if callable(declared):
            return bool(declared(loop, loops, self.config, self.settings))
        return declared == "all" or loop == loops

    def trains(self, loop: int, loops: int) -> bool:
        """Return whether the gradient of that loop's cross-entropy reaches H of `loop`."""
        return self.declaration.gate != "alone" and self.reads(loop, loops)

    @property
    def needs_gate(self) -> bool:
        """Whether the model has to have an exit gate."""
        return self.declaration.gate != "unused"

    @property
    def gate_only(self) -> bool:
        """Whether all but the gate is held fixed."""
        return self.declaration.gate == "alone"


def placement_of(config: "ObjectiveConfig") -> Placement:
    """Return the placement that an objective's config names."""
    name = config.placement
    return Placement(name, PLACEMENTS.declaration(name), config, PLACEMENTS.settings(name, config.settings))
