"""Any Hugging Face dataset with a text column, streamed; also a local folder of its files."""

import hashlib
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from loopscope.data.config import PUBLISHED_DATASET, DataConfig
from loopscope.data.corpora.base import AbstractCorpus, join_documents
from loopscope.data.corpora.document_files import is_table, no_column, read_documents
from loopscope.optional_packages import require

INSTEAD = "or use corpus: files, or corpus: stdlib, which need no network"
TIMEOUT = 10.0
"""Seconds in which the hub is to say whether it has a dataset."""


class HuggingFaceCorpus(AbstractCorpus):
    """Corpus of a Hugging Face dataset: rows that are not blank, joined by a blank line.

    The published code does so for WikiText-103.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.name, self.dataset_config, self.revision = dataset_named(config)
        self.commit: str | None = None  # known once the hub was asked

    def train(self) -> Iterator[str]:
        return join_documents(self._part(validation=False))

    def validation(self) -> Iterator[str]:
        return join_documents(self._part(validation=True))

    def documents(self, validation: bool) -> Iterator[str | None]:
        for row in self._part(validation):
            yield row
            yield None

    def train_bytes(self) -> int | None:
        """What the dataset's own description says of all its columns, without what is held out; None of most."""
        info = getattr(self._loaded(self.config.train_split), "info", None)
        split = (getattr(info, "splits", None) or {}).get(self.config.train_split)
        size = getattr(split, "num_bytes", None)
        if not size:
            return None
        return size if self.config.validation_split is not None else int(size * (1 - 1 / self._every))

    def origin(self) -> dict[str, str]:
        asked = {"dataset": self.name, "config": self.dataset_config, "revision": self.revision}
        return {name: value for name, value in {**asked, "commit": self.commit}.items() if value is not None}

    @property
    def _every(self) -> int:
        """Of one split's rows, every so many is held out."""
        return max(2, round(1 / self.config.validation_fraction))

    def _part(self, validation: bool) -> Iterator[str]:
        """Rows of the part's own split, or of one split of which every n-th row is held out."""
        if self.config.validation_split == self.config.train_split:
            raise ValueError(
                f"data.train_split and data.validation_split are both {self.config.train_split!r}, so what is trained "
                "on would be validated on; name another split, or validation_split: null, which holds out a part"
            )
        if self.config.validation_split is not None:
            yield from self._rows(self.config.validation_split if validation else self.config.train_split)
            return
        every = self._every
        for number, row in enumerate(self._rows(self.config.train_split)):
            if (number % every == every - 1) == validation:
                yield row

    def fingerprint(self) -> str:
        parts = [
            self.name,
            self.dataset_config or "",
            self.config.train_split,
            str(self.config.validation_split),
            *([self.revision] if self.revision else []),
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
        rows, column, number = iter(self._loaded(split)), self.config.text_column, 0
        while True:
            try:
                row = next(rows, None)
            except Exception as error:  # the hub's clients raise dozens of kinds
                self._tell_damage(error)
                raise self._unreadable(split, error, f", after row {number}" if number else "") from error
            if row is None:
                return
            number += 1
            where = f"dataset {self.name!r}, split {split!r}, row {number}"
            if column not in row:
                raise no_column(where, column, row)
            if row[column] is not None and not isinstance(row[column], str):
                raise ValueError(
                    f"{where}: column {column!r} holds a {type(row[column]).__name__}, not text; name another "
                    "(data.text_column)"
                )
            if row[column] and row[column].strip():
                yield row[column]

    def _loaded(self, split: str) -> Any:
        """The rows of a split, which stream each time that they are gone through."""
        if split not in self._splits:
            require(f"corpus {self.name!r}", "datasets")
            from datasets import load_dataset

            self.commit = check_on_hub(self.name, self.revision) or self.commit
            revision = None if Path(self.name).exists() else self.commit or self.revision
            try:
                self._splits[split] = load_dataset(
                    self.name, self.dataset_config, split=split, streaming=True, revision=revision
                )
            except Exception as error:
                self._tell_damage(error)
                raise self._unreadable(split, error) from error
        return self._splits[split]

    @cached_property
    def _splits(self) -> dict[str, Any]:
        return {}

    def _tell_damage(self, error: Exception) -> None:
        """Raise ValueError with the file and line of a local folder's damage, which `datasets` does not tell of all."""
        folder = Path(self.name)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file() and is_table(path):
                try:
                    for _ in read_documents(path, self.config.text_column):
                        pass
                except ValueError as found:
                    if "data.text_column" not in str(found):
                        raise found from error

    def _unreadable(self, split: str, error: Exception, where: str = "") -> ValueError:
        instead = INSTEAD
        if Path(self.name).is_dir():
            instead = f"text files in it are data.files: '{Path(self.name)}/**/*.txt', say"
        elif Path(self.name).is_file():
            instead = f"a file is data.files: {self.name!r}"
        if "[" in split:
            instead = f"a part of a split is not read while it streams (data.max_bytes caps it); {instead}"
        return ValueError(
            f"dataset {self.name!r}, split {split!r}, cannot be read{where} ({type(error).__name__}: {error}). Check "
            "the name, the split (data.validation_split: null holds out a part of the training split) and the "
            f"network; {instead}"
        )


def dataset_named(config: DataConfig) -> tuple[str, str | None, str | None]:
    """Return a dataset's name, configuration and revision: `name:config@revision`, or settings of their own.

    Raises:
        ValueError: one of them is given twice, and differently.
    """
    name, dataset_config, revision = config.corpus, config.dataset_config, config.dataset_revision
    if name == "wikitext-103":
        return (*PUBLISHED_DATASET, revision)
    if not Path(name).expanduser().exists():  # a path may have any sign
        name, _, said = name.partition("@")
        name, _, own = name.partition(":")
        for setting, given, spelled in (
            ("dataset_config", dataset_config, own),
            ("dataset_revision", revision, said),
        ):
            if given and spelled and given != spelled:
                raise ValueError(f"corpus is {config.corpus!r} and {setting} is {given!r}; give it once")
        dataset_config, revision = dataset_config or own or None, revision or said or None
    return name, dataset_config, revision


def check_on_hub(name: str, revision: str | None = None) -> str | None:
    """Ask the hub once whether it has a dataset, and return the commit that is read; None where it was not to say.

    Asked, because loading one that it has not retries for 20 seconds.

    A hub that answers late or with an error is left to the loader and its retries; so is one that is not to be asked
    (HF_HUB_OFFLINE), and a local folder.

    Raises:
        ValueError: what no retry changes: no such dataset, no name of one, or a hub that twice cannot be connected to.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    if constants.HF_HUB_OFFLINE or Path(name).exists():
        return None
    for last in (False, True):
        try:
            found: str | None = HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT).sha
            return found
        except HFValidationError as error:
            raise ValueError(f"corpus {name!r} cannot be a dataset's name ({error}); {INSTEAD}") from error
        except RevisionNotFoundError as error:
            raise ValueError(
                f"dataset {name!r} has no revision {revision!r} on the hub; give a branch, a tag or a commit "
                "(data.dataset_revision), or none"
            ) from error
        except RepositoryNotFoundError as error:
            raise ValueError(
                f"dataset {name!r} is not on the hub, or is not to be seen without logging in there. Check the name; "
                f"{INSTEAD}"
            ) from error
        except Exception as error:  # of whichever HTTP library the hub's client is built on
            if "Connect" not in type(error).__name__ or "Timeout" in type(error).__name__:
                return None
            if last:
                raise ValueError(
                    f"dataset {name!r} cannot be read: the hub cannot be reached ({type(error).__name__}: {error}). "
                    f"Check the name and the network; {INSTEAD}"
                ) from error
            time.sleep(1)
    return None
