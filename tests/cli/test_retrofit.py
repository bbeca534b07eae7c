"""`loopscope retrofit`: what it says, what it writes, and that training, generation and exits go on from there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import loopscope
from loopscope.config.recipes import recipe
from loopscope.jobs import RetrofitPlan, RetrofitSettings, retrofit_model
from loopscope.results import run_from_json
from loopscope.results.tensor_file import read_tensors
from tests.fixtures import run_command
from tests.interop.huggingface.sources import save_source

Run = Callable[..., int]
SHORT = ("--training.batch", 4, "--training.learning-rate", 0.01, "--training.checkpoint-every", 2)

NO_TOKENIZER = "has no tokenizer.json, and no other tokenizer that can be read, and its 300 ids are too few"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder per family, and a text."""
    root = tmp_path_factory.mktemp("retrofit")
    for family in ("llama", "qwen3", "gpt2"):
        save_source(root / family, family)
    (root / "text.txt").write_text("The recurrence adds to the state in every loop.\n" * 150)
    return root


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, sources: Path, tmp_path: Path) -> Run:
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(sources)
    return lambda *words: run_command(monkeypatch, *words)


@pytest.mark.parametrize(
    ("words", "verdict", "why"),
    [
        ((), "BLIND", "readout rmsnorm is scale-invariant"),
        (("--objective", "terminal"), "BLIND", "only loop 4 is read"),
        (("--carry", "rmsnorm"), "REMOVED", "divides by the state's own size"),
        (("--readout", "raw"), "VISIBLE", "the cross-entropy through its readout sees it here"),
        (("--objective", "dense+norm_penalty=0.01"), "VISIBLE", "the norm penalty sees it here"),
    ],
)
def test_the_recipe_is_judged_at_once(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    verdict: str,
    why: str,
) -> None:
    """Read from the config and measured on the folder: the same word."""
    out = tmp_path / "looped"
    assert run("retrofit", "llama", "--prelude", 1, "--coda", 0, "--out", out, *words) == 0
    printed = capsys.readouterr().out
    assert printed.count(f" {verdict} ") == 2
    assert why in " ".join(printed.split())
    assert f"next: loopscope train --config {out / 'train.yaml'}" in printed
    same = "--readout" not in words
    assert ("bit for bit" in printed.split("layers changes them")[0]) == same


def test_it_says_which_layers_go_where(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--prelude", 1, "--loop", 2, "--coda", 2, "--loops", 3, "--injection", "concat", "--no-measure")
    assert run("retrofit", "qwen3", *words, "--out", tmp_path / "looped") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "prelude 0 once loop 2-3 3 times coda 4-5 once, at every exit that is read dropped 1 never" in printed
    )
    assert "those of the source with the kept layers alone, bit for bit" in printed
    assert "New, and not trained yet: injection.mix.weight." in printed
    record = json.loads((tmp_path / "looped" / "retrofit.json").read_text())
    assert (record["prelude"], record["loop"], record["coda"], record["dropped"]) == (
        [0],
        [2, 3],
        [4, 5],
        [1],
    )
    assert (record["static"]["verdict"], record["exact"], record["judged"]) == ("visible", True, None)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_trains_on(run: Run, tmp_path: Path, family: str) -> None:
    """In the source's own tokens, from its own weights: the loss falls at once."""
    begun(run, tmp_path, family)
    assert train(run, tmp_path, "whole", "--training.steps", 6, "--training.log-every", 1) == 0
    losses = [
        point.loss for point in run_from_json((tmp_path / "whole" / "result.json").read_text()).training
    ]
    assert losses[-1] < losses[0] - 0.5
    settings = yaml.safe_load((tmp_path / "whole" / "config.yaml").read_text())
    assert settings["training"]["weights"] == str(tmp_path / "looped")
    assert settings["data"]["tokenizer"]["path"] == str(tmp_path / "looped" / "tokenizer.json")


def test_training_resumes_bit_for_bit(run: Run, tmp_path: Path) -> None:
    begun(run, tmp_path, "qwen3")
    assert train(run, tmp_path, "whole", "--training.steps", 4) == 0
    assert train(run, tmp_path, "parts", "--training.steps", 2) == 0
    assert run("train", "--out", tmp_path / "parts", "--training.steps", 4, "--resume", "--quiet") == 0
    last = Path("checkpoints", "step-00000004", "model.safetensors")
    one, other = read_tensors(tmp_path / "whole" / last), read_tensors(tmp_path / "parts" / last)
    assert all(torch.equal(one[name], other[name]) for name in one)


