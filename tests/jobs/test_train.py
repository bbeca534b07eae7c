"""One run on the embedded corpus, tiny: its folder, resumption, refusals. Studies: `test_study`."""

from pathlib import Path

import pytest
import torch
import yaml

import loopscope
from loopscope.config.recipes import recipe
from loopscope.jobs import open_model
from loopscope.jobs.resumption import resolve
from loopscope.jobs.train import execute
from loopscope.results import load_results
from tests.jobs.fixtures import TINY, cache, tiny  # noqa: F401 (a fixture)


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


def test_what_auto_stands_for_is_written_down() -> None:
    training = resolve(recipe()).training
    assert training.device in ("cpu", "cuda", "mps")
    assert training.precision in ("fp32", "bf16")
    assert training.threads >= 1


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
