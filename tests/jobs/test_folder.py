"""What lies in a run's folder is that run's: parts of another, and damaged ones, are named and never passed over."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import loopscope
from loopscope.config import parse_config
from loopscope.config.recipes import recipe
from loopscope.jobs import (
    ExitSettings,
    audit_paths,
    execute,
    measure_depth,
    measure_exits,
    open_model,
    run_study,
)
from loopscope.jobs import study as study_module
from loopscope.jobs.folder import written_config
from loopscope.jobs.study_results import collect
from loopscope.jobs.train import failed, finished
from loopscope.results import load_results
from loopscope.results.layout import CONFIG, condition_folder, run_folder
from loopscope.results.manifest import table_of
from loopscope.results.tensor_file import read_tensors, write_tensors
from tests.jobs.fixtures import OVER


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two runs that differ in their seed, and one of another condition; each test has a copy of them."""
    patch = pytest.MonkeyPatch()
    patch.setenv("LOOPSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
    out = tmp_path_factory.mktemp("study")
    run_study("laptop", ["dense/raw", "dense/rmsnorm"], [0, 1], out, OVER, quiet=True)
    yield out
    patch.undo()


@pytest.fixture
def study(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs, tmp_path / "study"))


def again(study: Path, **changes: Any) -> Any:
    settings = {"conditions": ["dense/raw", "dense/rmsnorm"], "seeds": [0, 1], **changes}
    return run_study("laptop", out=study, over=OVER, quiet=True, **settings)


def by_run(results: Any) -> dict[tuple[str, int], Any]:
    return {(run.condition, run.seed): run.per_loop for run in results.runs}


def flip(path: Path) -> None:
    """Change the last bit of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_flipped_weight_is_refused_by_everything_that_reads_it(study: Path) -> None:
    run = run_folder(study, "dense/raw", 0)
    (checkpoint,) = (run / "checkpoints").iterdir()
    flip(checkpoint / "model.safetensors")
    config = recipe("laptop", "dense/raw", OVER)
    for use in (
        lambda: loopscope.load(run),
        lambda: loopscope.load(checkpoint),
        lambda: open_model(run),
        lambda: next(audit_paths([run], sequences=1)),
        lambda: measure_depth(run, windows=1),
        lambda: execute(config, run, resume=True, quiet=True),
    ):
        with pytest.raises(ValueError, match=r"model.safetensors is cut short or was changed after it was"):
            use()


def test_a_checkpoint_of_another_seed_or_condition_is_refused(study: Path) -> None:
    run = run_folder(study, "dense/raw", 0)
    for condition, seed, says in (
        ("dense/raw", 1, r"training.seed: 0 in the folder's config, 1 here"),
        ("dense/rmsnorm", 0, r"condition: 'dense/raw' in the folder's config, 'dense/rmsnorm' here"),
    ):
        shutil.rmtree(run / "checkpoints")
        shutil.copytree(run_folder(study, condition, seed) / "checkpoints", run / "checkpoints")
        for use in (
            lambda: open_model(run),
            lambda: execute(recipe("laptop", "dense/raw", OVER), run, resume=True, quiet=True),
        ):
            with pytest.raises(ValueError, match=rf"step-00000003 is another run's \(.*{says}"):
                use()


def test_a_result_of_another_run_is_refused_where_it_is_asked_for_and_left_out_elsewhere(study: Path) -> None:
    run = run_folder(study, "dense/raw", 0)
    shutil.copy(run_folder(study, "dense/raw", 1) / "result.json", run / "result.json")
    with pytest.raises(
        ValueError, match=r"result.json is another run's \(seed: 0 in the folder's config, 1 "
    ):
        again(study)
    with pytest.warns(UserWarning, match=r"left out of the study's results: .*dense_raw/seed-0/result.json"):
        results = again(study, conditions=["dense/rmsnorm"])
    left = {(each.condition, each.seed) for each in results.runs}
    assert left == {("dense/raw", 1), ("dense/rmsnorm", 0), ("dense/rmsnorm", 1)}


def test_a_result_cut_short_is_named_and_made_again_from_its_checkpoint(study: Path) -> None:
    before = load_results(study)
    path = run_folder(study, "dense/raw", 0) / "result.json"
    half = path.read_text()[:300]
    path.write_text(half)
    with pytest.warns(UserWarning, match=r"dense_raw/seed-0/result.json is cut short or damaged"):
        after = again(study)
    assert by_run(after) == by_run(before)
    assert path.with_name("result.damaged.json").read_text() == half
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"seed-0/result.json is cut short or damaged"):
        finished(path.parent)
    with pytest.warns(UserWarning, match=r"left out of the study's results: .*seed-0/result.json"):
        assert len(collect(study).runs) == 3


def test_a_failure_is_written_over_no_finished_result_and_into_no_other_run(study: Path) -> None:
    run = run_folder(study, "dense/raw", 0)
    before = (run / "result.json").read_text()
    for seed in (0, 1):
        config = recipe("laptop", "dense/raw", {**OVER, "training": {**OVER["training"], "seed": seed}})
        assert failed(config, run, RuntimeError("x"), 0.0).status == "failed"
        assert (run / "result.json").read_text() == before


def test_conditions_with_like_names_have_a_folder_each(runs: Path, tmp_path: Path) -> None:
    own = {"model": {**OVER["model"], "readout": {"kind": "raw"}}, "objective": {"placement": "dense"}}
    over = {**OVER, **own}
    results = run_study("laptop", ["a_b", "a/b"], [0], tmp_path / "study", over, quiet=True)
    assert {run.condition: run.status for run in results.runs} == {"a_b": "completed", "a/b": "completed"}
    for name in ("..", "."):
        with pytest.raises(ValueError, match="no folder can be called so"):
            run_study("laptop", [name], [0], tmp_path / "x", over, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study"]
    # A folder as an earlier version named it is gone on with.
    old = tmp_path / "old"
    first = run_study("laptop", ["a_b"], [0], old, over, quiet=True)
    condition_folder(old, "a_b").rename(old / "a_b")
    (old / "a_b" / "seed-0" / "result.json").unlink()
    assert by_run(run_study("laptop", ["a_b"], [0], old, over, quiet=True)) == by_run(first)
    assert sorted(path.name for path in old.iterdir() if path.is_dir()) == ["a_b"]


def test_what_a_choice_has_no_effect_on_is_said_when_it_is_made_alone(
    study: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Reading a run again, once for each of a hundred, says nothing more."""
    path = study / "dense_raw" / "seed-0" / CONFIG
    values = yaml.safe_load(path.read_text())
    values["model"] |= {"loops": 1, "carry": ["rmsnorm"]}
    path.write_text(yaml.safe_dump(values))
    with pytest.warns(UserWarning, match="has no effect with 1 loop"):
        parse_config(values, "here")
    recwarn.clear()
    assert written_config(path)["model"]["loops"] == 1
    assert [str(warning.message) for warning in recwarn] == []


