"""Documents with their ends: as token files, as windows, in training, and what does not go together."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from loopscope.data.config import DataConfig
from loopscope.data.document_windows import DocumentWindows
from loopscope.data.preparation import PreparedData, prepare
from loopscope.data.tokenizers import BPETokenizer
from loopscope.results import load_results
from tests.data.test_document_files import table
from tests.fixtures import run_command

DOCUMENTS = [
    "the cat sat",
    "on the mat, the dog did not. " * 9,
    "é😀",
    "<eos> <|endoftext|> is text",
    "the end",
]


def prepared(folder: Path, tokenizer: dict[str, Any], **settings: Any) -> PreparedData:
    train, held = folder / "train.jsonl", folder / "held.jsonl"
    if not held.is_file():
        table(train, DOCUMENTS)
        table(held, DOCUMENTS[:2])
    return prepare(
        DataConfig(
            files=(str(train),),
            validation_files=(str(held),),
            tokenizer=tokenizer,
            documents="ended",
            cache=str(folder / "cache"),
            **settings,
        ),
        progress=False,
    )


@pytest.mark.parametrize("kind", ["bytes", "bpe", "word"])
def test_an_end_stands_before_the_first_document_and_after_each(kind: str, tmp_path: Path) -> None:
    data = prepared(tmp_path, {"kind": kind, **({} if kind == "bytes" else {"vocabulary": 300})})
    end = data.tokenizer.end_id
    assert end is not None
    ids = np.asarray(data.train.tokens)
    parts = np.split(ids, np.flatnonzero(ids == end))
    assert [len(parts[0]), ids[0], ids[-1]] == [0, end, end]
    for part, text in zip(parts[1:], [*DOCUMENTS, ""], strict=True):
        assert part[1:].tolist() == data.tokenizer.encode(text).tolist()  # as encoded alone
    assert data.train.bytes == sum(len(text.encode()) for text in DOCUMENTS)
    assert data.source["train"] == {"bytes": data.train.bytes, "tokens": len(ids), "documents": 5}
    assert data.source["validation"]["documents"] == 2


def test_windows_within_documents_hold_every_token_as_a_label_once(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"kind": "bytes"}, windows="within")
    windows = data.training_windows(16)
    assert isinstance(windows, DocumentWindows)
    (inputs, labels), ids = windows.read(np.arange(len(windows))), np.asarray(data.train.tokens)
    assert labels[labels >= 0].tolist() == ids[1:].tolist()
    inner = inputs[:, 1:] == 255  # an end in the midst is filling, whose label does not count
    assert (labels[:, 1:][inner] == -100).all()
    counted = labels >= 0
    assert counted[:, 0].all()
    assert torch.equal(inputs[:, 1:][counted[:, 1:]], labels[:, :-1][counted[:, 1:]])
    crossing = prepared(tmp_path, {"kind": "bytes"})
    assert crossing.directory == data.directory  # the same tokens, looked at otherwise
    assert len(crossing.training_windows(16)) == (len(ids) - 1) // 16
    assert torch.equal(windows.batch(3, 7, 0, 4)[0], windows.batch(3, 7, 0, 4)[0])


def file_tokenizer(path: Path, special: list[str]) -> Path:
    words = {
        word: number for number, word in enumerate(["[UNK]", *["the", "cat", "sat", "on", "mat", "end"]])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(path))
    return path


def test_a_tokenizer_file_ends_documents_with_a_token_of_its_own(tmp_path: Path) -> None:
    path = file_tokenizer(tmp_path / "t.json", ["<s>", "</s>", "<doc>"])
    of_file = {"kind": "file", "path": str(path)}
    assert prepared(tmp_path, of_file).train.tokens[0] == 8
    assert prepared(tmp_path, of_file, end_token="<doc>").train.tokens[0] == 9
    with pytest.raises(ValueError, match=r"end_token '<x>' is none .*special tokens are <s>, </s>, <doc>"):
        prepared(tmp_path, of_file, end_token="<x>")
    none = {"kind": "file", "path": str(file_tokenizer(tmp_path / "n.json", ["<s>"]))}
    with pytest.raises(
        ValueError, match=r"none of this tokenizer's is known to; .*name one in data.end_token"
    ):
        prepared(tmp_path, none)


def test_text_never_becomes_the_end() -> None:
    made = BPETokenizer.train(["<|endoftext|> the mat " * 50], 320, end=True)
    assert made.end_id == 0
    assert 0 not in made.encode("the mat <|endoftext|> the").tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windows": "within"}, "windows belongs to documents 'ended'"),
        ({"end_token": "</s>"}, "end_token belongs to documents 'ended'"),
        (
            {"documents": "ended", "end_token": "</s>"},
            "end_token belongs to tokenizer 'file'; 'word' has one",
        ),
        ({"documents": "ended", "windows": "within", "stride": 4}, "stride belongs to windows 'crossing'"),
        ({"documents": "ended", "corpus": "task"}, "documents belongs to text"),
        ({"dataset_revision": "v1"}, "dataset_revision belongs to Hugging Face datasets"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)


def test_a_run_on_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "train.jsonl.gz", DOCUMENTS * 4, "body")
    words = ["--data.text-column", "body", "--data.documents", "ended", "--data.windows", "within"]
    words += [
        "--data.tokenizer.kind",
        "bytes",
        "--model.dim",
        "16",
        "--model.layers",
        "1",
        "--model.sequence",
        "16",
    ]
    words += [
        "--training.steps",
        "2",
        "--training.batch",
        "4",
        "--data.cache",
        str(tmp_path / "cache"),
        "--quiet",
    ]
    out = tmp_path / "run"
    files = ["--data.files", str(tmp_path / "train.jsonl.gz")]
    assert run_command(monkeypatch, "train", "--out", out, *files, *words) == 0
    (run,) = load_results(out).runs
    assert run.source["documents"] == "ended"
    assert run.source["train"]["documents"] + run.source["validation"]["documents"] == 20


def test_a_killed_ingestion_leaves_nothing_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = table(tmp_path / "train.jsonl", ["the cat sat on the mat. " * 200] * 4000)
    program = (
        "from loopscope.data import DataConfig, prepare; import sys; data = prepare(DataConfig(files=(sys.argv[1],), "
        "tokenizer='bytes', documents='ended', cache=sys.argv[2]), progress=False); print(data.train.count)"
    )
    cache = tmp_path / "cache"
    process = subprocess.Popen([sys.executable, "-c", program, str(path), str(cache)], stdout=subprocess.PIPE)
    until = time.monotonic() + 60
    while not list(cache.glob(".building-*/*")):
        assert time.monotonic() < until
        time.sleep(0.005)
    process.kill()
    process.communicate()
    left = [entry.name for entry in cache.iterdir()]
    whole = subprocess.run(
        [sys.executable, "-c", program, str(path), str(cache)], capture_output=True, check=True
    )
    count = 3800 * (4800 + 1) + 1
    assert int(whole.stdout) == count
    assert process.returncode == -signal.SIGKILL
    assert [name.startswith(".building-") for name in left] == [True]
    (folder,) = cache.iterdir()
    assert json.loads((folder / "source.json").read_text())["train"]["documents"] == 3800
