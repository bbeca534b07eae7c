"""What placements declare of themselves, and the shipped ones. Importable without torch.

Training asks the class; costs, the static audit and checks of a config ask the declaration. A test holds both to
each other.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from loopscope.results.class_names import ClassNames, Shipped
from loopscope.results.declaration import DOCS, UNDECLARED, AbstractDeclaration

if TYPE_CHECKING:
    from loopscope.objectives.config import ObjectiveConfig

Reads = Literal["last", "all"] | Callable[[int, int, "ObjectiveConfig", Any], bool]
"""The last loop of an unroll, every loop, or a function of loop, loops, the objective's config and own settings."""

Gate = Literal["unused", "weighs", "alone"]
"""weighs: its probabilities weigh the exits, and its gradient reaches H_k. alone: only the gate is trained."""


@dataclass(frozen=True, kw_only=True)
class PlacementDeclaration(AbstractDeclaration):
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
    public="loopscope.objectives.AbstractPlacement",
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


DEPTHS = range(1, 9)
"""Loops of the unrolls that are asked about."""


def check_reads(chosen: Placement, depths: Iterable[int] = DEPTHS) -> None:
    """Hold a placement of the user's own to the loops that it declares to read, at a few depths.

    Raises:
        ValueError: its `reads` or `share` says otherwise, or `share` and `by_token` do not fit.
    """
    if not PLACEMENTS.is_own(chosen.name):
        return  # a test holds the shipped ones
    placement = PLACEMENTS.load(chosen.name).from_config(chosen.config, chosen.settings)
    if placement.moves:
        placement.advance(1.0)  # one that changes over training declares what it comes to
    for loops in [loops for loops in depths if loops >= chosen.declaration.fewest_loops]:
        try:
            problem = wrong_reads(placement, chosen.reads, loops)
        except Exception:  # a depth that it is not made for: it has weights for so many loops, say
            continue
        if problem:
            raise ValueError(
                f"placement {chosen.name} {problem}: the static audit and costs go by the declaration. Let both say "
                f"the same ({DOCS})"
            )


def wrong_reads(placement: Any, declared: Callable[[int, int], bool], loops: int) -> str | None:
    """Return where a placement's declaration and what its class does differ in an unroll of `loops`, or None."""
    for loop in range(1, loops + 1):
        says, reads, share = declared(loop, loops), placement.reads(loop, loops), placement.share(loop, loops)
        told = f"declares that it {'reads' if says else 'does not read'} loop {loop} of {loops}"
        if bool(reads) != says:
            return f"{told}, and its method `reads` says {bool(reads)}"
        if share is not None and bool(share) != says:
            return f"{told}, and its `share` of that loop is {share:g}"
        by_token = placement.declaration.by_token
        if placement.declaration.gate != "alone" and by_token is not (share is None):
            given = "None" if share is None else f"{share:g}"
            return f"declares by_token={by_token}, and its `share` of loop {loop} of {loops} is {given}"
    return None
