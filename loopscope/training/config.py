"""The settings of a training run. Importable without torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from loopscope.objectives.depth_config import DepthConfig


class TrainingConfig(BaseModel):
    """How long, how fast, and what is written on the way."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int | None = Field(150, ge=1)
    """Optimizer steps; None where `epochs` says how long."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the training windows, instead of `steps`."""
    batch: int = Field(16, ge=1)
    """Sequences per optimizer step."""
    accumulation: int = Field(1, ge=1)
    """Parts that a batch is split into, to save memory; the gradient is the same."""
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    final_learning_rate: float = Field(0.1, ge=0, le=1)
    """Where cosine ends, as a share of the learning rate."""
    weight_decay: float = Field(0.01, ge=0)
    decay: Literal["matrices", "published"] = "matrices"
    """What decays: matrices only (no norms, no embeddings, no scalars), or everything, as published."""
    betas: tuple[float, float] = (0.9, 0.999)
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the layers' matrices, AdamW for the rest, one learning rate for both."""
    depth: DepthConfig = DepthConfig()
    """How many loops each step runs, and how many of them the gradient goes through."""
    clip: float = Field(1.0, gt=0)
    """Largest L2 norm of the gradient."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 autocasts products; weights, norms, losses and scales stay fp32. auto: where hardware has it."""
    gradient_checkpointing: Literal["none", "layer", "loop"] = "none"
    """What the backward pass computes again instead of keeping: nothing, a layer at a time, or a loop at a time."""
    compile: bool | Literal["auto"] = "auto"
    """Run training steps through torch.compile: layers on CUDA; on a CPU chains of element-wise passes, which takes a
    C++ compiler and half a minute. auto: on a CPU that has a compiler, in runs of more than a quarter of an hour."""
    cpu_ops: Literal["auto", "off"] = "auto"
    """auto: operations of our own (`loopscope.ops`) where a CPU is faster with them. off: plain formulas everywhere."""
    weights: str | None = None
    """Start from the weights of this run or model folder (an exit gate may be new); None: from initialisation."""
    seed: int = Field(0, ge=0)
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    """CPU threads; None leaves torch's choice."""
    log_every: int = Field(10, ge=1)
    monitor_every: int | None = Field(20, ge=0)
    """Steps between checks for a scale that grows unseen, stretched to cost at most 2 %; 0 or None: none."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between evaluations; None evaluates at the end only."""
    evaluate_windows: int | None = Field(None, ge=1)
    """Validation windows per evaluation during training, spread evenly; the final one always takes all."""
    final_windows: int | None = Field(None, ge=1)
    """Windows of the final evaluation; None takes the whole validation set."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Steps between checkpoints; None saves at the end only."""

    @model_validator(mode="before")
    @classmethod
    def _epochs_replace_steps(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is not None and "steps" not in values:
            return {**values, "steps": None}
        return values

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _checkpointing_from_flag(cls, value: Any) -> Any:
        return {True: "layer", False: "none"}.get(value, value) if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if self.steps is None and self.epochs is None:
            raise ValueError("steps and epochs are both empty; give one of them")
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"steps {self.steps} and epochs {self.epochs} are both given; set one to null")
        if self.batch % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide batch {self.batch}")
        return self
