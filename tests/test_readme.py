"""The commands and the code of README and docs are run, as a reader would, at a size that takes seconds."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

import loopscope
from loopscope import cli
from loopscope.monitor.monitor import ScaleWarning
from loopscope.results import load_results, load_tasks
from tests.fixtures import run_command
from tests.report.fixtures import without_files

ROOT = Path(__file__).parent.parent
PAPERS = ROOT.parent / "shared" / "fixtures" / "published" / "dense_rmsnorm" / "last.pt"
TINY = [
    *(
        "--model.dim=16",
        "--model.heads=2",
        "--model.layers=1",
        "--model.vocabulary=300",
        "--model.sequence=24",
    ),
    *("--data.max-bytes=40000", "--data.max-validation-bytes=3000", "--data.tokenizer.vocabulary=300"),
    *("--training.batch=4", "--training.threads=1", "--quiet"),
]


def blocks(path: Path, language: str) -> list[str]:
    """Fenced code of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.S | re.M)


def shortened(words: list[str]) -> list[str]:
    """The same command with a tiny model: same names, same flow, fewer steps and seeds."""
    if words[0] not in ("train", "study"):
        return words
    kept = list(words)
    for flag, value in (("--training.steps", "2"), ("--seeds", "1")):
        if flag in kept:
            kept[kept.index(flag) + 1] = value
    steps = [] if "--training.steps" in kept else ["--training.steps", "2"]
    return [*kept, *TINY, *steps]


def commands(path: Path) -> list[list[str]]:
    lines = [line for block in blocks(path, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("loopscope ")]


@pytest.mark.usefixtures("blank_figures", "quick_timing")
def test_the_readme_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands(ROOT / "README.md")
    pages = [ROOT / "docs" / name for name in ("commands.md", "retrofit.md", "export.md", "plan.md")]
    beside = {words[0] for page in pages for words in commands(page)}
    assert {words[0] for words in found} | beside == set(cli.COMMANDS)
    if PAPERS.is_file():
        (tmp_path / "last.pt").write_bytes(PAPERS.read_bytes())
    else:  # a checkout alone has no checkpoint of the paper's
        found = [words for words in found if words[0] != "import-published"]
    for words in found:
        assert run_command(monkeypatch, *shortened(words)) == 0, words
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-9:-1]] == [str(loop) for loop in range(1, 9)]
    assert lines[-1].startswith("visible The scale of loops 1-4 is seen by the cross entropy")


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.chdir(tmp_path)
    text, variants, *_ = blocks(ROOT / "docs" / "guide.md", "yaml")
    (tmp_path / "run.yaml").write_text(text)
    command = re.search(r"loopscope (train .*)", text)
    assert command is not None
    assert (
        run_command(
            monkeypatch, *[*shlex.split(command[1]), *TINY, "--training.steps=2", "--training.warmup=1"]
        )
        == 0
    )
    assert "loop_weights" in (tmp_path / "runs" / "anchor" / "config.yaml").read_text()
    (tmp_path / "variants.yaml").write_text(variants)
    command = re.search(r"loopscope (study .*)", variants)
    assert command is not None
    assert run_command(monkeypatch, *shortened(shlex.split(command[1]))) == 0
    assert [(run.condition, run.steps) for run in load_results(tmp_path / "runs" / "variants").runs] == [
        ("plain", 2),
        ("weak", 2),
        ("slow", 2),
    ]


