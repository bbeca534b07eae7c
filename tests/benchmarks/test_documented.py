"""Commands of the results pages: their scripts and options are there, and a study that is given as a file is valid."""

import re
import shlex
from pathlib import Path

import pytest

from tests.fixtures import run_command
from tests.test_readme import ROOT

SCRIPTS = ROOT / "benchmarks"
COMMAND = re.compile(r"python -m benchmarks\.(\w+)([^\n`]*)")


def commands() -> list[tuple[str, list[str], str]]:
    """Every script that a page or a script's docstring names, its words, and where."""
    found = []
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "CHANGELOG.md", *SCRIPTS.glob("*.py")]:
        for name, words in COMMAND.findall(path.read_text(encoding="utf-8").replace("\\\n", " ")):
            given = [word for word in words.partition("#")[0].split() if word.startswith("--")]
            found.append((name, [word.strip(".,;:)") for word in given], path.name))
    return found


def sources(script: str) -> str:
    """A script, and what it imports of the folder."""
    text = (SCRIPTS / f"{script}.py").read_text(encoding="utf-8")
    imported = re.findall(r"^(?:from|import) benchmarks\.(\w+)", text, re.M)
    return "\n".join([text, *((SCRIPTS / f"{name}.py").read_text(encoding="utf-8") for name in imported)])


def test_every_documented_script_has_the_options_that_it_is_given() -> None:
    found = commands()
    assert len({name for name, *_ in found}) > 30
    missing = [
        (place, name, option)
        for name, options, place in found
        for option in options
        if not (SCRIPTS / f"{name}.py").is_file() or f'"{option}"' not in sources(name)
    ]
    assert missing == []


def test_the_study_of_resting_scales_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "results" / "2026-11-30-resting-scale.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in page.splitlines() if line.startswith("    loopscope study ")]
    assert len(lines) == 2
    monkeypatch.chdir(ROOT)
    for line in lines:
        words = shlex.split(line)[1:]
        words[words.index("--out") + 1] = str(tmp_path / "rest")
        assert run_command(monkeypatch, *words, "--dry-run") == 0
        assert "Everything was checked" in capsys.readouterr().out
