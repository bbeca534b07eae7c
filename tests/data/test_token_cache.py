"""The cache of token files: made once, whole or not at all, and damage is named."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopscope.data import preparation as preparing
from loopscope.data.config import DataConfig
from loopscope.data.corpora import FilesCorpus
from loopscope.data.preparation import open_prepared, prepare
from loopscope.data.token_folder import cache_folder
from loopscope.results.lock import hold
from tests.data.fixtures import KINDS, TEXT, changed


def failing(*_: Any) -> None:
    raise RuntimeError("ingested again")


def test_the_second_call_opens_what_the_first_made(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(config, progress=False)
    monkeypatch.setattr(preparing, "_build", failing)
    for again in (prepare(config, progress=False), open_prepared(first.directory)):
        assert again.directory == first.directory
        assert again.tokenizer.hash == first.tokenizer.hash
        assert np.array_equal(again.train.tokens, first.train.tokens)
        assert np.array_equal(again.validation.tokens, first.validation.tokens)
    assert prepare(changed(config, stride=7), progress=False).directory == first.directory
    with pytest.raises(RuntimeError, match="ingested again"):
        prepare(changed(config, max_bytes=500), progress=False)


def test_a_changed_file_gets_a_new_folder(config: DataConfig) -> None:
    first = prepare(config, progress=False)
    Path(config.files[0]).write_text(TEXT + "And then some more.\n")
    second = prepare(config, progress=False)
    assert second.directory != first.directory
    assert second.train.bytes == first.train.bytes + 20
    assert open_prepared(first.directory).train.bytes == len(TEXT)


def test_every_setting_that_changes_ids_has_a_folder_of_its_own(config: DataConfig) -> None:
    variants = [
        config,
        *(changed(config, tokenizer={"kind": kind, **KINDS[kind]}) for kind in ("bpe", "bytes")),
        changed(config, tokenizer={"vocabulary": 9}),
        changed(config, tokenizer={"min_count": 3}),
        changed(config, max_bytes=1000),
        changed(config, validation_files=()),
        changed(config, validation_files=(), validation_fraction=0.3),
    ]
    found = [prepare(variant, progress=False) for variant in variants]
    assert len({data.directory for data in found}) == len(variants)
    assert len({data.tokenizer.hash for data in found[:4]}) == 4
    assert sorted(path.name for path in found[0].directory.parent.iterdir()) == sorted(
        data.directory.name for data in found
    )


@pytest.mark.parametrize("moment", ["vocabulary", "training", "validation"])
def test_a_crash_midway_leaves_nothing(
    moment: str, config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = {"vocabulary": 0, "training": 1, "validation": None}[moment]
    reads = {"train": 0}
    train, validation = FilesCorpus.train, FilesCorpus.validation

    def failing_train(corpus: FilesCorpus) -> Iterator[str]:
        number, reads["train"] = reads["train"], reads["train"] + 1

        def pieces() -> Iterator[str]:
            yield from train(corpus)
            if number == passes:
                raise RuntimeError("out of disk")

        return pieces()

    def failing_validation(corpus: FilesCorpus) -> Iterator[str]:
        yield from validation(corpus)
        if passes is None:
            raise RuntimeError("out of disk")

    monkeypatch.setattr(FilesCorpus, "train", failing_train)
    monkeypatch.setattr(FilesCorpus, "validation", failing_validation)
    with pytest.raises(RuntimeError, match="out of disk"):
        prepare(config, progress=False)
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    assert prepare(changed(config, cache=str(cache)), progress=False).train.bytes == len(TEXT)


def test_when_another_process_was_first_its_folder_is_kept(
    config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = preparing._build
    theirs: list[Path] = []

    def slow(*arguments: Any) -> None:
        build(*arguments)
        monkeypatch.setattr(preparing, "_build", build)
        theirs.append(prepare(config, progress=False).directory)  # the other process

    monkeypatch.setattr(preparing, "_build", slow)
    found = prepare(config, progress=False)
    assert theirs == [found.directory]
    assert list(cache.iterdir()) == [found.directory]


def test_only_old_remains_of_killed_ingestions_are_removed(config: DataConfig, cache: Path) -> None:
    for name, days in ((".building-old", 2), (".building-now", 0), ("a-folder-of-mine", 9)):
        (cache / name).mkdir(parents=True)
        then = time.time() - days * 24 * 3600
        os.utime(cache / name, (then, then))
    found = prepare(config, progress=False)
    names = {path.name for path in cache.iterdir()}
    assert names == {".building-now", "a-folder-of-mine", found.directory.name}


@pytest.mark.parametrize("name", ["tokenizer.json", "train.tokens", "validation.tokens"])
def test_a_damaged_folder_is_refused_by_file(name: str, config: DataConfig) -> None:
    directory = prepare(config, progress=False).directory
    path = directory / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(ValueError, match=str(path)):
        prepare(config, progress=False)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path} does not exist"):
        prepare(config, progress=False)
    path.write_bytes(whole)
    assert prepare(config, progress=False).train.bytes == len(TEXT)


def test_token_files_under_another_tokenizer_are_refused(config: DataConfig) -> None:
    directory = prepare(config, progress=False).directory
    other = prepare(changed(config, tokenizer={"vocabulary": 9}), progress=False).directory
    (directory / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match=r"train\.tokens was made with another tokenizer"):
        prepare(config, progress=False)


def test_the_cache_is_where_it_is_asked_to_be(
    config: DataConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare(config, progress=False).directory.parent == cache
    own = changed(config, cache=str(tmp_path / "own"))
    found = prepare(own, progress=False)
    assert found.directory.parent == tmp_path / "own"
    assert found.directory.name in {path.name for path in cache.iterdir()}  # the same text: the same name
    monkeypatch.delenv("LOOPSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(config) == tmp_path / "xdg" / "loopscope"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(config) == tmp_path / ".cache" / "loopscope"
    monkeypatch.setenv("LOOPSCOPE_CACHE", "~/mine")
    assert cache_folder(config) == tmp_path / "mine"


KILLED = """
import os, signal, sys
from loopscope.data import preparation
from loopscope.data.config import DataConfig
preparation._build = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
preparation.prepare(DataConfig(corpus="files", files=(sys.argv[1],)), progress=False)
"""


def test_what_a_killed_ingestion_left_goes_with_the_next_and_one_at_work_stays(
    config: DataConfig, cache: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, config.files[0]])
    assert done.returncode == -signal.SIGKILL
    (left,) = cache.iterdir()
    assert left.name.startswith(".building-")
    (cache / ".building-at-work").mkdir()
    with hold(cache / ".building-at-work"):
        found = prepare(config, progress=False)
        assert {path.name for path in cache.iterdir()} == {".building-at-work", found.directory.name}
    assert sorted(os.listdir(found.directory)) == [
        "source.json",
        "tokenizer.json",
        "train.tokens",
        "validation.tokens",
    ]
