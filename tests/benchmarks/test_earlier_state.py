"""An earlier state's benchmarks run with that state's package, and its files go again."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.earlier_state import command_in, earlier_state

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_a_benchmark_of_an_earlier_state_runs_with_its_own_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    with earlier_state("HEAD") as tree:
        where = (
            "import json, loopscope, benchmarks; print(json.dumps([loopscope.__file__, benchmarks.__file__]))"
        )
        (tree / "benchmarks" / "where.py").write_text(where)
        said = subprocess.run(
            command_in(tree, "where", []), capture_output=True, text=True, check=True
        ).stdout
        assert [Path(path).parent.parent for path in json.loads(said)] == [tree, tree]
    assert not tree.exists()


def test_a_commit_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with (
        pytest.raises(RuntimeError, match="no-such-commit cannot be laid out"),
        earlier_state("no-such-commit"),
    ):
        pass
