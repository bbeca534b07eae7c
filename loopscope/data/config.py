"""The settings of the data. Importable without torch, numpy or tokenizers."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from loopscope.data.task_config import TaskConfig

PUBLISHED_DATASET = ("Salesforce/wikitext", "wikitext-103-raw-v1")


class TokenizerConfig(BaseModel):
    """Settings of a tokenizer: how text becomes ids."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["word", "bpe", "bytes", "file"] = "word"
    """word: the published word tokenizer. bpe: byte-level BPE, trained here. bytes: 256 ids. file: a tokenizer.json."""
    vocabulary: int = Field(4096, ge=5, le=2**24)
    """Entries, special ones included. bytes and file ignore it."""
    min_count: int = Field(2, ge=1, le=10**12)
    """word: how often a word must occur to get an entry."""
    path: str | None = None
    """file: a tokenizer.json of the Hugging Face `tokenizers` format, or a folder that holds one."""
    count_validation: bool = False
    """word: count validation text too, as the published code does. It leaks: off by default."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "TokenizerConfig":
        if self.kind != "word" and (self.count_validation or self.min_count != 2):
            raise ValueError(
                f"min_count and count_validation belong to tokenizer 'word', not {self.kind!r}; remove them"
            )
        if (self.kind == "file") != (self.path is not None):
            raise ValueError(
                f"tokenizer kind is {self.kind!r} and path is {self.path!r}; kind: file and path go together"
            )
        if self.kind == "bpe" and self.vocabulary < 256:
            raise ValueError(f"vocabulary is {self.vocabulary}; byte-level bpe needs 256 or more")
        return self


class DataConfig(BaseModel):
    """Settings of the data: what is trained and validated on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    corpus: str = Field("stdlib", min_length=1)
    """stdlib (Python's own sources on this machine), files, wikitext-103, task, or a Hugging Face dataset:
    name, name:config, name@revision, or a local folder of its files. Files that are named mean files."""
    task: TaskConfig = TaskConfig()
    """task: problems that are generated, instead of text. Other settings of data then do nothing."""
    files: tuple[str, ...] = ()
    """files: files or globs to train on: text, or .jsonl, .csv and .parquet with a document a row; also with .gz."""
    validation_files: tuple[str, ...] = ()
    """files: files or globs to validate on; none: a part of `files` is held out."""
    validation_fraction: float = Field(0.05, gt=0, lt=1)
    """Part held out where a corpus has no validation text of its own."""
    dataset_config: str | None = None
    """Hugging Face: the dataset's configuration."""
    dataset_revision: str | None = None
    """Hugging Face: a branch, tag or commit of the dataset; None: its main branch as it is when it is ingested."""
    train_split: str = "train"
    """Hugging Face: the split to train on."""
    validation_split: str | None = "validation"
    """Hugging Face: the split to validate on; null holds out `validation_fraction` of the training rows."""
    text_column: str = "text"
    """Hugging Face, .jsonl, .csv and .parquet: the column with the text."""
    documents: Literal["joined", "ended"] = "joined"
    """joined: one text, a blank line between rows. ended: one token after every document (a row, a file) and before the
    first, and nothing else between them."""
    end_token: str | None = None
    """With documents ended and tokenizer file: its token that ends a document; None: the one that is known to."""
    windows: Literal["crossing", "within"] = "crossing"
    """With documents ended. crossing: windows run on from one document into the next, and attention sees both. within:
    a window has tokens of one document; what is left of it is not counted."""
    max_bytes: int | None = Field(None, ge=1, le=2**60)
    """Size cap on the training text, in bytes of UTF-8."""
    max_validation_bytes: int | None = Field(None, ge=1, le=2**60)
    """Size cap on the validation text, in bytes of UTF-8."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How text becomes ids."""
    stride: int | None = Field(None, ge=1, le=2**24)
    """Tokens between the starts of training windows; None: the window's length."""
    cache: str | None = None
    """Folder for token files; None: $LOOPSCOPE_CACHE, else the user's cache folder."""

    @model_validator(mode="before")
    @classmethod
    def _of_files(cls, value: Any) -> Any:
        return {**value, "corpus": "files"} if means_files(value) else value

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if self.corpus == "files" and not self.files:
            raise ValueError("corpus is 'files', but files is empty; name text files or globs")
        if self.corpus != "files" and (self.files or self.validation_files):
            raise ValueError(f"files and validation_files belong to corpus 'files', not {self.corpus!r}")
        if self.corpus != "task" and self.task != TaskConfig():
            raise ValueError(f"task belongs to corpus 'task', not {self.corpus!r}; set corpus: task")
        for name in ("dataset_config", "dataset_revision"):
            if self.corpus in ("stdlib", "files", "task") and getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to Hugging Face datasets, not to corpus {self.corpus!r}")
        self._check_documents()
        return self

    def _check_documents(self) -> None:
        """What ends of documents go with."""
        if self.documents == "joined":
            for name in ("end_token", "windows"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} belongs to documents 'ended'; set documents: ended, or remove it"
                    )
        if self.documents == "ended" and self.corpus == "task":
            raise ValueError("documents belongs to text, not to corpus 'task'; remove it")
        if self.end_token is not None and self.tokenizer.kind != "file":
            raise ValueError(
                f"end_token belongs to tokenizer 'file'; {self.tokenizer.kind!r} has one of its own. Remove it"
            )
        if self.windows == "within" and self.stride is not None:
            raise ValueError("stride belongs to windows 'crossing'; within a document they lie side by side")

    @property
    def title(self) -> str:
        """What the held-out part is, in words for a report."""
        return (
            f"held-out problems of {self.task.title}"
            if self.corpus == "task"
            else f"validation text of {self.corpus}"
        )


def means_files(values: Any) -> bool:
    """Return whether settings of data name files and no corpus: corpus `files` is meant."""
    return (
        isinstance(values, Mapping)
        and "corpus" not in values
        and bool(values.get("files") or values.get("validation_files"))
    )