def begun(run: Run, folder: Path, family: str) -> None:
    words = ("--prelude", 1, "--coda", 1, "--loops", 2, "--no-measure", "--sequence", 48)
    assert run("retrofit", family, *words, "--out", folder / "looped") == 0


def train(run: Run, folder: Path, name: str, *words: object) -> int:
    begin = ("train", "--config", folder / "looped" / "train.yaml", "--data.files", "text.txt", "--quiet")
    return run(*begin, "--out", folder / name, *SHORT, *words)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_the_folder_is_a_model_like_any_other(sources: Path, tmp_path: Path, family: str) -> None:
    """Loaded as it was saved; text with a cache is text without, at every depth."""
    settings = RetrofitSettings(RetrofitPlan(1, None, 1), {"loops": 3}, measure=False)
    record = retrofit_model(sources / family, tmp_path / "looped", settings)
    assert (record.exact, record.own_difference, record.judged) == (True, 0, None)
    model = loopscope.load(tmp_path / "looped")
    stored = read_tensors(tmp_path / "looped" / "model.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in model.state_dict().items())
    for loops in (1, 3, 5):
        cached, plain = (
            loopscope.generate(model, torch.tensor([[5, 6, 7]]), new_tokens=8, loops=loops, cache=cache)
            for cache in (True, False)
        )
        assert cached.tokens == plain.tokens
    config = yaml.safe_load((tmp_path / "looped" / "train.yaml").read_text())
    run = recipe(config.pop("size"), config.pop("condition"), config)
    assert run.model == model.config  # type: ignore[comparison-overlap]


def test_bad_input_writes_nothing(
    run: Run, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full, out, bare = tmp_path / "full", tmp_path / "looped", tmp_path / "bare"
    for family in ("llama", "gpt2", "qwen3"):
        shutil.copytree(sources / family, bare / family, ignore=shutil.ignore_patterns("tokenizer.json"))
    full.mkdir()
    (full / "note.txt").write_text("mine")
    (tmp_path / "more.yaml").write_text("data: {corpus: stdlib}\n")
    (tmp_path / "model.yaml").write_text("model: {dim: 64}\n")
    for words, message in (
        (("llama", "--out", full), "exists and is not empty; name a new folder"),
        (("llama", "--out", "llama/looped"), "llama/looped is inside llama, which stays as it is"),
        *(((bare / family, "--out", out), NO_TOKENIZER) for family in ("llama", "gpt2", "qwen3")),
        (("llama", "--out", out, "--loops", 0), "loops is 0"),
        (
            ("llama", "--out", out, "--loop", 5),
            "prelude 2 + loop 5 + coda 2 is 9 layers, and the source has 6",
        ),
        (("llama", "--out", out, "--readout", "rmnsorm"), "rmnsorm"),
        (("llama", "--out", out, "--objective", "dens"), "dens"),
        (("text.txt", "--out", out), "has no config.json"),
        (("llama", "--out", out, "--config", tmp_path / "more.yaml"), "has 'data'; a retrofit takes"),
        (("llama", "--out", out, "--config", tmp_path / "model.yaml"), "model.dim is the source's own"),
    ):
        assert run("retrofit", *words) == 2, words
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not out.exists()
    assert not (sources / "llama" / "looped").exists()
    assert [path.name for path in full.iterdir()] == ["note.txt"]


def test_a_yaml_file_says_more(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "more.yaml").write_text(
        "model: {readout: {kind: alpha, alpha: 0.25}, dropout: 0.1}\n"
        "objective: {placement: exit-weighted}\ntraining: {depth: {distribution: uniform}}\n"
    )
    words = ("--config", tmp_path / "more.yaml", "--sequence", 32, "--no-measure", "--json")
    assert run("retrofit", "gpt2", "--out", tmp_path / "looped", *words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["exact"] and record["own_difference"] > 0  # noqa: PT018
    config = yaml.safe_load((tmp_path / "looped" / "train.yaml").read_text())
    model = config["model"]
    assert (model["readout"]["alpha"], model["dropout"], model["sequence"], model["exit_gate"]) == (
        0.25,
        0.1,
        32,
        True,
    )
    assert config["training"]["depth"] == {"distribution": "uniform"}
