"""The settings of an objective. Importable without torch."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)

from loopscope.objectives.placement_config import PLACEMENTS, check_reads, placement_of
from loopscope.objectives.schedule_checks import FORM, check_schedule

MOST_WEIGHT = 1e30
"""Of a term of the loss: far beyond use, and within single precision."""


def check_loop_weights(weights: tuple[float, ...] | None) -> None:
    """Raise ValueError unless the weights are non-negative with a positive sum."""
    if weights is not None and (min(weights, default=-1.0) < 0 or not 0 < sum(weights) <= MOST_WEIGHT):
        raise ValueError(f"loop_weights is {list(weights)}; give numbers >= 0, at least one above 0")


class PenaltyConfig(BaseModel):
    """A term on the mean square of the state. Weight 0 leaves it out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    weight: float = Field(0.0, ge=0, le=MOST_WEIGHT)
    """What the term is multiplied by; 0 leaves it out."""
    over: Literal["all", "each"] = "all"
    """all: one term on the mean over loops, as published. each: one term per loop, averaged."""
    loop_weights: tuple[float, ...] | None = None
    """With `each`: how much every loop counts. Divided by their sum."""

    @model_validator(mode="before")
    @classmethod
    def _from_weight(cls, value: Any) -> Any:
        return {"weight": value} if isinstance(value, int | float | str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "PenaltyConfig":
        if self.loop_weights is not None and self.over != "each":
            raise ValueError("loop_weights belong to over: each; set that, or remove them")
        check_loop_weights(self.loop_weights)
        return self


class AnchorConfig(PenaltyConfig):
    """A pull of the state's RMS towards a target."""

    target: float = Field(1.0, gt=0, le=MOST_WEIGHT)
    """The RMS that the state is pulled to."""


class ShortcutConfig(BaseModel):
    """A shorter unroll is pulled towards the whole one (LoopFormer). Weight 0 leaves it out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    weight: float = Field(0.0, ge=0, le=MOST_WEIGHT)
    """On the mean squared distance of the two readouts."""
    loss_weight: float = Field(0.1, ge=0, le=MOST_WEIGHT)
    """On the shorter unroll's own cross-entropy."""


class JacobianConfig(BaseModel):
    """A penalty on how far the loop map stretches (STARS). Weight 0 leaves it out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    weight: float = Field(0.0, ge=0, le=MOST_WEIGHT)
    """What the term is multiplied by; 0 leaves it out."""
    iterations: int = Field(1, ge=1, le=1000)
    """Power iterations."""
    through_state: bool = False
    """Let its gradient reach the state too, which it then sees; STARS holds the state fixed."""


class ObjectiveConfig(BaseModel):
    """Which loops' cross-entropies make the loss, and what else does.

    With a `schedule`, its own terms are those of the last phase: what training ends with, and what the trained model
    is judged under.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    placement: str = "dense"
    """terminal, dense, exit-weighted, gate-improvement; package.module:ClassName for one of your own, or its short
    name."""
    loop_weights: tuple[float, ...] | None = None
    """dense: how much every loop counts, divided by their sum; None weighs all alike."""
    final_loop_weights: tuple[float, ...] | None = None
    """dense: what loop_weights (None: all alike) become by the end of training, linearly, each as shares."""
    entropy_weight: float = Field(0.1, ge=0, le=MOST_WEIGHT)
    """exit-weighted: reward for an undecided gate, which keeps it from collapsing onto one loop."""
    norm_penalty: PenaltyConfig = PenaltyConfig()
    """weight × mean square of H over loops, tokens and channels."""
    scale_anchor: AnchorConfig = AnchorConfig()
    """weight × (root of that mean − target)²."""
    shortcut: ShortcutConfig = ShortcutConfig()
    """A shorter unroll is pulled towards the whole one (LoopFormer)."""
    jacobian: JacobianConfig = JacobianConfig()
    """A penalty on how far the loop map stretches (STARS)."""
    gate_slope: float = Field(50.0, gt=0, le=1e6)
    """gate-improvement: how sharply an improvement counts as one."""
    gate_threshold: float = Field(0.005, ge=0, le=1e6)
    """gate-improvement: nats by which another loop must help."""
    settings: dict[str, Any] = {}
    """Of a placement of your own: what it declares."""
    schedule: "tuple[PhaseConfig, ...] | None" = None
    """Objectives one after another over the run, instead of one: each phase with its terms, and until when."""

    @field_validator("schedule", mode="before")
    @classmethod
    def _is_list(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, list | tuple):
            raise ValueError(f"{value!r:.80} is no list; give the phases in order: {FORM}")
        return value

    @model_validator(mode="after")
    def _ends_with_last_phase(self) -> "ObjectiveConfig":
        if self.schedule is not None:
            check_schedule(self.schedule, self.model_fields_set - {"schedule"})
            for name in ObjectiveConfig.model_fields.keys() - {"schedule"}:
                object.__setattr__(self, name, getattr(self.schedule[-1], name))
        return self

    @model_serializer(mode="wrap")
    def _phases_alone(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        values = handler(self)
        if values.get("schedule") is None:
            values.pop("schedule", None)
            return values
        return {"schedule": values["schedule"]}  # the rest is the last phase's, and said there

    @property
    def phases(self) -> "tuple[ObjectiveConfig, ...]":
        """The objectives that training has one after another; this one alone where there is no schedule."""
        return self.schedule or (self,)

    def named_phases(self) -> "Iterator[tuple[str, ObjectiveConfig]]":
        """Every phase with its place in a config: `objective`, or `objective.schedule.0` and so on."""
        for number, phase in enumerate(self.phases):
            yield "objective" if self.schedule is None else f"objective.schedule.{number}", phase

    @model_validator(mode="after")
    def _consistent(self) -> "ObjectiveConfig":
        placement = placement_of(self)
        for owner, shipped in PLACEMENTS.shipped.items():
            for name in shipped.declaration.fields:
                changed = getattr(self, name) != type(self).model_fields[name].default
                if changed and owner != self.placement:
                    raise ValueError(
                        f"{name} belongs to placement {owner!r}, not {self.placement!r}; remove it"
                    )
        for weights in (self.loop_weights, self.final_loop_weights):
            check_loop_weights(weights)
        check_reads(placement)
        if placement.gate_only:
            added = ("norm_penalty", "scale_anchor", "shortcut", "jacobian")
            if on := [name for name in added if getattr(self, name).weight > 0]:
                raise ValueError(
                    f"placement {self.placement!r} trains the gate alone; {', '.join(on)} would train the rest: "
                    "set their weight to 0"
                )
        return self

    def check_loops(self, loops: int) -> None:
        """Raise ValueError where per-loop weights or the loops that are read do not fit the trained depth."""
        for where, phase in self.named_phases():
            check_reads(placement_of(phase), (loops,))
            for name, weights in phase.weights_by_loop().items():
                if weights is not None and len(weights) != loops:
                    raise ValueError(
                        f"{where}.{name} has {len(weights)} numbers for {loops} loops; give one per loop"
                    )

    def weights_by_loop(self) -> dict[str, tuple[float, ...] | None]:
        """Settings with one number per loop, by name."""
        return {
            "loop_weights": self.loop_weights,
            "final_loop_weights": self.final_loop_weights,
            "norm_penalty.loop_weights": self.norm_penalty.loop_weights,
            "scale_anchor.loop_weights": self.scale_anchor.loop_weights,
        }


class PhaseConfig(ObjectiveConfig):
    """An objective for a part of the run, and where that part ends."""

    until: float | None = None
    """Share of the run's steps at which the phase ends, above 0 and up to 1. The last phase needs none."""
    until_step: int | None = None
    """Last step of the phase, instead of a share: where it stays when the run is made longer."""
    schedule: None = Field(None, exclude=True)
    """A phase has no phases."""

    @model_serializer(mode="wrap")
    def _phases_alone(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        values = handler(self)
        ends = {name: values.pop(name) for name in ("until", "until_step")}
        return {**{name: end for name, end in ends.items() if end is not None}, **values}


ObjectiveConfig.model_rebuild()
