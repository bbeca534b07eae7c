"""Datasets as corpora, from local files, and the names of corpora."""

import json
from pathlib import Path
from typing import Any

import pytest

from loopscope.data.config import DataConfig
from loopscope.data.corpora import (
    HuggingFaceCorpus,
    StdlibCorpus,
    build_corpus,
)
from tests.data.fixtures import both


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A local dataset: a folder with a file of JSON lines per split."""
    pytest.importorskip("datasets")
    folder = tmp_path / "rows"
    folder.mkdir()
    texts = {
        "train": ["first é", "", "  \n", " second\n", "third"],
        "validation": ["\n", "held out", "😀"],
    }
    for split, lines in texts.items():
        listed = "".join(json.dumps({"text": line, "other": line.upper()}) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(listed)
    return folder


def test_rows_that_are_not_blank_joined_by_a_blank_line(rows: Path) -> None:
    corpus = build_corpus(DataConfig(corpus=str(rows)))
    assert both(corpus) == ("first é\n\n second\n\n\nthird", "held out\n\n😀")
    assert both(corpus) == ("first é\n\n second\n\n\nthird", "held out\n\n😀")


def test_another_column_and_another_split(rows: Path) -> None:
    config = DataConfig(
        corpus=str(rows), text_column="other", train_split="validation", validation_split="train"
    )
    assert both(build_corpus(config)) == ("HELD OUT\n\n😀", "FIRST É\n\n SECOND\n\n\nTHIRD")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_is_trained_on_is_not_validated_on(split: str, rows: Path) -> None:
    config = DataConfig(corpus=str(rows), train_split=split, validation_split=split)
    with pytest.raises(
        ValueError, match=f"are both '{split}'.*name another split, or validation_split: null"
    ):
        list(build_corpus(config).train())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_split": "train[:10%]"}, "a part of a split is not read while it streams"),
        ({"train_split": "training"}, "split 'training', cannot be read"),
        ({"dataset_config": "absent"}, "cannot be read.*absent"),
    ],
)
def test_what_a_dataset_lacks_is_named(changes: dict[str, str], message: str, rows: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        list(HuggingFaceCorpus(DataConfig(corpus=str(rows), **changes)).train())
    assert str(rows) in str(caught.value)
    assert f"text files in it are data.files: '{rows}/**/*.txt'" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"other": "a"}, "row 2: no column 'text' .data.text_column.; there are: other$"),
        ({"text": ["a"]}, "row 2: column 'text' holds a list, not text; name another"),
    ],
)
def test_a_column_that_is_no_text_is_named_with_its_row(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    streamed = datasets.IterableDataset.from_generator(lambda: iter([{"text": "fine"}, row]))
    corpus = HuggingFaceCorpus(DataConfig(corpus="owner/name"))
    corpus._splits["train"] = streamed
    with pytest.raises(ValueError, match=f"^dataset 'owner/name', split 'train', {message}"):
        list(corpus.train())


def test_a_dataset_that_cannot_be_had_is_named_with_what_else_to_do(rows: Path) -> None:
    corpus = build_corpus(DataConfig(corpus="loopscope-tests/no-such-dataset"))
    with pytest.raises(ValueError, match="'loopscope-tests/no-such-dataset'.*or corpus: stdlib"):
        list(corpus.train())


def test_a_local_dataset_has_a_fingerprint_of_its_files(rows: Path) -> None:
    config = DataConfig(corpus=str(rows))
    before = build_corpus(config).fingerprint()
    assert build_corpus(config).fingerprint() == before
    with (rows / "train.jsonl").open("a") as file:
        file.write('{"text": "fourth", "other": ""}\n')
    assert build_corpus(config).fingerprint() != before
    assert both(build_corpus(config))[0].endswith("third\n\nfourth")


def test_names_of_corpora() -> None:
    assert isinstance(build_corpus(DataConfig()), StdlibCorpus)
    published = build_corpus(DataConfig(corpus="wikitext-103"))
    assert isinstance(published, HuggingFaceCorpus)
    assert (published.name, published.dataset_config) == ("Salesforce/wikitext", "wikitext-103-raw-v1")


def test_a_dataset_without_a_validation_split_holds_out_rows(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    rows = [{"text": f"row {number}"} for number in range(20)] + [{"text": None}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = HuggingFaceCorpus(
        DataConfig(corpus=str(tmp_path), validation_split=None, validation_fraction=0.25)
    )
    train, held_out = ("".join(part).split("\n\n") for part in (corpus.train(), corpus.validation()))
    assert held_out == ["row 3", "row 7", "row 11", "row 15", "row 19"]
    assert sorted(train + held_out) == sorted(f"row {number}" for number in range(20))
