"""Settings that others imply: where they are named themselves, they hold."""

from typing import Any

import pytest

from loopscope.cli.arguments import with_config
from loopscope.cli.train import Train
from loopscope.config.own_conditions import own_recipe
from loopscope.config.recipes import recipe
from loopscope.data.config import DataConfig

WORDS = {"tokenizer": {"kind": "word", "vocabulary": 300}}


@pytest.mark.parametrize(
    ("over", "vocabulary"),
    [
        ({}, 4096),
        ({"data": WORDS}, 300),
        ({"data": {"tokenizer": {"vocabulary": 9000}}}, 9000),
        ({"data": {"tokenizer": "bytes"}}, 256),
        ({"data": {"tokenizer": {"kind": "bytes", "vocabulary": 300}}}, 256),
        ({"data": {"tokenizer": {"min_count": 2}}}, 4096),
        ({"data": WORDS, "model": {"vocabulary": 512}}, 512),
        ({"data": WORDS, "model": {"dim": 64}}, 300),
    ],
)
def test_the_models_vocabulary_is_the_tokenizers(over: dict[str, Any], vocabulary: int) -> None:
    config = recipe("laptop", "dense/raw", over)
    assert config.model.vocabulary == vocabulary
    assert own_recipe("laptop", "mine", over).model.vocabulary == vocabulary
    assert own_recipe("laptop", "mine", {"data": WORDS}, over).model.vocabulary == (
        512 if "vocabulary" in over.get("model", {}) else 300
    )


def test_files_mean_corpus_files() -> None:
    def data(*words: str) -> DataConfig:
        return with_config(Train, "train", ["--out", "x", *words])[1].data

    assert DataConfig(files=("a.txt",)).corpus == "files"
    assert recipe(over={"data": {"files": ["a.txt"]}}).data.corpus == "files"
    assert data("--data.files", "a.txt").corpus == "files"
    assert data("--data.files", "a.txt", "--data.corpus", "files") == data("--data.files", "a.txt")
    said = r"^data: files and validation_files belong to corpus 'files', not 'stdlib'"  # no recipe is named
    with pytest.raises(ValueError, match=said):
        data("--data.files", "a.txt", "--data.corpus", "stdlib")


def test_a_vocabulary_that_is_named_holds_also_where_it_is_the_default() -> None:
    words = ["--out", "x", "--data.tokenizer.vocabulary", "300"]
    assert with_config(Train, "train", words)[1].model.vocabulary == 300
    assert with_config(Train, "train", [*words, "--model.vocabulary", "4096"])[1].model.vocabulary == 4096
