"""The scale monitor of one of Loopscope's own runs: checks go into its metrics, and a resumed run reads them back."""

from collections.abc import Callable
from dataclasses import asdict

from loopscope.monitor.alarm import CALL
from loopscope.monitor.monitor import ScaleMonitor
from loopscope.objectives.objective import Objective
from loopscope.recurrence import AbstractLoopedLM
from loopscope.results import ScaleCheck, decode
from loopscope.training.config import TrainingConfig
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
