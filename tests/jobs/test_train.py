"""One run and one study on the embedded corpus, tiny: folders, resumption, refusals, failures as data."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import loopscope
from loopscope.config.recipes import recipe
from loopscope.jobs import open_model
from loopscope.jobs import study as study_module
from loopscope.jobs.resumption import resolve
from loopscope.jobs.study import plan, run_study
from loopscope.jobs.train import execute, finished
from loopscope.results import load_results

TINY: dict[str, Any] = {
    "model": {"dim": 16, "heads": 2, "layers": 1, "loops": 2, "vocabulary": 64, "sequence": 16},
    "data": {
        "max_bytes": 60_000,
        "max_validation_bytes": 4_000,
        "tokenizer": {"kind": "word", "vocabulary": 64},
    },
    "training": {
        "steps": 4,
        "batch": 4,
        "log_every": 1,
        "evaluate_every": 2,
        "evaluate_windows": 8,
        "checkpoint_every": 2,
        "precision": "fp32",
        "threads": 1,
    },
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One token cache for all tests here."""
    patch = pytest.MonkeyPatch()
    patch.setenv("LOOPSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def tiny(condition: str = "dense/rmsnorm", **sections: dict[str, Any]) -> Any:
    over = {name: {**values, **sections.get(name, {})} for name, values in TINY.items()}
    return recipe("laptop", condition, over)


def test_a_run_leaves_a_complete_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = execute(tiny(), str(run), quiet=True)  # paths may be str everywhere
    assert open_model(str(run)).path == open_model(run).path == run
    assert result.status == "completed"
    assert sorted(path.name for path in run.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "result.json",
    ]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000004"]
    assert load_results(run).runs == (result,)
    assert [point.step for point in result.training] == [1, 2, 3, 4]
    assert [point.step for point in result.evaluations] == [2, 4]
    assert result.evaluations[-1].per_loop == result.per_loop
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["dim"] == 16
    model = loopscope.load(run)
    states = list(loopscope.unroll(model, torch.arange(8)[None], loops=5))
    assert states[-1].logits().shape == (1, 8, 64)


def test_a_folder_belongs_to_one_config(tmp_path: Path) -> None:
    run = tmp_path / "run"
    execute(tiny(), run, quiet=True)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="already holds this run; add --resume"):
        execute(tiny(), run, quiet=True)
    with pytest.raises(ValueError, match=r"belongs to another config \(model.dim: 16 there, 32 now\)"):
        execute(tiny(model={"dim": 32}), run, resume=True, quiet=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    with pytest.raises(ValueError, match="nothing to resume"):
        execute(tiny(), tmp_path / "none", resume=True, quiet=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("do not touch")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        execute(tiny(), tmp_path / "other", quiet=True)
    with pytest.raises(ValueError, match="is a file; name a folder"):
        execute(tiny(), run / "config.yaml", quiet=True)


def test_a_study_from_before_the_monitor_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "study"
    first = study(out, conditions=["dense/raw"], seeds=[0])
    run = out / "dense_raw" / "seed-0"
    old = yaml.safe_load((run / "config.yaml").read_text())
    assert old["training"].pop("monitor_every") == 20
    (run / "config.yaml").write_text(yaml.safe_dump(old))
    assert study(out, conditions=["dense/raw"], seeds=[0]).runs == first.runs  # done: skipped
    (run / "result.json").unlink()
    assert study(out, conditions=["dense/raw"], seeds=[0]).runs[0].per_loop == first.runs[0].per_loop
    assert yaml.safe_load((run / "config.yaml").read_text())["training"]["monitor_every"] == 20


def test_a_folder_from_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    """Settings that came later have their defaults in it; any other value of one is another config."""
    run = tmp_path / "run"
    execute(tiny(), run, quiet=True)
    values = yaml.safe_load((run / "config.yaml").read_text())
    for name in ("prelude", "block", "attention", "injection"):
        del values["model"][name]
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert execute(tiny(), run, resume=True, quiet=True).status == "completed"
    with pytest.raises(ValueError, match=r"model.prelude: 0 there, 1 now"):
        execute(tiny(model={"prelude": 1}), run, resume=True, quiet=True)


def test_bad_data_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a few words only\n" * 3)
    (tmp_path / "empty.txt").write_text("")
    cases = [
        ({"files": (str(tmp_path / "short.txt"),)}, "shorter than one window of 16"),
        ({"files": (str(tmp_path / "empty.txt"),)}, "no training text"),
        ({"files": (str(tmp_path / "missing.txt"),)}, "is not a file and matches none"),
    ]
    for data, message in cases:
        with pytest.raises(ValueError, match=message):
            execute(tiny(data={"corpus": "files", **data}), tmp_path / "run", quiet=True)
        assert not (tmp_path / "run").exists()


def test_a_tokenizer_with_too_many_entries_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"word{number % 500}" for number in range(4000)))
    config = tiny(
        data={"corpus": "files", "files": (str(text),), "tokenizer": {"kind": "bpe", "vocabulary": 300}},
        model={"vocabulary": 300},
    )
    smaller = config.model_copy(update={"model": config.model.model_copy(update={"vocabulary": 200})})
    with pytest.raises(ValueError, match=r"tokenizer has \d+ entries, model.vocabulary is 200"):
        execute(smaller, tmp_path / "run", quiet=True)


