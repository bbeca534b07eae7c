"""What lies where: found as it was always written, whole or not at all, and named in one file."""

import ast
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from loopscope.results.checkpoints import model_folder
from loopscope.results.layout import (
    CHECKPOINTS,
    FIGURES,
    condition_folder,
    first_runs,
    is_study,
    newest_checkpoint,
    remove_other_checkpoints,
    replacing,
    run_files,
    run_folder,
    seed_of,
    trained_runs,
    visible,
    write_text,
)

PACKAGE = Path(__file__).parent.parent.parent / "loopscope"
NAMES = (
    "config.yaml|result.json|metrics.jsonl|audit.json|evaluation.json|evaluation.previous.json|comparison.json|"
    "model.safetensors|optimizer.safetensors|state.json|manifest.json|result.damaged.json|tokenizer.json|"
    "study.yaml|results.json|report.html|retrofit.json|train.yaml"
)
NAMED = re.compile(rf"(?<![\w.])({NAMES.replace('.', '[.]')})|(^|/)step-|(^|[*/])seed-|\.writing")


def texts(source: str) -> list[str]:
    """String constants of a module, without its docstrings."""
    tree = ast.parse(source)
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said]
    return [node.value for node in constants if isinstance(node.value, str)]


def literals(source: str) -> list[str]:
    """Texts that name what `results.layout` owns."""
    return [text for text in texts(source) if NAMED.search(text) or text in (CHECKPOINTS, FIGURES)]


ANCHORS = {"report/contents.py": ["figures"]}
"""Parts of a page that are called as a folder is."""


def test_no_other_file_of_the_package_names_what_lies_in_a_folder() -> None:
    found = {
        str(path.relative_to(PACKAGE)): literals(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE) != Path("results/layout.py")
    }
    assert {path: texts for path, texts in found.items() if texts} == ANCHORS


