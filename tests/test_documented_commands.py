"""Examples of every `--help` and commands and code of the docs, as printed, each in a folder that has what they name.

Only the sizes for a laptop are others here (a model of a few thousand numbers), a run has a hundredth of its steps, and
a study has its first seed and, of all conditions, two. README, the evaluation page and the pages on models and monitors
are run by `test_readme.py`, docs/extending.md by tests/extension.
"""

import gzip
import inspect
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from loopscope.cli import study
from loopscope.config import sizes
from loopscope.config.recipes import CONDITIONS
from loopscope.jobs import slurm_jobs
from loopscope.training import loop, throughput
from tests.cli.fixtures import CLASSES, class_of
from tests.evaluation.tasks.fixtures import write_tasks
from tests.fixtures import run_command
from tests.interop.huggingface.sources import save_source
from tests.jobs.fake_slurm import install_slurm, on_path
from tests.test_readme import PAPERS, ROOT, blocks

ELSEWHERE = {"evaluation.md", "extending.md", "foreign.md"}
PROMPTS = '{"prompt": "def main(", "new_tokens": 8}\n{"prompt": "import ", "loops": 2}\n'
PAGES = (
    "guide.md",
    "audit.md",
    "tasks.md",
    "generation.md",
    "lens.md",
    "loggers.md",
    "export.md",
    "commands.md",
    "plan.md",
    "retrofit.md",
    "cluster.md",
    "interruptions.md",
    "depth-and-rounding.md",
)


QUESTIONS = tuple(f"questions/{path.name}" for path in sorted((ROOT / "docs" / "questions").glob("*.md")))
READ = ("tutorial.md", "onnx.md", *(page for page in QUESTIONS if blocks(ROOT / "docs" / page, "sh")))


def tiny() -> dict[str, object]:
    """A size for a laptop, smaller."""
    return {
        "model": {"dim": 8, "layers": 1, "heads": 2, "loops": 4, "vocabulary": 300, "sequence": 72},
        "data": {
            "corpus": "stdlib",
            "max_bytes": 60_000,
            "max_validation_bytes": 4_500,
            "tokenizer": {"kind": "word", "vocabulary": 300},
        },
        "training": {"steps": 120, "batch": 4, "evaluate_every": 40, "monitor_every": 0, "threads": 1},
    }


def in_page(name: str) -> list[list[str]]:
    """Commands of a page of the docs, lines that go on joined."""
    text = "\n".join(blocks(ROOT / "docs" / name, "sh")).replace("\\\n", " ")
    return [
        shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("loopscope ")
    ]


