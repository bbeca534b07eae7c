"""What `plan` prints."""

from dataclasses import fields
from typing import TYPE_CHECKING

from loopscope.cli.labelled_lines import print_labelled

if TYPE_CHECKING:
    from loopscope.plan.training_plan import TrainingPlan

SHOWN = 0.005
"""Share of the whole from which a part is named."""


def print_plan(plan: "TrainingPlan") -> None:
    """Labelled lines, wrapped to 80 columns."""
    from loopscope.cli.recipes import in_short
    from loopscope.plan.step_time import STEP_PARTS
    from loopscope.plan.training_plan import gigabytes

    lines = [
        (
            "run",
            f"{plan.condition}, size {plan.size}: {in_short(plan.parameters)} parameters, {plan.loops} loops",
        ),
        ("on", f"{plan.gpus} × {plan.device}, {_spread(plan)}, {plan.precision}"),
        (
            "memory",
            f"{gigabytes(plan.memory_total)} of {gigabytes(plan.memory_available)} each: {_memory(plan)}",
        ),
    ]
    if plan.too_much:
        lines.append(("too much", f"{plan.too_much}: the first thing that does not fit"))
        lines.append(
            ("change", "; or ".join(plan.changes) or "nothing that was tried makes it fit: a smaller model")
        )
    time = plan.time
    parts = {name: getattr(time, name) for name in STEP_PARTS}
    said = ", ".join(
        f"{name} {_seconds(value)}" for name, value in parts.items() if value >= SHOWN * time.seconds
    )
    lines += [
        ("step", f"{_seconds(time.seconds)} for {plan.step_tokens:,} tokens: {said}"),
        (
            "speed",
            f"{in_short(plan.tokens_per_second)} tokens/s, {in_short(plan.tokens_per_day)} a day; "
            f"{plan.mfu:.0%} of the matmul peak",
        ),
        ("checkpoint", gigabytes(plan.checkpoint_bytes)),
    ]
    if plan.mode != "single":
        gathers = f"; a shared layer is gathered {_times(time.gathers)}" if plan.mode == "fsdp" else ""
        lines.append(("exchange", f"{gigabytes(time.exchanged_bytes)} sent by each GPU in a step{gathers}"))
    if plan.budget is not None and plan.steps is not None:
        lines.append(("budget", _budget(plan)))
    lines.append(("source", plan.source))
    lines += [("note", note) for note in plan.notes]
    print_labelled(lines)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _spread(plan: "TrainingPlan") -> str:
    if plan.mode != "fsdp":
        return plan.mode
    return f"fsdp, shared layers gathered {'once for all loops' if plan.gather_once else 'at every loop'}"


def _memory(plan: "TrainingPlan") -> str:
    from loopscope.plan.training_plan import gigabytes

    found = [
        (field.name.replace("_", " "), getattr(plan.memory, field.name)) for field in fields(plan.memory)
    ]
    named = [f"{name} {gigabytes(count)}" for name, count in found if count >= SHOWN * plan.memory_total]
    return ", ".join(named)


def _budget(plan: "TrainingPlan") -> str:
    from loopscope.cli.recipes import in_short

    assert plan.budget is not None
    assert plan.days is not None
    assert plan.gpu_hours is not None
    long = f"{plan.days:,.3g} days" if plan.days >= 1 else f"{_seconds(plan.days * 86_400)}"
    cost = "" if plan.cost is None else f", cost {plan.cost:,.0f}"
    return f"{in_short(plan.budget)} tokens in {plan.steps:,} steps: {long}, {plan.gpu_hours:,.3g} GPU hours{cost}"


def _seconds(count: float) -> str:
    if count >= 7200:
        return f"{count / 3600:.3g} h"
    if count >= 120:
        return f"{count / 60:.3g} min"
    return f"{count:.3g} s" if count >= 1 else f"{1000 * count:.3g} ms"
