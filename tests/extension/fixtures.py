"""The package that docs/extending.md writes, made anew in a folder: nothing of Loopscope is edited for it."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

from loopscope.config.recipes import recipe
from loopscope.model import ModelConfig

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"
READOUT, CARRY = "myloops.readouts:MaxNorm", "myloops.carries:Fade"
TINY = {"dim": 16, "heads": 2, "layers": 1, "vocabulary": 300, "sequence": 16}
REST = {
    "data": {"max_bytes": 40000, "max_validation_bytes": 3000, "tokenizer": {"vocabulary": 300}},
    "training": {"steps": 2, "batch": 4, "threads": 1},
}


def files() -> dict[str, str]:
    """The page's whole files, by the path it gives them."""
    text = PAGE.read_text(encoding="utf-8")
    return dict(re.findall(r"^`(myloops/\w+\.py)`:\n\n```python\n(.*?)^```", text, re.S | re.M))


def write_package(folder: Path) -> None:
    """Write the page's files, and its run.yaml at a size that takes seconds."""
    (folder / "myloops").mkdir(parents=True)
    for name, source in files().items():
        (folder / name).write_text(source, encoding="utf-8")
    (found,) = re.findall(
        r"^`run\.yaml`:\n\n```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M
    )
    values = yaml.safe_load(found)
    values["model"] |= TINY
    (folder / "run.yaml").write_text(yaml.safe_dump({**values, **REST}), encoding="utf-8")


def run(
    folder: Path, *commands: list[str], sites: Sequence[Path] = (), env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run commands as `loopscope` does, one after the other in one fresh process, until one does not exit with 0."""
    script = (
        "import sys, loopscope.cli as cli\n"
        f"for words in {list(commands)!r}:\n"
        "    sys.argv = ['loopscope', *words]\n"
        "    cli.main()\n"
    )
    # Run by its path, as an installed command is: the folder itself is not on the path of modules.
    command = folder / ".bin" / "loopscope"
    command.parent.mkdir(exist_ok=True)
    command.write_text(script, encoding="utf-8")
    inherited = {key: value for key, value in os.environ.items() if key != "LOOPSCOPE_IMPORT"}
    paths = os.pathsep.join(
        filter(None, [str(ROOT), *(str(site) for site in sites), inherited.get("PYTHONPATH")])
    )
    return subprocess.run(
        [sys.executable, str(command)],
        cwd=folder,
        env={**inherited, **(env or {}), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


def mine(**changes: Any) -> ModelConfig:
    values = {"readout": READOUT, "carry": [CARRY], "carry_settings": {CARRY: {"start": 0.5}}}
    return recipe(
        "laptop",
        "mine",
        {"model": {**TINY, **values, **changes}, "objective": {"placement": "dense"}, **REST},
    ).model


HEAD = """
import torch
from torch import nn
from loopscope.model import AbstractCarry, AbstractReadout, AbstractStart, CarryDeclaration, ReadoutDeclaration
from loopscope.objectives import AbstractPlacement, PlacementDeclaration

def say(declaration, **fields):  # what tests' type checks would refuse first
    for name, value in fields.items():
        object.__setattr__(declaration, name, value)
    return declaration
"""


def write(folder: Path, source: str) -> None:
    (folder / "theirs.py").write_text(HEAD + dedent(source), encoding="utf-8")


def readout(declared: str, start: str = "") -> str:
    return f"""
    class Mine(AbstractReadout):
        declaration = {declared}
        def __init__(self, config, settings):
            super().__init__()
            {start or "pass"}
        def forward(self, hidden, loop, loops): return hidden
    """


def carry(declared: str) -> str:
    return f"""
    class Mine(AbstractCarry):
        declaration = CarryDeclaration(parameters=0, flops=0, {declared})
        def forward(self, hidden, loop): return hidden
    """


def placement(declared: str, share: str = "1 / loops", reads: str = "True") -> str:
    return f"""
    class Mine(AbstractPlacement):
        declaration = PlacementDeclaration({declared})
        def reads(self, loop, loops): return {reads}
        def share(self, loop, loops): return {share}
    """