def in_help(command: str) -> list[list[str]]:
    """Examples of a command; of several processes (torchrun) what each of them runs."""
    _, _, example = (inspect.getdoc(class_of(command)) or "").partition("Example:")
    lines = [shlex.split(line) for line in example.strip().splitlines()]
    return [words[words.index("loopscope") + 1 :] for words in lines]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with runs, studies, text and configs under the names that the docs use."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCOPE_CACHE", str(folder / "cache"))
        for size in ("small", "laptop"):
            patch.setitem(sizes.SIZES, size, tiny)  # type: ignore[arg-type]
        total = loop.total_steps
        patch.setattr(loop, "total_steps", lambda config, windows: max(1, total(config, windows) // 100))
        patch.setattr(study, "_seeds", lambda text: [0])
        patch.setattr(
            study, "CONDITIONS", {name: CONDITIONS[name] for name in ("dense/alpha", "dense/rmsnorm")}
        )
        patch.setitem(throughput.SIDE, "cpu", 256)  # of the products that are timed
        patch.setattr(torch, "set_num_threads", lambda count: None)  # one, as all tests have
        patch.chdir(folder)
        (folder / "text").mkdir()
        for number in range(3):
            (folder / "text" / f"{number}.txt").write_text(
                "The recurrence adds to the state in every loop.\n" * 200
            )
        rows = [
            json.dumps({"body": f"Document {number}. " + "The state grows. " * 20}) for number in range(200)
        ]
        (folder / "docs.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
        (folder / "start.txt").write_text("def main(")
        write_tasks(folder / "questions", 4)
        save_source(folder / "llama", "llama")
        (folder / "prompts.jsonl").write_text(PROMPTS)
        for name, text in zip(
            ("run", "variants", "released"), blocks(ROOT / "docs" / "guide.md", "yaml"), strict=True
        ):
            (folder / f"{name}.yaml").write_text(text)
        (folder / "first.yaml").write_text(*blocks(ROOT / "docs" / "tutorial.md", "yaml"))
        for name, weight in (("a", 0.1), ("b", 0.2)):
            (folder / f"{name}.yaml").write_text(f"objective: {{norm_penalty: {{weight: {weight}}}}}\n")
        if PAPERS.is_file():
            shutil.copy(PAPERS, folder / "last.pt")
        assert run_command(patch, "train", "--condition", "dense/raw", "--out", "runs/base", "--quiet") == 0
        words = ["study", "--conditions", "dense/rmsnorm,dense/raw", "--out", "runs/mine", "--quiet"]
        assert run_command(patch, *words) == 0
        shutil.copytree(
            "runs/mine", "runs/one"
        )  # a study of one condition, where the others would only cost time
        shutil.rmtree("runs/one/dense_raw")
        yield folder


def run_all(monkeypatch: pytest.MonkeyPatch, world: Path, commands: list[list[str]]) -> None:
    monkeypatch.chdir(world)
    assert commands
    for words in commands:
        if "last.pt" in words and not (world / "last.pt").is_file():
            continue  # a checkout alone has no checkpoint of the paper's
        assert run_command(monkeypatch, *words) == 0, words


def runs(world: Path, *names: str, of: str) -> None:
    """The same run or study, under other names."""
    for name in names:
        shutil.copytree(world / "runs" / of, world / "runs" / name)


@pytest.fixture
def fresh(world: Path) -> Iterator[Path]:
    """The world, with runs that a page has added taken away again."""
    yield world
    for path in (world / "runs").iterdir():
        if path.name not in ("base", "mine", "one"):
            shutil.rmtree(path)
    for name in ("models", "exported", "with-a-full-stop", "without-an-end"):
        shutil.rmtree(world / name, ignore_errors=True)


@pytest.mark.usefixtures("blank_figures", "quick_timing")
@pytest.mark.parametrize("command", CLASSES)
def test_examples_of_help(monkeypatch: pytest.MonkeyPatch, fresh: Path, command: str) -> None:
    if command not in ("train", "study", "recipes"):
        runs(fresh, "raw", of="base")
        runs(fresh, "x", "demo", "words", of="one")
        runs(fresh, "bytes", of="base")
    run_all(monkeypatch, fresh, in_help(command))


@pytest.mark.usefixtures("blank_figures", "quick_timing")
@pytest.mark.slow
@pytest.mark.parametrize("page", [*PAGES, *READ])
def test_commands_of_a_page(monkeypatch: pytest.MonkeyPatch, fresh: Path, page: str, tmp_path: Path) -> None:
    if page == "loggers.md":
        pytest.importorskip("tensorboard", reason="extra `log`")
        pytest.importorskip("trackio", reason="extra `log`")
    if page == "onnx.md":
        pytest.importorskip("onnxruntime", reason="extra `onnx`")
    if page == "cluster.md":
        pytest.importorskip("submitit", reason="extra `slurm`")
        monkeypatch.setenv("PATH", on_path(install_slurm(tmp_path)))
        monkeypatch.setattr(slurm_jobs, "SLURM_POLL", 0.2)
    runs(fresh, "raw", of="base")
    runs(fresh, "study", of="one")
    # The nodes are this machine, and a job fails that has asked for a GPU and sees none.
    run_all(monkeypatch, fresh, [[word.replace("gpus=1,", "") for word in words] for words in in_page(page)])
    if page == "onnx.md":
        for code in blocks(ROOT / "docs" / page, "python"):
            exec(compile(code, page, "exec"), {})


WITH_CODE = (
    "guide.md",
    "generation.md",
    "lens.md",
    "retrofit.md",
    "export.md",
    "interruptions.md",
    "cluster.md",
)


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_of_a_page(monkeypatch: pytest.MonkeyPatch, fresh: Path, page: str) -> None:
    monkeypatch.chdir(fresh)
    runs(fresh, "raw", of="base")
    if page == "interruptions.md":
        run_all(monkeypatch, fresh, in_page(page))
    if page == "export.md":  # whose first command writes what its code loads
        run_all(monkeypatch, fresh, in_page(page)[:1])
    for code in blocks(ROOT / "docs" / page, "python"):
        if "DoryConfig" in code and not hasattr(transformers, "DoryConfig"):
            continue  # an older transformers
        exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("page", [page for page in QUESTIONS if blocks(ROOT / "docs" / page, "python")])
def test_code_of_a_question(page: str) -> None:
    for code in blocks(ROOT / "docs" / page, "python"):
        exec(compile(code, page, "exec"), {})


def test_no_page_with_commands_is_left_out() -> None:
    with_commands = {
        str(path.relative_to(ROOT / "docs"))
        for path in (ROOT / "docs").rglob("*.md")
        if path.parent.name != "results" and re.search(r"^loopscope ", path.read_text(), re.M)
    }
    assert with_commands == {*PAGES, *READ, *ELSEWHERE}
