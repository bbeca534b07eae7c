"""What training minimises: a placement of cross-entropies over loops, penalties on scale, and extra terms.

From settings to a loss:

    config, depth_config   settings of a loss, and depths of steps; importable without torch
    schedule_checks, phase what a schedule of objectives must be like, and the steps that each of its phases gets
    depth                  the unroll to the depths of a step
    token_loss             cross-entropy per token, never more than a chunk of logits
    linear_cross_entropy   the head and its cross-entropy in chunks, summed over exits, gradients at once
    placement_config       what placements declare of themselves; importable without torch
    placements             how the loops' cross-entropies make one loss
    gate_stage             the exit gate's second stage of training, as a placement
    penalties              terms on the state's scale
    extras                 what an extra term is; jacobian, shortcut: two of them
    objective              all of them, over the states of one unroll
    labels                 labels that fit
    spelling               an objective as one word: `dense+norm_penalty=0.01`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.objectives.config import ObjectiveConfig, PhaseConfig
    from loopscope.objectives.depth import unroll_to
    from loopscope.objectives.depth_config import DepthConfig, draw_depths
    from loopscope.objectives.extras import AbstractCollector, AbstractExtra
    from loopscope.objectives.gate_stage import GateImprovement
    from loopscope.objectives.jacobian import JacobianPenalty
    from loopscope.objectives.objective import Loss, Objective, build_objective
    from loopscope.objectives.penalties import AbstractPenalty, NormPenalty, ScaleAnchor
    from loopscope.objectives.placement_config import PlacementDeclaration
    from loopscope.objectives.placements import AbstractPlacement, Dense, ExitWeighted, Terminal
    from loopscope.objectives.shortcut import ShortcutConsistency
    from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy, plain_cross_entropy

_HOMES = {
    "ObjectiveConfig": "config",
    "PhaseConfig": "config",
    "DepthConfig": "depth_config",
    "draw_depths": "depth_config",
    "unroll_to": "depth",
    "IGNORE_INDEX": "token_loss",
    "chunked_cross_entropy": "token_loss",
    "plain_cross_entropy": "token_loss",
    "AbstractPlacement": "placements",
    "Dense": "placements",
    "ExitWeighted": "placements",
    "Terminal": "placements",
    "PlacementDeclaration": "placement_config",
    "GateImprovement": "gate_stage",
    "AbstractPenalty": "penalties",
    "NormPenalty": "penalties",
    "ScaleAnchor": "penalties",
    "AbstractCollector": "extras",
    "AbstractExtra": "extras",
    "JacobianPenalty": "jacobian",
    "ShortcutConsistency": "shortcut",
    "Loss": "objective",
    "Objective": "objective",
    "build_objective": "objective",
}
__all__ = [
    "IGNORE_INDEX",
    "AbstractCollector",
    "AbstractExtra",
    "AbstractPenalty",
    "AbstractPlacement",
    "Dense",
    "DepthConfig",
    "ExitWeighted",
    "GateImprovement",
    "JacobianPenalty",
    "Loss",
    "NormPenalty",
    "Objective",
    "ObjectiveConfig",
    "PhaseConfig",
    "PlacementDeclaration",
    "ScaleAnchor",
    "ShortcutConsistency",
    "Terminal",
    "build_objective",
    "chunked_cross_entropy",
    "draw_depths",
    "plain_cross_entropy",
    "unroll_to",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
