"""Trackers of runs: TensorBoard, Trackio, Weights & Biases. Extra `log`.

    base            what a tracker implements, and a run as it knows it
    charts          records of metrics as curves and as charts with a line per loop
    tensorboard, trackio, wandb   one each
    logger_group    all of a run's as one, none of which can stop it

Their libraries are imported when they are asked for.
"""

from loopscope.training.loggers.base import AbstractLogger, LoggedRun
from loopscope.training.loggers.charts import shown_loops
from loopscope.training.loggers.logger_group import LoggerGroup, check_loggers, kept_trackers

__all__ = ["AbstractLogger", "LoggedRun", "LoggerGroup", "check_loggers", "kept_trackers", "shown_loops"]
