"""Tasks by name. A new one is a file here, a line in `build_task`, and its settings in `data.task_config`."""

from loopscope.data.task_config import TaskConfig
from loopscope.data.tasks.base import AbstractTask, Problems
from loopscope.data.tasks.brackets import Brackets
from loopscope.data.tasks.modular_addition import ModularAddition
from loopscope.data.tasks.p_hop import PHop
from loopscope.data.tasks.windows import TaskWindows

__all__ = [
    "AbstractTask",
    "Brackets",
    "ModularAddition",
    "PHop",
    "Problems",
    "TaskWindows",
    "build_task",
]


def build_task(config: TaskConfig, sequence: int) -> AbstractTask:
    """Build the task that a config names, for a model of `sequence` tokens.

    Raises:
        ValueError: the sequence is too short for the difficulty.
    """
    width = config.width(sequence)
    everywhere = config.answers == "all"
    match config.name:
        case "p-hop":
            return PHop(config.hops, config.symbols, width, everywhere)
        case "modular-addition":
            return ModularAddition(config.length, config.modulus, everywhere)
        case "brackets":
            return Brackets(config.nesting, config.kinds, width, everywhere)
    raise AssertionError(config.name)  # the config knows the names
