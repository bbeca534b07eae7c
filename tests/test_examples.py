"""The programs of examples/ and the notebooks run, as a reader would run them, and print what they promise."""

import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = {  # name -> a line of what it prints
    "audit_your_module.py": "blind - ",
    "compare_conditions.py": "dense/raw minus dense/rmsnorm",
    "leave_early.py": "sequences leave at loops",
    "monitor_your_training.py": "step 100: RMS by loop",
    "replace_a_state.py": "loop 4, layer 1: the last exit moves by",
    "train_from_python.py": "loop 8: RMS",
}


def test_every_program_is_here_and_says_how_it_is_run() -> None:
    programs = sorted((ROOT / "examples").glob("*.py"))
    assert [path.name for path in programs] == sorted(PROGRAMS)
    page = (ROOT / "docs" / "examples.md").read_text()
    for path in programs:
        assert f"python examples/{path.name}\n" in path.read_text()
        assert f"`examples/{path.name}`" in page


@pytest.mark.filterwarnings("ignore:nothing holds the scale", "ignore::loopscope.monitor.ScaleWarning")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)  # one, as all tests have
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert PROGRAMS[name] in capsys.readouterr().out


NOTEBOOKS = {  # name -> a line that one of its cells prints
    "audit_a_stranger.ipynb": "dense: blind. ",
    "retrofit.ipynb": "bare: read from the recipe blind, measured blind",
    "train_and_look.ipynb": "dense/raw: visible. ",
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One kernel for all notebooks: its start and the first `import torch` cost more than their cells."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    home = tmp_path_factory.mktemp("notebooks")
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "LOOPSCOPE_CACHE": str(home / "cache"),
    }
    client = nbclient.NotebookClient(nbformat.v4.new_notebook(), timeout=120, kernel_name="python3")
    client.create_kernel_manager()
    client.start_new_kernel(env=env, cwd=str(home))
    client.start_new_kernel_client()
    yield client
    client._cleanup_kernel()


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, kernel: Any) -> None:
    import nbformat

    kernel.nb = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    nbformat.validate(kernel.nb)
    kernel.execute_cell(nbformat.v4.new_code_cell("%reset -f"), 0, store_history=False)
    kernel.reset_execution_trackers()
    printed = []
    for index, cell in enumerate(kernel.nb.cells):
        assert not cell.get("outputs"), "notebooks are kept without outputs: clear them"
        done = kernel.execute_cell(cell, index)  # raises what the cell raised
        printed += [output.get("text", "") for output in done.get("outputs", [])]
    assert NOTEBOOKS[name] in "".join(printed)


def test_every_notebook_is_named() -> None:
    assert sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb")) == sorted(NOTEBOOKS)
    page = (ROOT / "docs" / "examples.md").read_text()
    assert all(f"`notebooks/{name}`" in page for name in NOTEBOOKS)
