"""Settings of the data: what cannot be is refused, and reading them needs no torch."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from loopscope.data.config import DataConfig, TokenizerConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"corpus": "files"}, "files is empty; name text files or globs"),
        ({"corpus": ""}, "at least 1 character"),
        ({"corpus": "stdlib", "files": ("a.txt",)}, "belong to corpus 'files', not 'stdlib'"),
        ({"corpus": "wikitext-103", "validation_files": ("a.txt",)}, "not 'wikitext-103'"),
        ({"dataset_config": "raw"}, "dataset_config belongs to Hugging Face datasets.*'stdlib'"),
        ({"corpus": "files", "files": ("a",), "dataset_config": "raw"}, "dataset_config belongs.*'files'"),
        ({"validation_fraction": 0}, "validation_fraction"),
        ({"validation_fraction": 1}, "validation_fraction"),
        ({"validation_fraction": float("nan")}, "validation_fraction"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_validation_bytes": -1}, "max_validation_bytes"),
        ({"stride": 0}, "stride"),
        ({"corpse": "stdlib"}, "corpse"),
        ({"tokenizer": "sentencepiece"}, "'word', 'bpe', 'bytes' or 'file'"),
        ({"tokenizer": {"kind": "bpe", "vocabulary": 255}}, "vocabulary is 255; byte-level bpe needs 256"),
    ],
)
def test_values_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocabulary": 4}, "vocabulary"),
        ({"min_count": 0}, "min_count"),
        ({"kind": "bytes", "min_count": 3}, "belong to tokenizer 'word', not 'bytes'; remove them"),
        ({"kind": "bpe", "count_validation": True}, "belong to tokenizer 'word', not 'bpe'"),
        ({"size": 10}, "size"),
        (3, "TokenizerConfig"),
    ],
)
def test_tokenizers_that_cannot_be_are_refused(values: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TokenizerConfig.model_validate(values)


def test_a_tokenizer_may_be_only_a_name() -> None:
    assert DataConfig(tokenizer="bytes").tokenizer == TokenizerConfig(kind="bytes")
    assert DataConfig().tokenizer == TokenizerConfig(kind="word", vocabulary=4096, min_count=2)


def test_settings_survive_json_and_cannot_be_changed() -> None:
    config = DataConfig(corpus="files", files=("a", "b*"), max_bytes=10, tokenizer={"kind": "bpe"})
    assert DataConfig.model_validate_json(config.model_dump_json()) == config
    assert DataConfig(**config.model_dump(mode="json")) == config
    for target, name in ((config, "corpus"), (config.tokenizer, "kind")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(target, name, "bytes")


def test_settings_are_read_without_torch_numpy_or_tokenizers() -> None:
    code = "import sys, loopscope.data.config; print(*sorted({'torch', 'numpy', 'tokenizers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
