"""How deep each training step unrolls, and how far its gradient goes back. Importable without torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

LARGEST_MEAN = 10_000
"""Largest mean depth: far beyond what is trained, and far below where drawing a Poisson number fails."""
LARGEST_LIMIT = 1_000_000
"""Of what limits a depth: above any depth that is drawn."""
LARGEST_SPREAD = 2.0
"""Largest spread. The mean is kept, so the median falls as mean·e^(-spread²/2): at 2 it is an eighth of the mean."""


class DepthConfig(BaseModel):
    """The number of loops of a step: a pure function of (seed, step), as the batch is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    distribution: Literal["fixed", "uniform", "lognormal-poisson"] = "fixed"
    """uniform: from low to high. lognormal-poisson: 1 + Poisson(e^τ), τ normal, as recurrent-depth pretraining."""
    mean: float | None = Field(None, gt=0, le=LARGEST_MEAN)
    """fixed: the depth. lognormal-poisson: the mean of e^τ, so that the mean depth is one more. None: model.loops."""
    spread: float = Field(0.5, ge=0)
    """lognormal-poisson: standard deviation of τ."""
    low: int = Field(1, ge=1, le=LARGEST_LIMIT)
    """Fewest loops; where a curriculum starts. fixed: only that."""
    high: int | None = Field(None, ge=1, le=LARGEST_LIMIT)
    """Most loops, not for fixed. None: model.loops for uniform, no limit for lognormal-poisson."""
    per_sequence: bool = False
    """One depth per sequence: one that is done keeps its state, and its loss is at its own depth."""
    backprop: int | None = Field(None, ge=1, le=LARGEST_LIMIT)
    """Gradient through this many last loops only; earlier loops keep nothing. None: through all."""
    curriculum: int = Field(0, ge=0, le=10**12)
    """Steps over which the mean (fixed, lognormal-poisson) or high (uniform) grows from low to its value."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"distribution": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "DepthConfig":
        if self.high is not None and self.high < self.low:
            raise ValueError(f"high {self.high} is below low {self.low}")
        if self.spread > LARGEST_SPREAD:
            raise ValueError(
                f"spread {self.spread} is above {LARGEST_SPREAD}: the mean depth would come from a few very deep "
                "steps, and nearly all the others would run 1 or 2 loops; give 2 or less (0.5 is usual)"
            )
        if self.distribution == "fixed":
            if self.per_sequence:
                raise ValueError(
                    "per_sequence needs a distribution; distribution 'fixed' gives all sequences one depth"
                )
            if self.mean is not None and self.mean != int(self.mean):
                raise ValueError(f"mean {self.mean} must be a whole number for distribution 'fixed'")
            self._check_limits_of_fixed()
        if self.distribution == "uniform" and self.mean is not None:
            raise ValueError(
                "mean does nothing for distribution 'uniform', which has low and high; remove it"
            )
        if self.distribution != "lognormal-poisson" and self.spread != 0.5:
            raise ValueError(f"spread belongs to 'lognormal-poisson', not {self.distribution!r}; remove it")
        return self

    def _check_limits_of_fixed(self) -> None:
        """Limits would move a depth that is given; only a curriculum has a use for one of them."""
        if self.high is not None:
            raise ValueError(
                f"high {self.high} limits a distribution, and distribution 'fixed' has one depth; set mean to that "
                "depth, or distribution: uniform"
            )
        if self.low != 1 and not self.curriculum:
            raise ValueError(
                f"low {self.low} limits a distribution or starts a curriculum, and distribution 'fixed' has one "
                "depth; set mean to that depth, distribution: uniform, or a curriculum"
            )

    def fewest(self, loops: int) -> int:
        """Return the least depth a step may have, for a model of `loops`."""
        if self.distribution == "fixed" and not self.curriculum:
            return int(self.mean or loops)
        return self.low

    def most(self, loops: int) -> int:
        """Return the most loops of a step, for a model of `loops`. Not for lognormal-poisson: it need not have one."""
        return int((self.high if self.distribution == "uniform" else self.mean) or loops)

    @property
    def varies(self) -> bool:
        """Whether steps may run at another depth than the model's."""
        return self.distribution != "fixed" or self.mean is not None or self.curriculum > 0

    def average(self, loops: int) -> float:
        """Return the mean depth of a step, once a curriculum is over; limits of a log-normal's tail are not counted.

        Args:
            loops: the model's trained depth.
        """
        mean = float(loops if self.mean is None else self.mean)
        match self.distribution:
            case "uniform":
                return (self.low + (self.high or loops)) / 2
            case "lognormal-poisson":
                return 1 + mean
        return mean


_STREAM = 0xDE97  # keeps these draws apart from every other use of (seed, step)


def draw_depths(config: DepthConfig, loops: int, seed: int, step: int, count: int) -> tuple[int, ...]:
    """Draw the depths of step `step` (0-based): one, or one per sequence of a batch of `count`.

    Args:
        loops: the model's trained depth.

    The log-normal Poisson is that of Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning" (arXiv
    2502.05171): τ ~ N(log mean - spread²/2, spread), depth = 1 + Poisson(e^τ).
    """
    import numpy as np

    generator = np.random.default_rng([_STREAM, seed, step])
    draws = count if config.per_sequence else 1
    mean = float(loops if config.mean is None else config.mean)
    match config.distribution:
        case "fixed":
            depths = np.full(draws, round(_grown(config, mean, step)))
        case "uniform":
            high = round(_grown(config, float(config.high or loops), step))
            depths = generator.integers(config.low, max(high, config.low), size=draws, endpoint=True)
        case "lognormal-poisson":
            centre = np.log(_grown(config, mean, step)) - config.spread**2 / 2
            depths = 1 + generator.poisson(np.exp(generator.normal(centre, config.spread, size=draws)))
    limited = np.clip(depths, config.low, config.high)
    return tuple(int(depth) for depth in limited)


def _grown(config: DepthConfig, value: float, step: int) -> float:
    """The curriculum: linear from low to `value` over the first steps."""
    if step >= config.curriculum:
        return value
    return config.low + (value - config.low) * step / config.curriculum
