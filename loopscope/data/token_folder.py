"""Where the token files of a corpus lie: a folder in the cache whose name follows from all that decides its tokens."""

import hashlib
import json
import os
import re
from pathlib import Path

from loopscope.data.config import DataConfig
from loopscope.data.corpora import AbstractCorpus
from loopscope.data.tokenizers import file_hash

FORMAT = 1
"""Part of every folder's name: raised when ingestion changes what it writes."""


def cache_folder(config: DataConfig) -> Path:
    """Return the folder where token files are kept: `data.cache`, $LOOPSCOPE_CACHE, or the user's cache folder."""
    if config.cache:
        return Path(config.cache).expanduser()
    if named := os.environ.get("LOOPSCOPE_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loopscope"


def token_folder(config: DataConfig, corpus: AbstractCorpus) -> Path:
    """Return the folder of a corpus as settings have it ingested: its name has a hash of both."""
    settings = config.model_dump(mode="json", exclude={"cache", "stride", "task", "windows"})
    for name in (
        "documents",
        "end_token",
        "dataset_revision",
    ):  # what is ingested without them stays what it is
        if settings[name] == DataConfig.model_fields[name].default:
            del settings[name]
    tokenizer = settings["tokenizer"]
    path = tokenizer.pop("path")
    if path is not None:  # what is in the file counts, not where it lies
        settings["tokenizer"] = {"kind": "file", "sha256": file_hash(path)}
    key = json.dumps([FORMAT, settings, corpus.fingerprint()], sort_keys=True)
    short = re.sub(r"[^A-Za-z0-9.-]+", "_", config.corpus)[-40:]
    return (
        cache_folder(config)
        / f"{short}-{config.tokenizer.kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    )
