"""Texts and files for tests of corpora."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from loopscope.data.config import DataConfig
from loopscope.data.corpora import AbstractCorpus

WIDE = st.text(st.sampled_from("ab \n\ré€😀"), max_size=60)


def both(corpus: AbstractCorpus) -> tuple[str, str]:
    return "".join(corpus.train()), "".join(corpus.validation())


def filled(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


TEXT = "the cat sat on the mat, the dog did not.\n" * 60

HELD_OUT = "the dog sat on the zebra, the zebra did not.\n" * 9

KINDS: dict[str, dict[str, Any]] = {"word": {}, "bpe": {"vocabulary": 290}, "bytes": {}}


def changed(config: DataConfig, **changes: Any) -> DataConfig:
    return DataConfig(**(config.model_dump() | changes))
