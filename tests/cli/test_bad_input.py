"""Bad input in one table: exit status 2, one sentence on standard error, no traceback, nothing written."""

import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loopscope.interop.model_folder import save_model
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from tests.fixtures import run_command

FILES = {
    "deep.yaml": "a: " + "[" * 500,
    "laughs.yaml": "\n".join(
        ["a0: &a0 ha", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]
    ),
    "twice.yaml": "model: {dim: 16}\nmodel: {dim: 32}\n",
    "list.yaml": "- 1\n",
    "broken.yaml": "model: {dim: [16\n",
    "tag.yaml": "model: !!python/object/apply:os.getcwd []\n",
    "size.yaml": "size: [laptop]\n",
    "condition.yaml": "condition: {dense: raw}\n",
    "section.yaml": "training: fast\n",
    "objective.yaml": "objective: 3\n",
    "number.yaml": "training: {steps: many}\n",
    "keys.yaml": "model: {1: 2}\n",
    "wd.yaml": "training: {wd: 0.1}\n",
    "none.txt": "",
    "latin.txt": b"caf\xe9",
    "empty.pt": b"",
    "text.pt": "no checkpoint",
    "broken.json": "{",
    "config.json": '{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 32}',
}
TRAIN = ["train", "--out", "x"]
OWN = ["--data.corpus", "files", "--data.files"]
GROWS = "[{placement: terminal, until: 0.5}, {placement: dense}]"
GENERATE = ["generate", "model", "--prompt", "a"]

