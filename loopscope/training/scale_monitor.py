"""The scale monitor of one of Loopscope's own runs: checks go into its metrics, and a resumed run reads them back."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import Tensor

from loopscope.monitor.alarm import CALL
from loopscope.monitor.monitor import ScaleMonitor
from loopscope.monitor.time_budget import TimeBudget
from loopscope.objectives.objective import Objective
from loopscope.recurrence import AbstractLoopedLM
from loopscope.results import ScaleCheck, decode
from loopscope.training.config import TrainingConfig
from loopscope.training.distributed.ranks import Ranks
from loopscope.training.distributed.strategy import Strategy
from loopscope.training.metrics import MetricsLog, read_metrics


def build_monitor(
    model: AbstractLoopedLM,
    objective: Objective,
    config: TrainingConfig,
    log: MetricsLog,
    tell: Callable[[str], None],
    steps: int | None = None,
    since: int = 1,
) -> ScaleMonitor | None:
    """Build the scale monitor of a run, going on from the checks in its metrics; None where it is turned off.

    Args:
        since: first step that was trained on this objective.
    """
    if not config.monitor_every:
        return None

    def keep(check: ScaleCheck) -> None:
        log.write("monitor", **asdict(check))

    run = log.path.parent

    def say(text: str) -> None:
        tell(text.replace(CALL, f"`loopscope audit {run}`"))  # a run has a command for it

    monitor = ScaleMonitor(model, objective, every=config.monitor_every, log=keep, tell=say, steps=steps)
    records = [record for record in read_metrics(run) if record["kind"] == "monitor"]
    monitor.resume([decode(ScaleCheck, record) for record in records], since)
    return monitor


def monitor_of(
    strategy: Strategy,
    model: AbstractLoopedLM,
    build: Callable[[AbstractLoopedLM], ScaleMonitor | None],
    config: TrainingConfig,
    ranks: Ranks,
) -> "ScaleMonitor | ShardedMonitor | None":
    """Return the monitor of a run: the first process checks, on its rows of the batch, and the others wait for it.

    Args:
        model: not yet in shards.
        build: makes the monitor of a model.
    """
    if not config.monitor_every:
        return None
    if strategy == "fsdp":
        from loopscope.monitor.whole_weights import WholeWeights

        return ShardedMonitor(build, WholeWeights(model, ranks.first), config.monitor_every)
    return build(model) if ranks.first else None


class ShardedMonitor:
    """The monitor of a model in shards: every process lends its weights where a check may be due, the first checks.

    Args:
        build: makes the monitor, of the model that it is given: whole weights beside the shards.
        whole: those of the model, made before it was sharded.
    """

    def __init__(
        self, build: Callable[[AbstractLoopedLM], ScaleMonitor | None], whole: Any, every: int
    ) -> None:
        self.whole, self.every = whole, every
        self.monitor = None if whole.copy is None else build(whole.copy)
        self.budget = self.monitor.budget if self.monitor else TimeBudget(None)
        self._turn: int | None = None

    def switch(self, objective: Objective, step: int) -> None:
        """Judge by another objective from here on."""
        self._turn = None
        if self.monitor:
            self.monitor.switch(objective, step)

    def step(self, step: int, input_ids: Tensor, labels: Tensor) -> ScaleCheck | None:
        """Make a check where one is due. Every process has to call it, at the same step."""
        turn = step // self.every
        if turn == self._turn:
            self.budget.tick()
            return None
        self._turn = turn
        self.budget.tick()
        with self.budget.spending():
            self.whole.gather()
        return None if self.monitor is None else self.monitor.step(step, input_ids.cpu(), labels.cpu())
