"""The config of a run: frozen, checked as a whole, read from and written to YAML.

Each part of the package owns its own settings (`model.config`, `objectives.config`, `data.config`,
`training.config`); this is their sum, with the checks that need two of them. Importable without torch.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from loopscope.config.nested import validated
from loopscope.config.objective_checks import check_objective, check_phase_depth
from loopscope.config.without_effect import cuts, without_effect
from loopscope.data.config import DataConfig
from loopscope.model.config import ModelConfig
from loopscope.objectives.config import ObjectiveConfig
from loopscope.training.config import TrainingConfig


class RunConfig(BaseModel):
    """Everything that decides what a run computes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    condition: str = "dense/rmsnorm"
    """Name of the condition, as reports show it."""
    size: str = "laptop"
    """Name of the size, as reports show it."""
    model: ModelConfig = ModelConfig()
    """What is trained."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """What it is trained on: where the loss is, and what holds the scale."""
    data: DataConfig = DataConfig()
    """The text, or the task, and its tokens."""
    training: TrainingConfig = TrainingConfig()
    """How long, how fast, and what is written on the way."""

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        check_objective(self)
        self._check_depth()
        if self.model.loops == 1 and self.model.carry:
            warnings.warn(
                f"model.carry {list(self.model.carry)} has no effect with 1 loop: there is no next one",
                stacklevel=2,
            )
        for note in without_effect(self):
            warnings.warn(note, stacklevel=2)
        if self.data.corpus == "task":
            self._check_task()
            return self
        tokenizer = self.data.tokenizer
        # A file's size is known once it is read: checked again before training.
        entries = {"bytes": 256, "file": 0}.get(tokenizer.kind, tokenizer.vocabulary)
        if entries > self.model.vocabulary:
            raise ValueError(
                f"data.tokenizer makes up to {entries} ids, model.vocabulary is {self.model.vocabulary}; "
                f"set model.vocabulary: {entries}"
            )
        if tokenizer.kind == "bytes" and self.model.vocabulary > 512:
            warnings.warn(
                f"model.vocabulary is {self.model.vocabulary}, but bytes use 256 ids; 256 would do",
                stacklevel=2,
            )
        return self

    def _check_depth(self) -> None:
        """What a varying depth asks of every phase of the objective, and of the gradient's reach."""
        depth, loops = self.training.depth, self.model.loops
        if depth.distribution != "lognormal-poisson":
            top = depth.most(loops)
            if depth.low > top:
                raise ValueError(
                    f"training.depth.low {depth.low} is above {top}, the most loops of distribution "
                    f"{depth.distribution!r} here; lower it, or raise "
                    f"training.depth.{'high' if depth.distribution == 'uniform' else 'mean'} (None: model.loops)"
                )
        for where, phase in self.objective.named_phases():
            check_phase_depth(self, where, phase)
        if depth.backprop is not None and not depth.varies and depth.backprop >= loops:
            warnings.warn(
                f"training.depth.backprop {depth.backprop} has no effect: all steps run {loops} loops",
                stacklevel=2,
            )
        if cuts(self) and self.model.injection.kind == "none" and (self.model.prelude or not self.model.tied):
            starved = "the prelude and the embedding" if self.model.prelude else "the embedding (tied: false)"
            raise ValueError(
                f"training.depth.backprop {depth.backprop} is below the depth and nothing is injected into later "
                f"loops: {starved} would get no gradient. Set model.injection.kind (add, gated, concat), or raise "
                "backprop"
            )

    def _check_task(self) -> None:
        """What a task asks of the model: room for its symbols and for its problems."""
        task, model = self.data.task, self.model
        if task.entries > model.vocabulary:
            raise ValueError(
                f"data.task {task.name!r} uses {task.entries} ids, model.vocabulary is {model.vocabulary}; set "
                f"model.vocabulary: {task.entries}"
            )
        width = task.width(model.sequence)
        for name, used in (("vocabulary", task.entries), ("sequence", width)):
            if getattr(model, name) > max(used, 32):
                warnings.warn(
                    f"model.{name} is {getattr(model, name)}, but task {task.name!r} uses {used} of them; {used} would "
                    "do",
                    stacklevel=2,
                )

    def to_yaml(self) -> str:
        """Return the config as YAML: every setting, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def parse_config(values: Mapping[str, Any], source: str = "") -> RunConfig:
    """Validate nested plain values, and return the run config that they make.

    Args:
        source: named in the error: a path. Empty where the user's own words are told as they are.

    Raises:
        ValueError: one line per problem: the key, its value, what is allowed, and the nearest name.
    """
    return validated(RunConfig, values, source)


def kept_config(values: Mapping[str, Any], source: str) -> RunConfig:
    """Return the run config of a folder, as `parse_config` does: what a choice has no effect on was said when made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parse_config(values, source)
