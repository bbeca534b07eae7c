"""The config of a run, and the names that stand for whole configs. Importable without torch."""

from loopscope.config.families import FAMILIES
from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig, parse_config
from loopscope.config.slurm_request import SlurmRequest
from loopscope.config.study_launch import Shard, StudyLaunch

__all__ = ["FAMILIES", "RunConfig", "Shard", "SlurmRequest", "StudyLaunch", "parse_config", "recipe"]
