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
from loopscope.config.without_effect import cuts, without_effect
from loopscope.data.config import DataConfig
from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import readout_of
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.placement_config import placement_of
from loopscope.training.config import TrainingConfig


class RunConfig(BaseModel):
    """Everything that decides what a run computes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    condition: str = "dense/rmsnorm"
    """Name of the condition, as reports show it."""
    size: str = "laptop"
    """Name of the size, as reports show it."""
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        self.objective.check_loops(self.model.loops)
        placement = placement_of(self.objective)
        if placement.needs_gate and not self.model.exit_gate:
            raise ValueError(
                f"objective.placement {placement.name!r} needs a learned gate; set model.exit_gate: true"
            )
        if placement.gate_only and readout_of(self.model).value("adapts"):
            raise ValueError(
                f"objective.placement {placement.name!r} trains the gate alone, but readout "
                f"{self.model.readout.kind!r} moves with every step; set model.readout.s_ref: fixed, which keeps the "
                "value it has come to, or another readout"
            )
        self._check_depth()
        if self.model.exit_gate and not placement.needs_gate:
            warnings.warn(
                f"model.exit_gate is on, but placement {self.objective.placement!r} never trains the gate",
                stacklevel=2,
            )
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
        """What a varying depth asks of the objective, and of the gradient's reach."""
        depth, objective, loops = self.training.depth, self.objective, self.model.loops
        if depth.distribution != "lognormal-poisson":
            top = depth.most(loops)
            if depth.low > top:
                raise ValueError(
                    f"training.depth.low {depth.low} is above {top}, the most loops of distribution "
                    f"{depth.distribution!r} here; lower it, or raise "
                    f"training.depth.{'high' if depth.distribution == 'uniform' else 'mean'} (None: model.loops)"
                )
        if depth.varies:
            weighted = {
                "loop_weights": objective.loop_weights,
                "final_loop_weights": objective.final_loop_weights,
                "norm_penalty.loop_weights": objective.norm_penalty.loop_weights,
                "scale_anchor.loop_weights": objective.scale_anchor.loop_weights,
            }
            for name, weights in weighted.items():
                if weights is not None:
                    raise ValueError(
                        f"objective.{name} has one number per loop, but training.depth varies the loops per step; "
                        "remove one of the two"
                    )
        if depth.per_sequence:
            self._check_sequences()
        fewest = placement_of(objective).declaration.fewest_loops
        if min(loops, depth.fewest(loops)) < fewest:
            raise ValueError(
                f"objective.placement {objective.placement!r} compares loops; set model.loops (and "
                f"training.depth.low) to {fewest} or more"
            )
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
        if objective.shortcut.weight > 0 and loops == 1 and not depth.varies:
            warnings.warn(
                "objective.shortcut has no effect with 1 loop: there is no shorter way", stacklevel=2
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

    def _check_sequences(self) -> None:
        """What sequences with a depth of their own ask of the objective and of the model."""
        objective = self.objective
        if placement_of(objective).declaration.reads != "last":
            raise ValueError(
                "training.depth.per_sequence gives each sequence a loss at its own depth, which is placement "
                f"'terminal', not {objective.placement!r}; set objective.placement: terminal"
            )
        for name in ("norm_penalty", "scale_anchor"):
            if getattr(objective, name).weight > 0:
                raise ValueError(
                    f"objective.{name} is a mean over loops, and with training.depth.per_sequence a sequence that "
                    "is done keeps its state, which would count again at every later loop; set "
                    "training.depth.per_sequence: false, or remove the penalty"
                )
        if self.model.loop_embedding == "modulation":
            raise ValueError(
                "model.loop_embedding 'modulation' tells the layers how many loops an unroll runs, and with "
                "training.depth.per_sequence all sequences would be told the deepest one's; set "
                "training.depth.per_sequence: false, or another loop_embedding"
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