@pytest.mark.usefixtures("blank_figures", "quick_timing")
def test_the_evaluation_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "evaluation.md"
    (tmp_path / "questions").mkdir()
    for kind in ("json", "yaml"):
        (tmp_path / "questions" / f"colours.{kind}").write_text("".join(blocks(page, kind)))
    harness = importlib.util.find_spec("lm_eval") is not None
    for words in commands(page):
        if words[:2] == ["evaluate", "tasks"] and not harness:
            continue  # an extra
        assert run_command(monkeypatch, *shortened(words)) == 0, words
    assert (tmp_path / "runs" / "mine" / "comparison.json").is_file()
    names: dict[str, Any] = {}
    for code in blocks(page, "python"):
        exec(compile(code, "evaluation.md", "exec"), names)
    if harness:
        scored = load_tasks(tmp_path / "runs" / "mine" / "dense_raw" / "seed-0")
        assert scored is not None
        assert scored.tasks[0].loops == (1, 2, 4, 8)
    rule = names["build_rule"]("direction-step")
    left = names["early_exit"](names["model"], names["input_ids"], rule, threshold=0.0)
    assert left.loops.tolist() == [names["model"].loops] * 4  # no direction stands still


def test_the_audit_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    code, padded = blocks(ROOT / "docs" / "audit.md", "python")
    exec(compile(code, "audit.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("blind - Loops 1-3 carry")
    assert len(lines) == 4
    exec(compile(padded, "audit.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["blind", "Padding was left out: 20 of 22 places hold tokens of texts."]
    assert lines[2].startswith("1 of the labels behind a text's last token are the padding that follows it")
    assert len(lines) == 6


def test_the_example_models_run(capsys: pytest.CaptureFixture[str]) -> None:
    own, *_ = blocks(ROOT / "docs" / "extending.md", "python")  # the rest: tests/extension
    exec(compile(own, "extending.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures", "quick_timing")
def test_the_page_of_foreign_models_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder of transformers, by path; its commands on that folder; and a module of no known family."""
    if not hasattr(transformers, "DoryConfig"):
        pytest.skip(f"transformers {transformers.__version__} has no Dory, which the page saves and opens")
    monkeypatch.chdir(tmp_path)
    without_files(monkeypatch)
    saved, theirs, text = blocks(ROOT / "docs" / "foreign.md", "python")
    exec(compile(saved, "foreign.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "removed"
    shutil.copytree("dory", "other")
    for words in commands(ROOT / "docs" / "foreign.md"):
        if words[0] != "generate":  # which needs a tokenizer: tests/interop/huggingface
            paths = {"path/to/folder": "dory", "path/to/other": "other"}
            on_it = [paths.get(word, word) for word in words]
            assert run_command(monkeypatch, *on_it) == 0, words
    capsys.readouterr()
    exec(compile(theirs, "foreign.md", "exec"), {})
    assert capsys.readouterr().out.startswith("blind\n")
    exec(compile(text, "foreign.md", "exec"), {})
    assert "length" in capsys.readouterr().out


def test_the_monitor_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A loop of one's own, then the Trainer, which uses the model of the first block as the page does."""
    names: dict[str, object] = {}
    for code in blocks(ROOT / "docs" / "monitor.md", "python"):
        with pytest.warns(ScaleWarning, match="nothing holds the scale of the last loop"):
            exec(compile(code, "monitor.md", "exec"), names)
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[:6]] == ["1", "20", "40", "60", "80", "100"]
    assert "loopscope/exposure_loop_4" in printed


@pytest.mark.filterwarnings("ignore::loopscope.monitor.monitor.ScaleWarning")
def test_the_page_on_the_trainer_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    trained, adapted = blocks(ROOT / "docs" / "trainer.md", "python")
    exec(compile(trained, "trainer.md", "exec"), names)
    assert "visible" in capsys.readouterr().out
    assert loopscope.load("trained/last").loops == 4
    if importlib.util.find_spec("peft") is None:
        return  # an extra
    exec(compile(adapted, "trainer.md", "exec"), names)
    assert capsys.readouterr().out.splitlines()[-1] == "4"


def test_the_make_targets_exist_and_links_lead_somewhere() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for path in (*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text()
        for target in re.findall(r"^make (\w+)", "\n".join(blocks(path, "sh")), re.M):
            assert f"\n{target}:" in makefile
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert link.startswith("https://") or (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_readme_fits_a_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 70
