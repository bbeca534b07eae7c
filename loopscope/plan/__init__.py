"""What a config says before it runs: parameters, FLOPs, memory, the static audit, the catalogue. Never loads torch.

From a config to what it costs and shows:

    parameters       parameters, memory and FLOPs of one config, part by part
    flops            FLOPs of a forward pass, of a training step and of a new token
    training_flops   FLOPs of a step as a run's config has it: depths, exits, extra terms
    devices          kinds of GPUs: what was measured of each, by whom
    step_memory      bytes on each GPU at a step's peak
    step_time        seconds of a step: products, passes, weights, what travels between GPUs
    training_plan    all of it for a run on so many GPUs, what does not fit, days and cost
    scale_facts      what each part of a loop does to the scale, and what each reader sees of it
    static_audit     the verdict that follows from them, loop by loop
    catalogue        all of it for every family and baseline at every size
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.plan.catalogue import CatalogueRow, catalogue_rows, match, matches
    from loopscope.plan.devices import DEVICES, Device, device
    from loopscope.plan.flops import decode_flops, forward_flops, step_flops
    from loopscope.plan.parameters import Cost, cost, count_parameters
    from loopscope.plan.scale_facts import holds_scale
    from loopscope.plan.static_audit import audit_config
    from loopscope.plan.step_memory import Placing, StepMemory
    from loopscope.plan.step_time import StepTime
    from loopscope.plan.training_flops import training_cost
    from loopscope.plan.training_plan import TrainingPlan, plan_training

_HOMES = {
    "Cost": "parameters",
    "cost": "parameters",
    "count_parameters": "parameters",
    "decode_flops": "flops",
    "forward_flops": "flops",
    "step_flops": "flops",
    "training_cost": "training_flops",
    "DEVICES": "devices",
    "Device": "devices",
    "device": "devices",
    "Placing": "step_memory",
    "StepMemory": "step_memory",
    "StepTime": "step_time",
    "TrainingPlan": "training_plan",
    "plan_training": "training_plan",
    "holds_scale": "scale_facts",
    "audit_config": "static_audit",
    "CatalogueRow": "catalogue",
    "catalogue_rows": "catalogue",
    "match": "catalogue",
    "matches": "catalogue",
}
__all__ = [
    "DEVICES",
    "CatalogueRow",
    "Cost",
    "Device",
    "Placing",
    "StepMemory",
    "StepTime",
    "TrainingPlan",
    "audit_config",
    "catalogue_rows",
    "cost",
    "count_parameters",
    "decode_flops",
    "device",
    "forward_flops",
    "holds_scale",
    "match",
    "matches",
    "plan_training",
    "step_flops",
    "training_cost",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