def test_an_evaluation_of_another_seed_is_not_gone_on_with(study: Path) -> None:
    run, other = (run_folder(study, "dense/raw", seed) for seed in (0, 1))
    measure_depth(other, windows=4)
    shutil.copy(other / "evaluation.json", run / "evaluation.json")
    with pytest.warns(UserWarning, match=r"was of another text or another model \(seed 1\)"):
        evaluation = measure_exits(run, ExitSettings(rules=("max-probability",), pairs=0), windows=4)
    assert evaluation.depth == ()


def test_a_diverged_run_is_named_and_the_others_are_judged(
    study: Path, call: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(study, "dense/raw", 0)
    (checkpoint,) = (run / "checkpoints").iterdir()
    weights, state = checkpoint / "model.safetensors", checkpoint / "state.json"
    tensors = read_tensors(weights)
    tensors["token_embedding.weight"][:] = float("nan")
    write_tensors(tensors, weights)
    stood = {
        key: value for key, value in json.loads(state.read_text()).items() if not key.startswith("sha256")
    }
    state.unlink()
    state.write_text(table_of(checkpoint, stood))
    audits = audit_paths([study], sequences=1)
    assert next(audits).name == "dense/rmsnorm"
    with pytest.raises(
        ValueError, match=f"{run}: the weights are not all finite: token_embedding.weight has"
    ):
        next(audits)
    options = ["--windows", 4, "--pairs", 0, "--rules", "max-probability"]
    assert call("evaluate", "exits", study, *options) == 2
    said = capsys.readouterr()
    assert "dense/rmsnorm" in said.out
    assert f"loopscope: {run}: " in said.err
    assert "Traceback" not in said.err
    kept = [(run.parent / f"seed-{seed}" / "evaluation.json").exists() for seed in (0, 1)]
    assert kept == [False, True]


def test_a_study_goes_on_where_records_cannot_be_written(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full while two of three runs are tried, and has room again in the end."""
    tried: list[str] = []
    real = study_module.execute

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    def execute_full(config: Any, run: Path, **named: Any) -> Any:
        tried.append(config.condition)
        if len(tried) < 3:
            monkeypatch.setattr(study_module, "failed", full)
            full()
        monkeypatch.undo()
        return real(config, run, **named)

    monkeypatch.setattr(study_module, "execute", execute_full)
    names = ["terminal/raw", "terminal/rmsnorm", "dense/alpha"]
    results = run_study("laptop", names, [0], study, OVER)
    assert tried == names
    assert [run.condition for run in results.runs if run.condition in names] == ["dense/alpha"]
    assert "no record of it could be kept: the disk is full" in capsys.readouterr().err.replace("\n", "")


def test_a_study_without_a_single_completed_run_ends_with_1(
    study: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the command line reports it: one that completed is enough for 0."""
    from tests.fixtures import TINY

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(study_module, "execute", failing)
    new = study.parent / "new"
    assert call("study", "--out", new, "--conditions", "dense/raw", *TINY, "--quiet") == 1
    assert json.loads((new / "results.json").read_text())["runs"][0]["status"] == "failed"
