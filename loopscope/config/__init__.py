"""The config of a run, and the names that stand for whole configs. Importable without torch."""

from loopscope.config.run_config import RunConfig, parse_config

__all__ = ["RunConfig", "parse_config"]
