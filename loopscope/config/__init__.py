"""The config of a run, and the names that stand for whole configs. Importable without torch."""

from loopscope.config.families import FAMILIES
from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig, parse_config

__all__ = ["FAMILIES", "RunConfig", "parse_config", "recipe"]
