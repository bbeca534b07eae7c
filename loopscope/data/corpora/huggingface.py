"""Any Hugging Face dataset with a text column, streamed; also a local folder of its files."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from loopscope.data.config import PUBLISHED_DATASET, DataConfig
from loopscope.data.corpora.base import AbstractCorpus, join_documents

INSTEAD = "or use corpus: files, or corpus: stdlib, which need no network"
TIMEOUT = 10.0
"""Seconds in which the hub is to say whether it has a dataset."""


class HuggingFaceCorpus(AbstractCorpus):
    """Corpus of a Hugging Face dataset: rows that are not blank, joined by a blank line.

    The published code does so for WikiText-103.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.name, self.dataset_config = config.corpus, config.dataset_config
        if config.corpus == "wikitext-103":
            self.name, self.dataset_config = PUBLISHED_DATASET

    def train(self) -> Iterator[str]:
        return join_documents(self._part(validation=False))

    def validation(self) -> Iterator[str]:
        return join_documents(self._part(validation=True))

    def _part(self, validation: bool) -> Iterator[str]:
        """Rows of the part's own split, or of one split of which every n-th row is held out."""
        if self.config.validation_split is not None:
            yield from self._rows(self.config.validation_split if validation else self.config.train_split)
            return
        every = max(2, round(1 / self.config.validation_fraction))
        for number, row in enumerate(self._rows(self.config.train_split)):
            if (number % every == every - 1) == validation:
                yield row

    def fingerprint(self) -> str:
        parts = [
            self.name,
            self.dataset_config or "",
            self.config.train_split,
            str(self.config.validation_split),
        ]
        local = Path(self.name)
        if local.is_dir():
            parts += [
                f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"
                for path in sorted(local.rglob("*"))
                if path.is_file()
            ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _rows(self, split: str) -> Iterator[str]:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise ValueError(
                f"corpus {self.name!r} needs the datasets package; install it with: pip install 'loopscope[data]'"
            ) from error
        check_on_hub(self.name)
        try:
            rows = load_dataset(self.name, self.dataset_config, split=split, streaming=True)
            column = self.config.text_column
            for row in rows:
                if column not in row:
                    raise ValueError(f"no column {column!r} (data.text_column); there are: {', '.join(row)}")
                if row[column] and row[column].strip():
                    yield row[column]
        except Exception as error:  # the hub's clients raise dozens of kinds
            instead = f"text files in it are data.files: '{Path(self.name)}/**/*.txt', say"
            raise ValueError(
                f"dataset {self.name!r}, split {split!r}, cannot be read ({type(error).__name__}: {error}). Check "
                "the name, the split (data.validation_split: null holds out a part of the training split) and the "
                f"network; {instead if Path(self.name).is_dir() else INSTEAD}"
            ) from error


def check_on_hub(name: str) -> None:
    """Ask the hub once whether it has a dataset, because loading one that it has not retries for 20 seconds.

    A hub that answers late or with an error is left to the loader and its retries; so is one that is not to be asked
    (HF_HUB_OFFLINE), and a local folder.

    Raises:
        ValueError: what no retry changes: no such dataset, no name of one, or a hub that twice cannot be connected to.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE or Path(name).exists():
        return
    for last in (False, True):
        try:
            HfApi().dataset_info(name, timeout=TIMEOUT)
            return
        except HFValidationError as error:
            raise ValueError(f"corpus {name!r} cannot be a dataset's name ({error}); {INSTEAD}") from error
        except RepositoryNotFoundError as error:
            raise ValueError(
                f"dataset {name!r} is not on the hub, or is not to be seen without logging in there. Check the name; "
                f"{INSTEAD}"
            ) from error
        except Exception as error:  # of whichever HTTP library the hub's client is built on
            if "Connect" not in type(error).__name__ or "Timeout" in type(error).__name__:
                return
            if last:
                raise ValueError(
                    f"dataset {name!r} cannot be read: the hub cannot be reached ({type(error).__name__}: {error}). "
                    f"Check the name and the network; {INSTEAD}"
                ) from error
            time.sleep(1)
