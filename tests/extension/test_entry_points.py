"""A second package, installed beside Loopscope, that registers its variants: used by short names, from any folder."""

from importlib import metadata
from pathlib import Path

import pytest
import yaml

from loopscope.config.recipes import is_condition, recipe
from loopscope.evaluation.exits.rules import build_rule, rule_names
from loopscope.model import LoopedTransformer
from loopscope.model.config.variants import READOUTS
from loopscope.plan.parameters import cost
from loopscope.plan.static_audit import audit_config
from tests.extension.fixtures import REST, TINY, run, write_package

GROUPS = {
    "loopscope.readouts": "max-norm = myloops.readouts:MaxNorm",
    "loopscope.carries": "fade = myloops.carries:Fade",
    "loopscope.placements": "late = myloops.placements:LateLoops",
    "loopscope.exit_rules": "steady = myloops.rules:SteadyScale",
}
MODEL = {**TINY, "readout": "max-norm", "carry": ["fade"]}


def install(site: Path, name: str = "myloops", groups: dict[str, str] | None = None) -> None:
    """What `pip install --target` leaves: the package, and its dist-info with the entry points."""
    write_package(site)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = [line for group, entry in (groups or GROUPS).items() for line in (f"[{group}]", entry)]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages that this process looks through."""
    import sys

    install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "myloops"]:
        del sys.modules[name]


@pytest.mark.slow
def test_short_names_from_any_folder(tmp_path: Path) -> None:
    """Train, both audits, exits and the report; a folder's short name needs no leave, for the package is installed."""
    site, work = tmp_path / "site", tmp_path / "work"
    install(site)
    work.mkdir()
    values = {"condition": "mine", "model": MODEL, "objective": {"placement": "late"}, **REST}
    (work / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    done = run(
        work,
        ["audit", "--config", "run.yaml", "--strict"],
        ["train", "--config", "run.yaml", "--out", "runs/mine", "--quiet"],
        ["audit", "runs/mine"],
        ["evaluate", "exits", "runs/mine", "--rules", "steady", "--pairs", "0"],
        ["report", "runs/mine"],
        sites=[site],
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "readout max-norm" in said
    assert "Judged under its own objective, late" in said
    page = (work / "runs" / "mine" / "report.html").read_text(encoding="utf-8")
    assert "max-norm" in page
    assert "steady" in page


def test_costs_and_the_static_audit_know_them(installed: Path) -> None:
    config = recipe("laptop", "late/max-norm", {"model": TINY, **REST})
    assert cost(config.model).parameters == LoopedTransformer(config.model).parameter_count()
    assert audit_config(config).verdict == "blind"
    assert is_condition("huginn:dense/max-norm")
    assert "steady" in rule_names()
    assert build_rule("steady").name == "steady"


def test_an_unknown_name_lists_the_installed_ones(installed: Path) -> None:
    with pytest.raises(
        ValueError, match=r"unknown readout 'max-nrm'; did you mean max-norm\? .*installed max-norm"
    ):
        READOUTS.check("max-nrm")


def test_two_packages_with_one_name_are_refused(installed: Path) -> None:
    info = installed / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[loopscope.readouts]\nmax-norm = other:Norm\n", encoding="utf-8")
    assert len(metadata.entry_points(group="loopscope.readouts")) == 2
    with pytest.raises(ValueError, match="registered twice, as .* and as .*; uninstall one"):
        READOUTS.check("max-norm")


def test_a_shipped_name_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, groups={"loopscope.readouts": "raw = myloops.readouts:MaxNorm"})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert READOUTS.declaration("raw") is READOUTS.shipped["raw"].declaration
    assert "raw" not in READOUTS.installed()
