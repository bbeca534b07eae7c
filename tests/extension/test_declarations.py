"""Declarations that say what nothing knows, or what their class does not do: refused or noted, each by name."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from pickle import dumps, loads
from typing import Any

import pytest
import torch

import loopscope
from loopscope.config.recipes import recipe
from loopscope.model import LoopedTransformer
from loopscope.model.config.declarations import CarryDeclaration
from loopscope.model.config.variants import CARRIES, INJECTIONS, READOUTS, STARTS
from loopscope.objectives import PlacementDeclaration
from loopscope.objectives.placement_config import PLACEMENTS
from loopscope.plan.static_audit import audit_config
from loopscope.results import declaration
from loopscope.results.class_names import import_module, own_words
from tests.extension.fixtures import CARRY, REST, TINY, carry, mine, readout, write


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            "scale_exponent='none'",
            "declares scale_exponent='none'; allowed: a number, 'fades' or a function (docs/extending.md)",
        ),
        ("scale_exponent=True", "declares scale_exponent=True; allowed: a number"),
        ("parameters=-1", "declares parameters=-1; allowed: a whole number from 0 up or a function"),
        ("flops='2*dim'", "declares flops='2*dim'; allowed: a whole number"),
        ("norm='yes'", "declares norm='yes'; allowed: True or False"),
        ("settings=dict", "allowed: a class that inherits from BaseModel or None"),
        ("needs='a gate'", "declares needs='a gate'; allowed: a function or None"),
    ],
)
def test_a_readouts_fields(importable: Path, declared: str, message: str) -> None:
    whole = "ReadoutDeclaration(scale_exponent=0, parameters=0, flops=0)"
    write(importable, readout(f"say({whole}, {declared})"))
    with pytest.raises(ValueError, match="readout theirs:Mine") as caught:
        mine(readout="theirs:Mine")
    assert message in str(caught.value)


def test_what_a_function_gives(importable: Path) -> None:
    declared = "scale_exponent=lambda config, settings: 'none', parameters=0, flops=0"
    write(importable, readout(f"ReadoutDeclaration({declared})"))
    config = recipe("laptop", "mine", {**REST, **section(readout="theirs:Mine")})
    with pytest.raises(
        ValueError, match="readout theirs:Mine declares a function as scale_exponent, which gives"
    ) as caught:
        audit_config(config)
    assert "'none'; allowed: a number or 'fades' (docs" in str(caught.value)


def section(**model: Any) -> dict[str, Any]:
    return {"model": {**TINY, **model}, "objective": {"placement": "dense"}}


def test_a_carrys_effect(importable: Path) -> None:
    write(importable, carry("effect='clips'"))
    with pytest.raises(
        ValueError, match="carry theirs:Mine declares effect='clips'; allowed: 'removes', 'damps', 'keeps'"
    ):
        mine(carry=["theirs:Mine"], carry_settings={})


def test_a_declaration_of_another_kind(importable: Path) -> None:
    write(importable, readout("CarryDeclaration(effect='keeps', parameters=0, flops=0)"))
    with pytest.raises(
        ValueError, match="has a CarryDeclaration as its declaration; give a ReadoutDeclaration"
    ):
        mine(readout="theirs:Mine")


def test_a_misspelt_field_has_a_nearest(importable: Path) -> None:
    write(importable, readout("ReadoutDeclaration(scale_exponent=0, params=0, flops=0)"))
    with pytest.raises(ValueError, match=r"no field 'params'; did you mean parameters\?"), own_words():
        import_module("theirs")
    with pytest.raises(TypeError, match="no field 'colour'; it has reads, by_token, gate"):
        PlacementDeclaration(colour=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("readout", {"readout": "theirs:Mine"}),
        ("carry", {"carry": ["theirs:Mine"], "carry_settings": {}}),
        ("start", {"start": "theirs:Mine"}),
    ],
)
def test_another_number_of_parameters(importable: Path, kind: str, changes: dict[str, Any]) -> None:
    base = {
        "readout": ("AbstractReadout", "ReadoutDeclaration(scale_exponent=1, ", "loop, loops"),
        "carry": ("AbstractCarry", "CarryDeclaration(effect='keeps', ", "loop"),
        "start": ("AbstractStart", "StartDeclaration(shows_input=True, ", "positions"),
    }[kind]
    write(
        importable,
        f"""
        from loopscope.model import StartDeclaration
        class Mine({base[0]}):
            declaration = {base[1]} parameters=lambda config, settings: config.dim + 1, flops=0)
            def __init__(self, config, settings):
                super().__init__()
                self.gain = nn.Parameter(torch.ones(config.dim))
            def forward(self, hidden, {base[2]}): return self.gain * hidden
        """,
    )
    config = mine(**changes)
    with pytest.raises(
        ValueError, match=f"^{kind} theirs:Mine declares 17 parameters, and its module has 16"
    ) as caught:
        LoopedTransformer(config)
    assert "and its module has 16 (model.dim is 16)" in str(caught.value)


def test_a_constructor_that_takes_something_else(importable: Path) -> None:
    write(
        importable,
        """
        class Mine(AbstractReadout):
            declaration = ReadoutDeclaration(scale_exponent=1, parameters=0, flops=0)
            def __init__(self, dim): super().__init__()
            def forward(self, hidden, loop, loops): return hidden
        """,
    )
    config = mine(readout="theirs:Mine")
    with pytest.raises(
        ValueError, match=r"made by Mine\(config, settings\), which its constructor does not take"
    ):
        LoopedTransformer(config)


@pytest.mark.parametrize("seed", range(8))
def test_the_note_names_the_step_that_is_wrong(importable: Path, seed: int) -> None:
    """A step that changes nothing keeps scale, whatever the sums of its norms round to."""
    torch.manual_seed(seed)
    write(importable, carry("effect='damps'"))
    model = LoopedTransformer(mine(readout="raw", carry=[CARRY, "theirs:Mine"]))
    ids = torch.randint(300, (2, 17))
    notes = loopscope.audit(model, ids[:, :-1], ids[:, 1:]).notes
    (note,) = [note for note in notes if "declares" in note]
    assert note.startswith("Carry theirs:Mine declares that it damps scale, and measured it keeps it")


def test_a_model_without_steps_is_measured_whole() -> None:
    class Whole(LoopedTransformer):
        def carry_steps(self) -> list[Any]:
            return []

        def declared_effect(self) -> str:
            return "removes"

    model = Whole(recipe("laptop", "dense/raw", {"model": TINY, **REST}).model)
    ids = torch.randint(300, (2, 17))
    notes = loopscope.audit(model, ids[:, :-1], ids[:, 1:]).notes
    assert any(note.startswith("The carry declares that it removes scale") for note in notes)


@pytest.mark.parametrize(
    "names", [READOUTS, CARRIES, INJECTIONS, STARTS, PLACEMENTS], ids=lambda names: names.noun
)
def test_shipped_records_fit_and_names_to_inherit_from_are_public(names: Any) -> None:
    for name, shipped in names.shipped.items():
        declaration.check_fields(name, shipped.declaration, shipped.declaration.kinds())
    module, _, base = names.public.rpartition(".")
    assert issubclass(names.load(next(iter(names.shipped))), getattr(import_module(module), base))


def test_static_sentence_of_a_single_exit() -> None:
    config = recipe("laptop", "terminal/rmsnorm", {"model": TINY, **REST})
    assert "which is scale-invariant there, and there is no penalty on scale" in audit_config(config).why


def test_a_declaration_is_copied_as_any_record() -> None:
    given = CarryDeclaration(effect="keeps", parameters=0, flops=0)
    assert replace(given, why="doubles").why == "doubles"
    assert deepcopy(given) == given == loads(dumps(given))
