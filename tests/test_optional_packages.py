"""Extras of the package: what the code asks for is what they bring, and every refusal is one sentence."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from loopscope.config import SlurmRequest
from loopscope.data.config import DataConfig
from loopscope.data.corpora import build_corpus
from loopscope.evaluation.tasks.harness import require_harness
from loopscope.interop.huggingface.loading import Loading
from loopscope.jobs import check_onnx
from loopscope.jobs.slurm_jobs import SlurmJobs
from loopscope.optional_packages import EXTRAS, needed, require

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
BESIDE = {"docs", "dev", "int8"}
"""Extras of which nothing is imported here."""

REFUSED: dict[str, tuple[Callable[[], object], str, str]] = {
    "data": (
        lambda: next(iter(build_corpus(DataConfig(corpus="owner/name")).train())),
        "corpus 'owner/name'",
        "datasets",
    ),
    "eval": (require_harness, "evaluate tasks", "lm_eval"),
    "hf": (lambda: Loading(device_map="auto"), "device-map 'auto'", "accelerate"),
    "onnx": (check_onnx, "an ONNX file", "onnx and onnxscript and onnxruntime"),
    "slurm": (
        lambda: SlurmJobs(Path("x"), SlurmRequest(), None, None).check(),
        "launcher 'slurm'",
        "submitit",
    ),
}


def test_extras_are_those_of_the_project() -> None:
    brought = {
        extra: {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements}
        for extra, requirements in PROJECT["optional-dependencies"].items()
    }
    assert brought.keys() == EXTRAS.keys() | BESIDE
    for extra, packages in EXTRAS.items():
        assert set(packages) <= brought[extra], extra


@pytest.mark.parametrize("extra", REFUSED)
def test_what_needs_an_extra_says_which(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused, what, packages = REFUSED[extra]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    are = "are" if " and " in packages else "is"
    sentence = f"{what} needs {packages}, which {are} not installed: pip install 'loopscope[{extra}]'"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        refused()


def test_no_extra_is_unknown_to_the_tests() -> None:
    assert EXTRAS.keys() == REFUSED.keys() | {"log"}  # tests/jobs/test_run_trackers.py


def test_what_is_there_is_not_refused() -> None:
    require("a test", "pytest")
    with pytest.raises(ValueError, match=r"needs loopscope_absent, which is not installed"):
        require("a test", "pytest", "loopscope_absent")


def test_a_package_that_cannot_be_imported_is_told_with_its_fault() -> None:
    said = needed("training.log 'wandb'", ["wandb"], ImportError("no such symbol"))
    assert said == (
        "training.log 'wandb' needs wandb, which cannot be imported (no such symbol): pip install 'loopscope[log]'"
    )


def test_the_page_on_installation_lists_every_extra() -> None:
    page = (Path(__file__).parent.parent / "docs" / "install.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| \d+ \|", page, re.M)) == set(PROJECT["optional-dependencies"])
