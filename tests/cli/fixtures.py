"""The commands, and the classes that hold their options."""

from importlib import import_module

CLASSES = {
    "train": "Train",
    "study": "Study",
    "audit": "Audit",
    "generate": "Generate",
    "recipes": "Recipes",
    "report": "Report",
    "import-published": "ImportPublished",
    "evaluate depth": "Depth",
    "evaluate exits": "EvaluateExits",
    "evaluate compare": "Compare",
}


def class_of(command: str) -> type:
    """The dataclass of a command's options."""
    module = import_module(f"loopscope.cli.{command.replace('-', '_').replace(' ', '_')}")
    found: type = getattr(module, CLASSES[command])
    return found
