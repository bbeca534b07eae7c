"""The workflow, `.ci/run` and the hooks check the versions that the package promises, with the tools it installs."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"
RUN = (ROOT / ".ci" / "run").read_text()


def oldest(package: str) -> str:
    """The oldest version that the package says it works with."""
    (found,) = [name for name in PROJECT["dependencies"] if re.match(rf"{package}[^\w-]", name)]
    return found.removeprefix(f"{package}>=")


def faults(workflow: dict[Any, Any]) -> list[str]:
    """What GitHub would refuse of the parts that this workflow uses."""
    found = [
        f"no {key}" for key in ("name", True, "jobs") if key not in workflow
    ]  # YAML 1.1 reads `on` as True
    for name, job in workflow.get("jobs", {}).items():
        known = {"name", "runs-on", "timeout-minutes", "strategy", "env", "steps", "needs"}
        found += [f"{name}: {key}?" for key in job.keys() - known]
        found += [f"{name}: no {key}" for key in {"runs-on", "steps"} - job.keys()]
        axes = job.get("strategy", {}).get("matrix", {}).keys()
        found += [f"{name}: no {axis}" for axis in re.findall(r"matrix\.(\w+)", str(job)) if axis not in axes]
        for step in job.get("steps", []):
            found += [f"{name}: {step}"] if ("uses" in step) == ("run" in step) else []
            found += [f"{name}: {key}?" for key in step.keys() - {"name", "uses", "with", "run", "env", "if"}]
    return found


def test_the_workflow_is_one() -> None:
    assert faults(yaml.safe_load(WORKFLOW.read_text())) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("runs-on: ubuntu-latest", "runs_on: ubuntu-latest"),
        ("matrix.torch }}", "matrix.troch }}"),
        ("- run: mypy", "- mypy: run"),
    ],
)
def test_a_fault_in_the_workflow_is_found(old: str, new: str) -> None:
    assert faults(yaml.safe_load(WORKFLOW.read_text().replace(old, new))) != []


def test_both_ends_of_every_range_are_tested() -> None:
    matrix = yaml.safe_load(WORKFLOW.read_text())["jobs"]["suite"]["strategy"]["matrix"]
    pinned = re.search(r"torch==(\d+\.\d+)", (ROOT / "constraints.txt").read_text())
    assert pinned is not None
    assert matrix["torch"] == [oldest("torch"), pinned[1]]
    assert matrix["transformers"] == [oldest("transformers"), "newest"]
    assert matrix["python"][0] == PROJECT["requires-python"].removeprefix(">=")
    assert len(matrix["python"]) == 3
    for package in ("torch", "transformers"):
        assert f"{package}=={oldest(package)}.0" in RUN


def test_an_export_is_tried_without_loopscope_on_both_ends_of_every_range() -> None:
    """On torch of both ends; each with the oldest transformers, the last before a cache's new name, and the newest."""
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["exported"]["steps"]
    made, alone = (step["run"] for step in steps if "run" in step)
    assert {"loopscope train", "loopscope export", "loopscope generate"} <= set(
        re.findall(r"loopscope \w+", made)
    )
    pinned = re.search(r"torch==(\d+\.\d+)", (ROOT / "constraints.txt").read_text())
    assert pinned is not None
    assert f"for torch in {oldest('torch')} {pinned[1]}; do" in alone
    assert f"transformers=={oldest('transformers')}.0" in alone
    assert re.search(r"\.ci/exported \S+ exported generated\.json 5\.23\.0 \S*newest", alone)
    assert "pip install -e" not in alone and "loopscope" not in alone  # noqa: PT018


def installed_extras(workflow: str) -> set[str]:
    """Extras of the package that some job installs."""
    lists = re.findall(r"install .*(?:\.|\.whl)\[([\w,]+)\]", workflow)
    return {extra for each in lists for extra in each.split(",")}


def test_every_extra_is_installed_by_a_job() -> None:
    text = WORKFLOW.read_text()
    assert installed_extras(text) == set(PROJECT["optional-dependencies"])
    assert "int8" not in installed_extras(text.replace("hf,int8,dev", "hf,dev"))


def test_int8_is_tried_where_it_is_installed_and_a_skipped_test_fails() -> None:
    (last,) = yaml.safe_load(WORKFLOW.read_text())["jobs"]["int8"]["steps"][-1:]
    (tests,) = re.findall(r"pytest -rs (\S+)", last["run"])
    assert 'importorskip("torchao' in (ROOT / tests).read_text()
    assert "grep '^SKIPPED' said; then exit 1" in last["run"]


def test_hooks_are_tools_that_the_environment_has() -> None:
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    assert [hook["id"] for hook in hooks] == ["ruff", "ruff-format", "mypy"]
    dev = {re.match(r"[\w-]+", name)[0] for name in PROJECT["optional-dependencies"]["dev"]}  # type: ignore[index]
    for hook in hooks:
        program = Path(hook["entry"].split()[0])
        assert program.parent == Path(".venv/bin")
        assert program.name in dev


def test_scripts_of_ci_can_be_run() -> None:
    named = set(re.findall(r"(?<!\w)\.ci/\w+", RUN + WORKFLOW.read_text()))
    assert named == {".ci/exported", ".ci/outside", ".ci/over"}
    assert all(os.access(ROOT / name, os.X_OK) for name in named)
    assert {".ci/exported", ".ci/outside"} <= set(re.findall(r"(?<!\w)\.ci/\w+", WORKFLOW.read_text()))