def test_a_damaged_checkpoint_is_named_and_nothing_else_is_lost(tmp_path: Path) -> None:
    run = tmp_path / "run"
    execute(tiny(), run, quiet=True)
    weights = next((run / "checkpoints").iterdir()) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match="model.safetensors is cut short"):
        execute(tiny(), run, resume=True, quiet=True)
    with pytest.raises(ValueError, match="model.safetensors is cut short or was changed"):
        loopscope.load(run)
    assert (run / "metrics.jsonl").stat().st_size > 0


def study(out: Path, **changes: Any) -> Any:
    settings = {"size": "laptop", "conditions": ["dense/rmsnorm", "dense/raw"], "seeds": [0, 1], **changes}
    over = settings.pop("over", TINY)
    return run_study(out=out, over=over, quiet=True, **settings)


def test_a_study_skips_what_is_done_grows_and_refuses_another_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    first = study(out)
    assert [(r.condition, r.seed, r.status) for r in first.runs] == [
        ("dense/rmsnorm", 0, "completed"),
        ("dense/rmsnorm", 1, "completed"),
        ("dense/raw", 0, "completed"),
        ("dense/raw", 1, "completed"),
    ]
    assert load_results(out) == first
    trained: list[str] = []
    real = study_module.execute

    def counted(config: Any, *rest: Any, **named: Any) -> Any:
        trained.append(f"{config.condition} {config.training.seed}")
        return real(config, *rest, **named)

    monkeypatch.setattr(study_module, "execute", counted)
    assert [run.per_loop for run in study(out).runs] == [run.per_loop for run in first.runs]
    assert trained == []
    grown = study(out, conditions=["dense/raw", "terminal/rmsnorm"], seeds=[1, 2])
    assert trained == ["terminal/rmsnorm 1", "dense/raw 2", "terminal/rmsnorm 2"]
    assert len(grown.runs) == 7
    with pytest.raises(
        ValueError, match=r"belongs to another config \(over.training.steps: 4 there, 3 now\)"
    ):
        study(out, over={**TINY, "training": {**TINY["training"], "steps": 3}})
    assert load_results(out) == grown


def test_a_run_that_diverges_or_fails_is_a_result_and_the_grid_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopscope.model.readouts.raw import RawReadout

    real = study_module.execute

    def failing(config: Any, *rest: Any, **named: Any) -> Any:
        if config.condition == "terminal/rmsnorm":
            raise RuntimeError("out of memory, say")
        return real(config, *rest, **named)

    monkeypatch.setattr(study_module, "execute", failing)
    monkeypatch.setattr(RawReadout, "forward", lambda self, hidden, loop, loops: hidden * float("nan"))
    names = ["dense/raw", "terminal/rmsnorm", "dense/rmsnorm"]
    results = study(tmp_path / "study", conditions=names, seeds=[0])
    by_name = {run.condition: run for run in results.runs}
    assert {name: run.status for name, run in by_name.items()} == {
        "dense/raw": "diverged",
        "terminal/rmsnorm": "failed",
        "dense/rmsnorm": "completed",
    }
    assert by_name["dense/raw"].failure.step == 1
    assert by_name["dense/raw"].failure.loop == 1
    assert "RuntimeError: out of memory, say" in by_name["terminal/rmsnorm"].failure.message
    json.loads((tmp_path / "study" / "results.json").read_text(), parse_constant=pytest.fail)
    assert finished(tmp_path / "study" / "dense_raw" / "seed-0") is not None


