"""A task from the command line to a table: train, resume, evaluate every depth, compare, audit, report."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

import loopscope
from loopscope import cli
from loopscope.config.nested import read_yaml
from loopscope.config.recipes import recipe
from loopscope.config.run_config import parse_config
from loopscope.jobs.opened import open_model
from loopscope.jobs.text import held_out
from loopscope.jobs.train import execute
from loopscope.plan.flops import training_flops
from loopscope.results import load_comparison, load_evaluation, load_results

CHAIN = [
    "--data.corpus=task",
    "--data.task.name=modular-addition",
    "--data.task.length=6",
    "--data.task.modulus=3",
    "--data.task.answers=all",
    "--data.task.validation=64",
    "--model.dim=32",
    "--model.heads=2",
    "--model.layers=1",
    "--model.loops=3",
    "--model.vocabulary=4",
    "--model.sequence=7",
    "--training.batch=32",
    "--model.initialisation=scaled",
    "--training.learning-rate=0.01",
    "--training.schedule=cosine",
    "--training.warmup=20",
    "--training.threads=1",
    "--training.precision=fp32",
    "--training.monitor-every=0",
    "--training.log-every=50",
    "--training.evaluate-every=1000",
    "--training.checkpoint-every=1000",
    "--training.steps=30",
    "--quiet",
]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["loopscope", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    cli.main()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("task") / "study"
    with pytest.MonkeyPatch.context() as patch:
        flags = [*CHAIN, "--conditions", "terminal/rmsnorm,unlooped", "--seeds", "1"]
        call(patch, "study", "--out", str(out), *flags)
    return out


def test_exact_match_is_the_share_of_right_answers_at_every_loop(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "evaluate", "depth", str(study), "--threads", "1")
    shown = capsys.readouterr().out
    assert "exact match" in shown
    assert "held-out problems of modular-addition (length 6, modulus 3)" in shown
    assert "nan" not in shown
    assert "bits per answer" in shown
    evaluation = load_evaluation(study / "terminal_rmsnorm" / "seed-0")
    assert evaluation is not None
    held = held_out(open_model(study / "terminal_rmsnorm" / "seed-0"), None, None, None)
    model = loopscope.load(study / "terminal_rmsnorm" / "seed-0").eval()
    with torch.no_grad():
        said = [state.logits()[:, -1].argmax(dim=-1) for state in loopscope.unroll(model, held.input_ids, 6)]
    right = [float((answer == held.labels[:, -1]).double().mean()) for answer in said]
    assert [entry.exact_match for entry in evaluation.depth[0].per_loop] == pytest.approx(right)
    assert math.isnan(evaluation.bytes_per_token)
    assert (evaluation.windows, evaluation.sequence) == (64, 7)
    config = parse_config(read_yaml(study / "terminal_rmsnorm" / "seed-0" / "config.yaml"), "run")
    assert evaluation.training_flops_per_token == training_flops(config.model, 7, loops=3, exits=1)


def test_conditions_are_compared_in_bits_per_answer(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "evaluate", "compare", str(study), "--threads", "1")
    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert "bits per answer" in shown
    assert "bits per byte" not in shown
    compared = load_comparison(study)
    assert compared is not None
    assert compared.settings["unit"] == "bits per answer"
    looped, alone = compared.matched
    assert (looped.role, alone.role) == ("looped", "same parameters")
    assert all(math.isfinite(row.bits_per_byte.mean) for row in (looped, alone))


@pytest.mark.usefixtures("blank_figures")
def test_records_have_no_bits_per_byte(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_results(study).runs[0]
    assert all(math.isnan(entry.bits_per_byte) and entry.perplexity >= 1 for entry in run.per_loop)
    text = json.loads((study / "results.json").read_text())
    assert text["runs"][0]["per_loop"][0]["bits_per_byte"] is None
    call(monkeypatch, "report", str(study))
    page = (study / "report.html").read_text()
    assert ">nan<" not in page.lower()
    again = ["--conditions", "terminal/rmsnorm,unlooped", "--seeds", "1", *CHAIN[:-1]]
    call(monkeypatch, "study", "--out", str(study), *again)  # all is done: it prints what there is
    assert "nan" not in capsys.readouterr().out


def test_a_run_is_audited_and_decoded_in_its_own_symbols(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = study / "terminal_rmsnorm" / "seed-0"
    call(monkeypatch, "audit", str(run))
    assert "held-out problems of modular-addition" in capsys.readouterr().out
    subject = open_model(run)
    assert subject.tokenizer is not None
    held = held_out(subject, None, None, None)
    assert len(held) == 64
    assert math.isnan(held.bytes_per_token)
    text = subject.tokenizer.decode(held.input_ids[0].tolist())
    *numbers, sign = text.split()
    assert sign == "="
    assert int(held.labels[0, -1]) == sum(map(int, numbers)) % 3
    ids = torch.tensor(subject.tokenizer.encode("1 1 1 1 1 1 =").astype("int64"))[None]
    assert loopscope.load(run)(ids).shape == (1, 7, 4)


def test_a_resumed_run_repeats_the_uninterrupted_one(tmp_path: Path) -> None:
    over = {
        "model": {"dim": 16, "heads": 2, "layers": 1, "loops": 2, "vocabulary": 4, "sequence": 16},
        "data": {"corpus": "task", "task": {"hops": 1, "validation": 16}},
        "training": {"steps": 6, "batch": 4, "precision": "fp32", "checkpoint_every": 3, "threads": 1},
    }
    config = recipe("laptop", "dense/raw", over)
    whole = execute(config, tmp_path / "whole", quiet=True)
    execute(config, tmp_path / "cut", quiet=True)
    newest = max((tmp_path / "cut" / "checkpoints").glob("step-*"))
    for path in [*newest.iterdir()]:
        path.unlink()
    newest.rmdir()
    (tmp_path / "cut" / "result.json").unlink()
    again = execute(config, tmp_path / "cut", resume=True, quiet=True)
    assert [entry.loss for entry in again.per_loop] == [entry.loss for entry in whole.per_loop]
    one, other = (loopscope.load(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