def test_the_search_for_names_can_fail() -> None:
    assert literals('path / "config.yaml"') == ["config.yaml"]
    assert literals('raise ValueError(f"{path} has no tokenizer.json; give one")') == [
        " has no tokenizer.json; give one"
    ]
    assert literals('out.glob("*/seed-*/x")') == ["*/seed-*/x"]
    assert literals('run / "checkpoints"') == ["checkpoints"]
    assert literals('"""Reads config.yaml."""\nkey = "audit-step-size"\nopen("paperconfig.yaml")') == []
    assert len(literals((PACKAGE / "results" / "layout.py").read_text())) > 15


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study as it was always laid out, with seeds whose order as text is another one, and a folder of no run."""
    (tmp_path / "study.yaml").write_text("size: laptop\n")
    for run in ("dense_raw/seed-10", "dense_raw/seed-9", "dense_rmsnorm+penalty/seed-0", "a/seed-x"):
        (tmp_path / run / "checkpoints" / "step-00000004").mkdir(parents=True)
        (tmp_path / run / "result.json").write_text("{}")
    (tmp_path / "dense_raw" / "seed-2" / "checkpoints" / ".writing-step-00000004").mkdir(parents=True)
    return tmp_path


def test_runs_of_a_study_are_found_by_seed(study: Path) -> None:
    def names(paths: list[Path]) -> list[str]:
        return [str(path.relative_to(study)) for path in paths]

    trained = ["a/seed-x", "dense_raw/seed-9", "dense_raw/seed-10", "dense_rmsnorm+penalty/seed-0"]
    assert names(trained_runs(str(study))) == trained
    assert names(first_runs(study)) == ["a/seed-x", "dense_raw/seed-9", "dense_rmsnorm+penalty/seed-0"]
    assert [path.parent.name for path in run_files(study, "result.json")] == [
        "seed-0",
        "seed-9",
        "seed-10",
        "seed-x",
    ]
    assert run_folder(study, "dense/raw", 9) == study / "dense_raw" / "seed-9"
    assert (seed_of("x/seed-7"), seed_of("x/seed-x"), seed_of("x/7")) == (7, None, None)
    run = study / "dense_raw" / "seed-9"
    assert (is_study(study), is_study(run), trained_runs(run)) == (True, False, [run])


def test_the_newest_checkpoint_is_the_one_of_the_last_step(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for name in ("step-00000900", "step-99999999", "step-100000000", ".writing-step-200000000"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    newest = tmp_path / "checkpoints" / "step-100000000"
    assert newest_checkpoint(str(tmp_path)) == model_folder(tmp_path) == newest
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert model_folder(tmp_path) == tmp_path


def test_a_folder_without_a_model_says_what_was_looked_for(study: Path) -> None:
    said = r"neither config.yaml with model.safetensors, nor checkpoints/step-\*, nor a config.json .* It holds runs"
    with pytest.raises(ValueError, match=said):
        model_folder(study)
    (study / "none").mkdir()
    (study / "none" / "study.yaml").touch()
    with pytest.raises(ValueError, match="without a single checkpoint"):
        first_runs(study / "none")


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_text(path, "old")

    def cut_short() -> None:
        with replacing(path) as writing:
            writing.write_text("ne")
            assert writing.parent == path.parent  # one file system: the rename is atomic
            assert str(os.getpid()) in writing.name  # two processes do not write into each other's
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_short()
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["result.json"])
    write_text(str(path), "new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("new", ["result.json"])
    (tmp_path / ".hidden").touch()
    assert visible(tmp_path) == ["result.json"]
    assert visible(tmp_path / "missing") == []


def test_every_condition_has_a_folder_of_its_own_inside_the_study(tmp_path: Path) -> None:
    names = ["a/b", "a_b", "a:b", "a__b", "a_/b", "a/_b", "A/b", "a b", "a?b", "á", "figures", "report.html"]
    names += ["x" * 300, "x" * 299 + "y", "../other", "a/../b", "/etc", ".hidden", "a.", "a~b", "-"]
    folders = [condition_folder(tmp_path, name) for name in names]
    assert len({folder.name.casefold() for folder in folders}) == len(names)
    for folder in folders:
        assert folder.parent == tmp_path
        assert folder.resolve() == tmp_path.resolve() / folder.name
        assert len(folder.name.encode()) < 130
        folder.mkdir()
    assert not {"figures", "report.html", "a.", ".hidden"} & {folder.name for folder in folders}
    shipped = {"dense/rmsnorm+penalty": "dense_rmsnorm+penalty", "unlooped:dense/raw": "unlooped=dense_raw"}
    assert {name: condition_folder("x", name).name for name in shipped} == shipped
    for name in ("..", ".", "", " ", "/", "a\nb", "a\0b"):
        with pytest.raises(ValueError, match="no folder can be called so"):
            condition_folder(tmp_path, name)


def test_only_the_run_s_own_checkpoints_are_removed_and_through_no_link(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    mine, kept = tmp_path / "mine", folder / "step-00000300"
    gone = ["step-00000100", "step-00000200", ".writing-step-00000250"]
    stay = ["best", "step-00000100-backup", "step-7", ".writing-notes", kept.name]
    for path in (mine, *(folder / name for name in gone + stay)):
        path.mkdir(parents=True)
        (path / "weights").touch()
    (folder / "step-00000050").symlink_to(mine)
    remove_other_checkpoints(kept)
    assert sorted(os.listdir(folder)) == sorted([*stay, "step-00000050"])
    assert all((path / "weights").exists() for path in (mine, *(folder / name for name in stay)))
    assert newest_checkpoint(tmp_path) == kept


def test_a_removal_cut_short_leaves_no_half_under_a_checkpoint_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    for name in ("step-00000100", "step-00000200", ".writing-step-00000100"):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").touch()

    def killed(path: Path, **_: Any) -> None:
        if any(path.iterdir()):
            (path / "weights").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    for _ in range(2):  # of what was left before, and of the checkpoint
        with pytest.raises(KeyboardInterrupt):
            remove_other_checkpoints(folder / "step-00000200")
    monkeypatch.undo()
    assert {path.name for path in folder.iterdir() if any(path.iterdir())} == {"step-00000200"}
    assert newest_checkpoint(tmp_path) == folder / "step-00000200"
    remove_other_checkpoints(folder / "step-00000200")
    assert os.listdir(folder) == ["step-00000200"]
