"""Classes of a user's own, in a folder that is nowhere installed, reach the processes and jobs that train with them."""

import os
from pathlib import Path

import pytest

from loopscope.results import load_results
from tests.extension.fixtures import run, write_package


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two cores")
def test_own_classes_are_trained_with_in_other_processes(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="extra `slurm`")
    write_package(tmp_path)
    study = ["study", "--size", "laptop", "--conditions", "run.yaml", "--seeds", "2", "--quiet", "--out"]
    cache = {"LOOPSCOPE_CACHE": str(tmp_path / "cache")}
    done = run(
        tmp_path,
        [*study, "one-by-one"],
        [*study, "side-by-side", "--at-once", "2"],
        [*study, "jobs", "--launcher", "local", "--at-once", "2"],
        env=cache,
    )
    assert done.returncode == 0, done.stderr
    first, *others = (load_results(tmp_path / name).runs for name in ("one-by-one", "side-by-side", "jobs"))
    assert [(each.status, each.seed) for each in first] == [("completed", 0), ("completed", 1)]
    for runs in others:
        assert [each.per_loop for each in runs] == [each.per_loop for each in first]
