"""Placements that declare what they do not do: refused or noted, each by name."""

from pathlib import Path
from textwrap import dedent

import pytest
import torch

import loopscope
from loopscope.config.recipes import recipe
from loopscope.model import LoopedTransformer
from loopscope.objectives import AbstractPlacement, Objective, PlacementDeclaration
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_placement
from loopscope.results.class_names import own_words
from tests.extension.fixtures import REST, TINY, placement, write


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("reads='every'", "declares reads='every'; allowed: 'last', 'all' or a function"),
        ("gate='none'", "declares gate='none'; allowed: 'unused', 'weighs' or 'alone'"),
        ("by_token='no'", "declares by_token='no'; allowed: True or False"),
        ("fewest_loops=1.5", "declares fewest_loops=1.5; allowed: a whole number from 0 up"),
    ],
)
def test_a_placements_fields(importable: Path, declared: str, message: str) -> None:
    whole = "PlacementDeclaration(reads='all', by_token=False, gate='unused')"
    write(importable, placement("").replace("PlacementDeclaration()", f"say({whole}, {declared})"))
    with pytest.raises(ValueError, match="placement theirs:Mine") as caught, own_words():
        ObjectiveConfig(placement="theirs:Mine")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            placement("reads='last', by_token=False, gate='unused'", "loop / loops"),
            "does not read loop 1 of 2, and its method `reads` says True",
        ),
        (
            placement("reads='all', by_token=False, gate='unused'", "float(loop == loops)"),
            "reads loop 1 of 2, and its `share` of that loop is 0",
        ),
        (
            placement("reads='last', by_token=False, gate='unused'", "1 / loops", "loop == loops"),
            "does not read loop 1 of 2, and its `share` of that loop is 0.5",
        ),
        (
            placement("reads='all', by_token=True, gate='unused'"),
            "declares by_token=True, and its `share` of loop 1 of 1 is 1",
        ),
        # One that is made for four loops and deeper: what it refuses is not compared.
        (
            placement("reads='all', by_token=False, gate='unused'", "{4: 1, 5: 0}[loops]"),
            "reads loop 1 of 5, and its `share` of that loop is 0",
        ),
    ],
)
def test_a_placement_that_reads_other_loops_than_it_says(importable: Path, source: str, message: str) -> None:
    write(importable, source)
    with pytest.raises(ValueError, match="placement theirs:Mine") as caught, own_words():
        ObjectiveConfig(placement="theirs:Mine")
    assert message in str(caught.value)


def test_a_placement_that_moves_declares_what_it_comes_to(importable: Path) -> None:
    moving = """
        progress = 0.0
        def advance(self, progress): self.progress = progress
    """
    source = placement("reads='all', by_token=False, gate='unused'", "self.progress / loops")
    write(importable, dedent(source) + "\n" + moving.replace("\n        ", "\n    "))
    with own_words():
        config = ObjectiveConfig(placement="theirs:Mine")
    assert build_placement(config).share(1, 2) == 0  # the one that is built is not advanced


def test_the_trained_depth_is_compared_however_deep(importable: Path) -> None:
    write(importable, placement("reads='all', by_token=False, gate='unused'", "float(loops < 12)"))
    values = {
        **REST,
        "model": {**TINY, "loops": 12, "readout": "raw"},
        "objective": {"placement": "theirs:Mine"},
    }
    with pytest.raises(ValueError, match="reads loop 1 of 12, and its `share` of that loop is 0"):
        recipe("laptop", "mine", values)


class Late(AbstractPlacement):
    """Made in Python, so that no config holds it to what it declares."""

    declaration = PlacementDeclaration(reads="all", by_token=False, gate="unused")

    def reads(self, loop: int, loops: int) -> bool:
        return loop == loops

    def share(self, loop: int, loops: int) -> float | None:
        return float(loop == loops)


def test_the_measured_audit_notes_a_placement_made_in_python() -> None:
    model = LoopedTransformer(recipe("laptop", "dense/final-only", {"model": TINY, **REST}).model)
    ids = torch.randint(300, (2, 17))
    report = loopscope.audit(model, ids[:, :-1], ids[:, 1:], Objective(Late()))
    (note,) = [note for note in report.notes if "declares" in note]
    assert (
        "Placement tests.extension.test_placement_declarations:Late declares that it reads loop 1 of 4"
        in note
    )
