"""The settings of a training run. Importable without torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from loopscope.objectives.depth_config import DepthConfig

MOST_THREADS = 1024
"""Far more and a process cannot start them: it ends without a word."""
_LONG = 10**12  # steps, windows: no limit that anyone meets, and far below where arithmetic fails


class TrainingConfig(BaseModel):
    """How long, how fast, and what is written on the way."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    steps: int | None = Field(150, ge=1, le=_LONG)
    """Optimizer steps; None where `epochs` says how long."""
    epochs: float | None = Field(None, gt=0, le=1e6)
    """Passes over the training windows, instead of `steps`."""
    batch: int = Field(16, ge=1, le=2**20)
    """Sequences per optimizer step, over all processes."""
    accumulation: int = Field(1, ge=1, le=2**20)
    """Parts that a batch is split into, to save memory; the gradient is the same."""
    learning_rate: float = Field(1e-3, gt=0, le=1e30)
    """Of every step, or where the schedule starts from after its warm-up."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the learning rate goes on after the warm-up."""
    warmup: int = Field(0, ge=0, le=_LONG)
    """Steps of linear warm-up."""
    final_learning_rate: float = Field(0.1, ge=0, le=1)
    """Where cosine ends, as a share of the learning rate."""
    weight_decay: float = Field(0.01, ge=0, le=1e30)
    """Share of a weight that a step takes away, times the learning rate."""
    decay: Literal["matrices", "published"] = "matrices"
    """What decays: matrices only (no norms, no embeddings, no scalars), or everything, as published."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW: what the running means of gradient and squared gradient keep at every step."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the layers' matrices, AdamW for the rest, one learning rate for both."""
    depth: DepthConfig = DepthConfig()
    """How many loops each step runs, and how many of them the gradient goes through."""
    clip: float = Field(1.0, gt=0, allow_inf_nan=True)
    """Largest L2 norm of the gradient; .inf cuts nothing."""
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
    seed: int = Field(0, ge=0, lt=2**64)
    """Of initialisation, batches and dropout: the same seed, the same run."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = Field(None, ge=1, le=MOST_THREADS)
    """CPU threads; None leaves torch's choice, and divides the cores among the processes of a machine."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """Of several processes (torchrun): a replica in each (ddp) or weights in shards (fsdp). auto: ddp where it fits."""
    fsdp_reshard: Literal["step", "loop"] = "step"
    """fsdp: shared layers' weights are gathered once a step, or in every loop again, which saves memory."""
    log_every: int = Field(10, ge=1, le=_LONG)
    """Steps between records of the training loss."""
    log: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Trackers that have the run's curves beside `metrics.jsonl`; none of them can stop a run."""
    log_project: str | None = Field(None, min_length=1, max_length=100)
    """What trackio and wandb file it under; None: the name of its study's folder, or loopscope."""
    monitor_every: int | None = Field(20, ge=0, le=_LONG)
    """Steps between checks for a scale that grows unseen, stretched to cost at most 2 %; 0 or None: none."""
    evaluate_every: int | None = Field(None, ge=1, le=_LONG)
    """Steps between evaluations; None evaluates at the end only."""
    evaluate_windows: int | None = Field(None, ge=1, le=_LONG)
    """Validation windows per evaluation during training, spread evenly; the final one always takes all."""
    final_windows: int | None = Field(None, ge=1, le=_LONG)
    """Windows of the final evaluation; None takes the whole validation set."""
    checkpoint_every: int | None = Field(None, ge=1, le=_LONG)
    """Steps between checkpoints; None saves at the end only."""
    keep_last: int = Field(1, ge=1, le=10**6)
    """Newest checkpoints that are kept; with more than one, a damaged newest falls back to the one before."""
    keep_best: int = Field(0, ge=0, le=10**6)
    """Checkpoints kept beside them: those with the lowest validation loss of the last loop, measured at every save on
    `evaluate_windows`."""
    save: Literal["auto", "background", "waiting"] = "auto"
    """background: a checkpoint is copied, and written while training goes on. auto: where it is large and the copy has
    room in memory."""

    @model_validator(mode="before")
    @classmethod
    def _epochs_replace_steps(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is not None and "steps" not in values:
            return {**values, "steps": None}
        return values

    @field_validator("log", mode="before")
    @classmethod
    def _names_between_commas(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            return value
        parts = [part for name in names for part in (name.split(",") if isinstance(name, str) else [name])]
        named = [part.strip() if isinstance(part, str) else part for part in parts]
        named = [part for part in named if part != ""]
        if "none" in named and any(part != "none" for part in named):
            raise ValueError(
                f"{','.join(map(str, named))} asks for none and for others; leave out one or the other"
            )
        twice = [part for place, part in enumerate(named) if part in named[:place]]
        if twice:
            raise ValueError(f"{','.join(map(str, named))} names {twice[0]} twice; name each once")
        return tuple(part for part in named if part != "none")

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
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; both are numbers from 0 up and below 1")
        if self.batch % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide batch {self.batch}")
        return self