def test_a_study_killed_at_any_file_goes_on(tmp_path: Path) -> None:
    """States that a kill can leave behind: no result yet, no checkpoint yet, a config half written."""
    out = tmp_path / "study"
    first = study(out, seeds=[0])
    run = out / "dense_raw" / "seed-0"
    for damage in ("result.json", "checkpoints", "metrics.jsonl"):
        (run / "result.json").unlink(missing_ok=True)
        shutil.rmtree(run / damage) if (run / damage).is_dir() else (run / damage).unlink(missing_ok=True)
        again = study(out, seeds=[0])
        assert [r.per_loop for r in again.runs] == [r.per_loop for r in first.runs]
    shutil.rmtree(run)
    run.mkdir()
    (run / ".config.yaml.writing").write_text("mod")
    assert study(out, seeds=[0]).runs[1].per_loop == first.runs[1].per_loop


def test_a_plan_is_checked_before_anything_runs(tmp_path: Path) -> None:
    assert [
        (c.condition, c.training.seed) for c in plan("laptop", ["dense/raw", "terminal/raw"], [0, 1])
    ] == [
        ("dense/raw", 0),
        ("terminal/raw", 0),
        ("dense/raw", 1),
        ("terminal/raw", 1),
    ]
    for conditions, seeds, message in (
        ([], [0], "name at least one"),
        (["dense/raw"] * 2, [0], "each once"),
        (["dense/raw"], [], "name at least one"),
        (["dense/rwa"], [0], "did you mean 'dense/raw'"),
    ):
        with pytest.raises(ValueError, match=message):
            run_study("laptop", conditions, seeds, tmp_path / "x", quiet=True)
    assert not (tmp_path / "x").exists()


def test_what_auto_stands_for_is_written_down() -> None:
    training = resolve(recipe()).training
    assert training.device in ("cpu", "cuda", "mps")
    assert training.precision in ("fp32", "bf16")
    assert training.threads >= 1


def test_a_failed_run_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = study_module.execute

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the machine was busy")

    monkeypatch.setattr(study_module, "execute", failing)
    assert study(tmp_path / "study", conditions=["dense/raw"], seeds=[0]).runs[0].status == "failed"
    monkeypatch.setattr(study_module, "execute", real)
    assert study(tmp_path / "study", conditions=["dense/raw"], seeds=[0]).runs[0].status == "completed"


def test_the_old_name_of_open_model_says_the_new_one() -> None:
    with pytest.warns(FutureWarning, match="open_subject is now loopscope.jobs.open_model"):
        from loopscope.jobs.opened import open_subject
    assert open_subject is open_model


def test_text_that_a_tokenizer_loses_is_in_the_result_and_said(tmp_path: Path) -> None:
    """A vocabulary of 60 words of Python's sources: most words are unknown."""
    with pytest.warns(
        UserWarning, match=r"% of the tokens of the validation text are unknown .*bits per byte are too low"
    ):
        result = execute(tiny(training={"steps": 1}), tmp_path / "words", quiet=True)
    assert 0.05 < result.unknown_share < result.unread_share < 0.9
    assert load_results(tmp_path / "words").runs[0].unknown_share == result.unknown_share
    data = {**TINY["data"], "tokenizer": {"kind": "bytes"}}
    config = recipe(
        "laptop", "dense/raw", {**TINY, "model": {**TINY["model"], "vocabulary": 256}, "data": data}
    )
    whole = execute(config, tmp_path / "bytes", quiet=True)
    assert (whole.unknown_share, whole.unread_share) == (0.0, 0.0)
