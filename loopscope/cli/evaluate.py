"""`loopscope evaluate PART`: depth, exits, compare, tasks. Each is a file of its own, imported when it is asked for."""

from collections.abc import Mapping, Sequence
from importlib import import_module

from loopscope.config.known_names import known

EVALUATIONS: Mapping[str, tuple[str, str, str]] = {
    "depth": (
        "evaluate_depth",
        "loss, accuracy and scale at every loop, also past the trained depth",
        "Depth",
    ),
    "exits": (
        "evaluate_exits",
        "what each exit rule trades, thresholds that hold, realised speed",
        "EvaluateExits",
    ),
    "compare": ("evaluate_compare", "conditions of a study, paired by seed and by window", "Compare"),
    "tasks": ("evaluate_tasks", "benchmarks of lm-evaluation-harness at several depths", "EvaluateTasks"),
}
"""Part → module beside this one (it has a function of the same name), what the part is, and the class of its
options."""

EVALUATE_USAGE = """usage: loopscope evaluate PART PATH [options]

What trained models are worth on held-out text: at every depth, with early exits, side by side.

{parts}

loopscope evaluate PART --help explains one, with examples. Start with:
  loopscope evaluate depth runs/first
  loopscope evaluate compare runs/first"""


def evaluate(arguments: Sequence[str]) -> None:
    """`loopscope evaluate`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            EVALUATE_USAGE.format(
                parts="\n".join(f"  {name:8} {text}" for name, (_, text, _) in EVALUATIONS.items())
            )
        )
        return
    name, *_ = EVALUATIONS[known("part of evaluate", arguments[0], EVALUATIONS)]
    getattr(import_module(f"loopscope.cli.{name}"), name)(arguments[1:])
