"""`loopscope plan`: memory, time and cost of a run on GPUs that are not here, in a second."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loopscope.cli.arguments import with_config
from loopscope.config.sizes import DEFAULT_SIZE


@dataclass(frozen=True)
class PlanCommand:
    """Say what a run needs and takes on GPUs that are not here: memory, time, tokens a day, cost. Trains nothing.

    Settings of a run are flags, as for train. Figures are computed from the config and a table of devices.

    Example:
        loopscope plan --size 1.4b --gpus 64 --tokens 100b --price-per-gpu-hour 2
        loopscope plan --size ouro-1.4b --condition ouro --gpus 8 --device a100
        loopscope plan --size published-129m --device l40s --training.batch 64 --json
        loopscope plan --size laptop --measure
    """

    config: Path | None = None
    """YAML file: size, condition, and any settings below. Flags come on top."""
    size: str = DEFAULT_SIZE
    """Named size, of those listed below, or a number of parameters: 350m, 1.4b."""
    condition: str = "dense/rmsnorm"
    """Named condition, of those listed below: where the loss is, how it reads the state, what holds the scale."""
    gpus: int = 1
    """GPUs that share a step; training.batch is what all of them take together."""
    device: str = "h100"
    """Kind of GPU: a100, h100, h200, b200, l40s, rtx4090; cpu-amx."""
    tokens: str | None = None
    """Tokens to train on in all, such as 300m, 100b or 5e9; by default what the run's own steps come to."""
    price_per_gpu_hour: float | None = None
    """What a GPU costs for an hour, in any currency."""
    measure: bool = False
    """Plan for this machine, with steps of the run's own shape timed on a few layers and loops, not for a kind."""
    json: bool = False
    """One JSON object instead."""


_TOKENS = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)([kmbt]?)", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def plan_command(arguments: Sequence[str]) -> None:
    """`loopscope plan`."""
    command, config, _ = with_config(PlanCommand, "plan", arguments)
    from loopscope.plan.devices import device
    from loopscope.plan.training_plan import plan_training

    budget = None if command.tokens is None else _tokens(command.tokens)
    asked = command.gpus, budget, command.price_per_gpu_hour
    if command.measure:
        from loopscope.jobs import measured_device, timed_step

        on = measured_device(config.training.device, config.training.threads)
        plan_training(config, on, *asked)  # refuses before steps are timed
        found = plan_training(config, on, *asked, timed_step(config))
    else:
        found = plan_training(config, device(command.device), *asked)
    if command.json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    from loopscope.cli.plan_print import print_plan

    print_plan(found)


def _tokens(word: str) -> int:
    """Tokens from one word.

    Raises:
        ValueError: no number of tokens.
    """
    if found := _TOKENS.fullmatch(word):
        return round(float(found[1]) * _UNITS[found[2].lower()])
    try:
        count = float(word)
    except ValueError:
        count = float("nan")
    if not 1 <= count <= 1e18:
        raise ValueError(f"tokens is {word!r}; it must be a number such as 300m, 100b or 5e9")
    return round(count)
