"""Settings of a run that do nothing, or nearly: one line each, for warnings. Importable without torch.

Those of the model alone are in `model.config.checks`; these need the objective's or the training's settings.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from loopscope.objectives.placement_config import placement_of

if TYPE_CHECKING:
    from loopscope.config.run_config import RunConfig


def without_effect(config: "RunConfig") -> Iterator[str]:
    """Return every setting without effect, with the reason."""
    training = config.training
    for where, objective in config.objective.named_phases():
        for name, setting in (
            ("shortcut", "loss_weight"),
            ("jacobian", "iterations"),
            ("jacobian", "through_state"),
            ("scale_anchor", "target"),
        ):
            section = getattr(objective, name)
            if section.weight == 0 and _set(section, setting):
                yield f"{where}.{name}.{setting} has no effect while {where}.{name}.weight is 0"
    if training.schedule == "constant" and _set(training, "final_learning_rate"):
        yield "training.final_learning_rate has no effect with schedule 'constant'; set schedule: cosine"
    if training.steps is not None and training.depth.curriculum > training.steps:
        yield (
            f"training.depth.curriculum {training.depth.curriculum} is longer than the run of {training.steps} "
            "steps: the depth never reaches its value"
        )
    objective = config.objective
    if placement_of(objective).gate_only and training.weights is None:
        yield (
            f"objective.placement {objective.placement!r} trains the gate alone, on a model that was never trained; "
            "name a trained one in training.weights"
        )
    yield from _cut_off(config)


def _cut_off(config: "RunConfig") -> Iterator[str]:
    """Terms on loops that truncated backpropagation leaves without a gradient into the layers."""
    if not cuts(config):
        return
    loops = config.model.loops
    early: list[str] = []
    for objective in config.objective.phases:
        placement = placement_of(objective)
        if any(placement.trains(loop, loops) for loop in range(1, loops)):
            early.append(f"placement {objective.placement!r}")
        early += [
            name
            for name in ("norm_penalty", "scale_anchor", "shortcut")
            if getattr(objective, name).weight > 0
        ]
    early = list(dict.fromkeys(early))
    if early:
        yield (
            f"training.depth.backprop {config.training.depth.backprop} is below the depth: terms of "
            f"{', '.join(early)} on earlier loops train only readout, coda, head and gate, not the layers"
        )


def cuts(config: "RunConfig") -> bool:
    """Return whether backpropagation is cut short of the mean depth of a step."""
    depth = config.training.depth
    return depth.backprop is not None and depth.backprop < depth.average(config.model.loops)


def _set(section: Any, name: str) -> bool:
    return bool(getattr(section, name) != type(section).model_fields[name].default)