CASES: list[tuple[list[str], str]] = [
    # Commands and words
    (["trian"], "did you mean 'train'? There are: train,"),
    (["zzz"], "command 'zzz' is not known; there are: train,"),
    (["evaluate", "dept"], "did you mean 'depth'?"),
    (["train"], "--out is missing: Folder of the run"),
    (["train", "--out"], "--out needs a value: --out PATH"),
    ([*TRAIN, "extra"], "'extra' is one word too many"),
    (["report"], "SOURCE is missing"),
    (["import-published", "text.pt"], "DIRECTORY is missing"),
    ([*TRAIN, "--training.lr", "1"], "did you mean --training.learning-rate?"),
    ([*TRAIN, "--epochs", "1"], "did you mean --training.epochs?"),
    ([*TRAIN, "-o", "y"], "unknown option -o; did you mean --out?"),
    ([*TRAIN, "--quiet", "--quiet"], "--quiet is given twice"),
    ([*TRAIN, "--condition", "dense/raw", "--condition", "dense/rmsnorm"], "--condition is given twice"),
    (["study", "--out", "x", "--seeds", "1", "--seeds", "2"], "--seeds is given twice"),
    # Values of another type
    ([*TRAIN, "--model.dim", "wide"], "--model.dim is 'wide'; it must be a whole number"),
    ([*TRAIN, "--training.steps", "1e3"], "--training.steps is '1e3'; it must be a whole number"),
    ([*TRAIN, "--training.learning-rate", "fast"], "--training.learning-rate is 'fast'; it must be a number"),
    ([*TRAIN, "--training.schedule", "cosin"], "did you mean cosine?"),
    ([*TRAIN, "--model.readout.settings", "{a: ["], "is not YAML"),
    ([*TRAIN, "--training.seed", "None"], "--training.seed is 'None'; it must be a whole number"),
    # Numbers out of bounds
    ([*TRAIN, "--model.loops", "0"], "model.loops is 0"),
    ([*TRAIN, "--model.dim", "9007199254740993", "--model.heads", "2"], "model.dim is 9007199254740993"),
    ([*TRAIN, "--training.threads", "100000"], "training.threads is 100000"),
    ([*TRAIN, "--training.seed", str(2**64)], "training.seed is 18446744073709551616"),
    ([*TRAIN, "--training.betas", "0.9", "1"], "betas are [0.9, 1.0]"),
    ([*TRAIN, "--training.learning-rate", "inf"], "training.learning_rate is inf"),
    (
        [
            *TRAIN,
            "--condition=mine",
            "--model.readout.kind=raw",
            "--objective.placement=dense",
            "--objective.norm-penalty.weight=inf",
        ],
        "objective.norm_penalty.weight is inf",
    ),
    ([*TRAIN, "--training.epochs", "nan"], "training.epochs is nan"),
    (
        ["study", "--out", "x", "--seeds", "10000000000"],
        "seeds is '10000000000'; give how many (3; at most 10,000)",
    ),
    (["study", "--out", "x", "--seeds", "-1"], "seeds is '-1'"),
    (["study", "--out", "x", "--seeds", "1,x"], "seeds is '1,x'"),
    # More than the machine has
    ([*TRAIN, "--model.dim", "65536", "--model.layers", "1000"], "at the very least"),
    (
        ["study", "--out", "x", "--training.batch", "1048576", "--model.sequence", "1048576"],
        "at the very least",
    ),
    # Names
    ([*TRAIN, "--condition", "dense/rwa"], "did you mean 'dense/raw'?"),
    (
        [*TRAIN, "--condition", "mine", "--model.readout.kind", "raw"],
        "objective.placement or objective.schedule)",
    ),
    (
        [*TRAIN, "--condition", "mine", "--objective.schedule", GROWS],
        "condition 'mine' is not known; there are: ",
    ),
    (
        [*TRAIN, "--condition", "mine", "--objective.schedule", "[{"],
        "schedule ([{name: value}, {name: value}]) is not",
    ),
    (
        [*TRAIN, "--condition", "mine", "--objective.schedule", GROWS.replace("terminal", "termnal")],
        "objective: schedule.0: unknown placement 'termnal'; did you mean terminal?",
    ),
    ([*TRAIN, "--size", "labtop"], "did you mean 'laptop'?"),
    ([*TRAIN, "--condition", "q" * 5000], "is not known"),
    ([*TRAIN, "--training.device", "warp"], "training.device is 'warp'"),
    (["study", "--out", "x", "--conditions", "dense/raw,dense/raw"], "each once"),
    (["study", "--out", "x", "--conditions", ","], "name at least one"),
    (["recipes", "--family", "hugin"], "did you mean 'huginn'?"),
    # What contradicts itself
    ([*TRAIN, "--log", "none,tensorboard"], "none,tensorboard asks for none and for others; leave out"),
    (
        [*TRAIN, "--log", "wandb,tensorboard,wandb"],
        "wandb,tensorboard,wandb names wandb twice; name each once",
    ),
    ([*TRAIN, "--model.heads", "5"], "heads 5 does not divide dim 128"),
    ([*TRAIN, "--model.readout.kind", "raw"], "condition 'dense/rmsnorm' is contradicted"),
    ([*TRAIN, "--training.accumulation", "3"], "accumulation 3 does not divide batch 16"),
    ([*TRAIN, "--data.corpus", "files"], "files is empty"),
    ([*TRAIN, *OWN, "nowhere/*.txt"], "is not a file and matches none"),
    ([*TRAIN, *OWN, "pipe"], "'pipe' is not a file"),
    ([*TRAIN, "--data.tokenizer.kind=file", "--data.tokenizer.path=broken.json"], "broken.json"),
    # Config files
    (
        [*TRAIN, "--config", "./config.json"],
        "config.json is the config of a transformers model, not of a run; loopscope audit . opens it",
    ),
    *(
        ([*TRAIN, "--config", f"{name}.yaml"], message)
        for name, message in {
            "gone": "gone.yaml does not exist",
            "deep": "deep.yaml is not YAML that a config can be read from: nested more than 32 deep",
            "laughs": "laughs.yaml is not YAML that a config can be read from: more than 20,000 values",
            "twice": "key 'model' is given twice in line 2",
            "list": "list.yaml holds a list",
            "broken": "broken.yaml is not YAML",
            "tag": "tag.yaml is not YAML that a config can be read from: a value of kind",
            "size": "size is ['laptop']; it is a name",
            "condition": "condition is {'dense': 'raw'}; it is a name",
            "section": "training is 'fast'; it is a section",
            "objective": "objective is 3; it is a section",
            "number": "training.steps is 'many'",
            "keys": "key 1 is no text",
            "wd": "unknown key training.wd; did you mean weight_decay?",
        }.items()
    ),
    (["audit", "--config", "size.yaml"], "size is ['laptop']; it is a name"),
    (
        ["audit", "--config", "config.json"],
        "config of a transformers model, not of a run; loopscope audit . opens",
    ),
    (["audit", "--config", "pipe"], "pipe is not a file"),
    # Paths and files
    (["audit"], "give a path to measure"),
    (["audit", "nowhere"], "nowhere does not exist"),
    (["audit", "empty.pt"], "empty.pt"),
    (["audit", "text.pt"], "text.pt"),
    (["audit", "other.pt"], "other.pt"),
    (["audit", "model", "--data", "latin.txt"], "latin.txt"),
    (["audit", "model", "--data", "odd.safetensors"], "odd.safetensors"),
    (["audit", "model", "--threads", "100000"], "threads is 100000"),
    (["audit", "model", "--sequences", "0"], "sequences is 0"),
    (["evaluate", "depth", "model", "--loops", "1000000000"], "loops is 1000000000"),
    (["evaluate", "compare", "model"], "needs two conditions with completed runs, or models"),
    (["report", "nowhere"], "no results at nowhere"),
    (["import-published", "empty.pt", "y"], "empty.pt"),
    # Generation
    (["generate", "model"], "give the text to go on with"),
    (["generate", "model", "--prompt-file", "pipe"], "is a folder, a pipe or a device"),
    (["generate", "model", "--prompt-file", "latin.txt"], "latin.txt"),
    ([*GENERATE, "--temperature", "1e-38"], "temperature is 1e-38"),
    ([*GENERATE, "--temperature", "inf"], "temperature is inf"),
    ([*GENERATE, "--new-tokens", "1000000000000"], "new_tokens is 1000000000000"),
    ([*GENERATE, "--exit-rule", "logit-margn"], "did you mean logit-margin?"),
    ([*GENERATE, "--max-tokens", "3"], "did you mean --new-tokens?"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are wrong in one way each, a model that is right, and a pipe that nobody writes to."""
    path = tmp_path_factory.mktemp("bad")
    for name, contents in FILES.items():
        (path / name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    os.mkfifo(path / "pipe")
    torch.save(
        {"model_state": {"token_embedding.weight": torch.zeros(3)}, "config": {"model": []}},
        path / "other.pt",
    )
    save_file({"other": torch.zeros(2)}, path / "odd.safetensors")
    config = ModelConfig(dim=16, heads=2, layers=1, loops=2, vocabulary=300, sequence=16)
    save_model(LoopedTransformer(config), path / "model", {}, {})
    return path


def test_there_are_sixty() -> None:
    assert len(CASES) >= 60
    assert len({json.dumps(case) for case, _ in CASES}) == len(CASES)


@pytest.mark.parametrize(("typed", "message"), CASES, ids=[" ".join(typed)[:60] for typed, _ in CASES])
def test_bad_input(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    typed: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    before = contents(folder)
    with warnings.catch_warnings():
        assert run_command(monkeypatch, *typed) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    said = [line for line in captured.err.splitlines() if line and not line.startswith("loopscope: note: ")]
    assert len(said) == 1, captured.err
    assert said[0].startswith("loopscope: ")
    assert message in said[0]
    assert len(said[0]) < 1100
    assert contents(folder) == before


def contents(folder: Path) -> list[tuple[str, int]]:
    """Everything in a folder, and its size."""
    return sorted((str(path.relative_to(folder)), path.lstat().st_size) for path in folder.rglob("*"))
