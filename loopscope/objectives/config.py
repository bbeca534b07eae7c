"""The settings of an objective. Importable without torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Placement = Literal["terminal", "dense", "exit-weighted"]


def check_loop_weights(weights: tuple[float, ...] | None) -> None:
    """Raise ValueError unless the weights are non-negative with a positive sum."""
    if weights is not None and (min(weights, default=-1.0) < 0 or sum(weights) <= 0):
        raise ValueError(f"loop_weights is {list(weights)}; give numbers >= 0, at least one above 0")


class PenaltyConfig(BaseModel):
    """A term on the mean square of the state. Weight 0 leaves it out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    weight: float = Field(0.0, ge=0)
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

    target: float = Field(1.0, gt=0)


class ObjectiveConfig(BaseModel):
    """Which loops' cross-entropies make the loss, and what else does."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    placement: Placement = "dense"
    loop_weights: tuple[float, ...] | None = None
    """dense: how much every loop counts, divided by their sum; None weighs all alike."""
    entropy_weight: float = Field(0.1, ge=0)
    """exit-weighted: reward for an undecided gate, which keeps it from collapsing onto one loop."""
    norm_penalty: PenaltyConfig = PenaltyConfig()
    """weight × mean square of H over loops, tokens and channels."""
    scale_anchor: AnchorConfig = AnchorConfig()
    """weight × (root of that mean − target)²."""

    @model_validator(mode="after")
    def _consistent(self) -> "ObjectiveConfig":
        if self.loop_weights is not None and self.placement != "dense":
            raise ValueError(
                f"loop_weights belong to placement 'dense'; placement is {self.placement!r}: remove them"
            )
        check_loop_weights(self.loop_weights)
        if (
            "entropy_weight" in self.model_fields_set
            and self.placement != "exit-weighted"
            and self.entropy_weight != type(self).model_fields["entropy_weight"].default
        ):
            raise ValueError(
                f"entropy_weight belongs to placement 'exit-weighted', not {self.placement!r}; remove it"
            )
        return self

    def check_loops(self, loops: int) -> None:
        """Raise ValueError where per-loop weights do not fit the trained depth."""
        for name, weights in (
            ("objective.loop_weights", self.loop_weights),
            ("objective.norm_penalty.loop_weights", self.norm_penalty.loop_weights),
            ("objective.scale_anchor.loop_weights", self.scale_anchor.loop_weights),
        ):
            if weights is not None and len(weights) != loops:
                raise ValueError(f"{name} has {len(weights)} numbers for {loops} loops; give one per loop")
