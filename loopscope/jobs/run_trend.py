"""Where the scale of a run that has ended is going, from the record of its training."""

from loopscope.jobs.opened import OpenedModel
from loopscope.monitor.scale_trend import scale_trend
from loopscope.results import ScaleTrend, load_results
from loopscope.results.layout import RESULT, newest_checkpoint, step_in_name


def trend_of(opened: OpenedModel) -> ScaleTrend | None:
    """Return where a run's scale is going; None of what is no run that has ended, or does not train evenly."""
    newest = newest_checkpoint(opened.path) if (opened.path / RESULT).is_file() else None
    if newest is None:
        return None
    try:
        (result,) = load_results(opened.path).runs
    except ValueError:  # a damaged record is told of where it is asked for; weights are audited without it
        return None
    if result.steps != step_in_name(newest) or result.phases:
        return None  # trained on since, or under one loss after another
    if (result.config.get("training") or {}).get("schedule", "constant") != "constant":
        return None  # its steps get shorter, and the scale with them stands still
    return scale_trend([(point.step, point.l2_norm) for point in result.training])
