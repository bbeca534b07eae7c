"""What an objective asks of the model and of the depths of a run, phase by phase. Importable without torch."""

import warnings
from typing import TYPE_CHECKING

from loopscope.model.config.chosen_variants import readout_of
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.phase import phases_over
from loopscope.objectives.placement_config import placement_of

if TYPE_CHECKING:
    from loopscope.config.run_config import RunConfig


def check_objective(config: "RunConfig") -> None:
    """Refuse an objective that the model does not fit, or whose phases the run is too short for.

    Raises:
        ValueError: the setting, why, and what to set.
    """
    objective, model = config.objective, config.model
    objective.check_loops(model.loops)
    if config.training.steps is not None:
        phases_over(objective, config.training.steps)
    elif any(phase.until_step is not None for phase in objective.schedule or ()):
        raise ValueError(
            "objective.schedule ends phases at steps (until_step), and training.epochs leaves open how many there are; "
            "set training.steps, or give the ends as shares (until)"
        )
    for where, phase in objective.named_phases():
        placement = placement_of(phase)
        if placement.needs_gate and not model.exit_gate:
            raise ValueError(
                f"{where}.placement {placement.name!r} needs a learned gate; set model.exit_gate: true"
            )
        if placement.gate_only and readout_of(model).value("adapts"):
            raise ValueError(
                f"{where}.placement {placement.name!r} trains the gate alone, but readout "
                f"{model.readout.kind!r} moves with every step; set model.readout.s_ref: fixed, which keeps the "
                "value it has come to, or another readout"
            )
    if model.exit_gate and not any(placement_of(phase).needs_gate for phase in objective.phases):
        names = ", ".join(repr(phase.placement) for phase in objective.phases)
        trains = "never trains" if len(objective.phases) == 1 else "never train"
        warnings.warn(f"model.exit_gate is on, but placement {names} {trains} the gate", stacklevel=3)


def check_phase_depth(config: "RunConfig", where: str, objective: ObjectiveConfig) -> None:
    """Refuse a phase's terms that do not go with the depths that steps run at.

    Args:
        where: its place in the config, `objective` or `objective.schedule.0`.

    Raises:
        ValueError: the setting, why, and what to set.
    """
    depth, loops = config.training.depth, config.model.loops
    if depth.varies:
        for name, weights in objective.weights_by_loop().items():
            if weights is not None:
                raise ValueError(
                    f"{where}.{name} has one number per loop, but training.depth varies the loops per step; "
                    "remove one of the two"
                )
    if depth.per_sequence:
        _check_sequences(config, where, objective)
    fewest = placement_of(objective).declaration.fewest_loops
    if min(loops, depth.fewest(loops)) < fewest:
        raise ValueError(
            f"{where}.placement {objective.placement!r} compares loops; set model.loops (and "
            f"training.depth.low) to {fewest} or more"
        )
    if objective.shortcut.weight > 0 and loops == 1 and not depth.varies:
        warnings.warn(f"{where}.shortcut has no effect with 1 loop: there is no shorter way", stacklevel=4)


def _check_sequences(config: "RunConfig", where: str, objective: ObjectiveConfig) -> None:
    """What sequences with a depth of their own ask of the objective and of the model."""
    if placement_of(objective).declaration.reads != "last":
        raise ValueError(
            "training.depth.per_sequence gives each sequence a loss at its own depth, which is placement "
            f"'terminal', not {objective.placement!r}; set {where}.placement: terminal"
        )
    for name in ("norm_penalty", "scale_anchor"):
        if getattr(objective, name).weight > 0:
            raise ValueError(
                f"{where}.{name} is a mean over loops, and with training.depth.per_sequence a sequence that "
                "is done keeps its state, which would count again at every later loop; set "
                "training.depth.per_sequence: false, or remove the penalty"
            )
    if config.model.loop_embedding == "modulation":
        raise ValueError(
            "model.loop_embedding 'modulation' tells the layers how many loops an unroll runs, and with "
            "training.depth.per_sequence all sequences would be told the deepest one's; set "
            "training.depth.per_sequence: false, or another loop_embedding"
        )
