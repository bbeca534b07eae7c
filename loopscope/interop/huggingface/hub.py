"""Models by their name on the hub: a folder of the hub's cache, filled where there is a network."""

import re
from collections.abc import Sequence
from pathlib import Path

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
SETTING_FILES = ("*.json", "*.py", "tokenizer*")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")


def is_hub_name(path: str | Path) -> bool:
    """Return whether a path that does not exist may be the name of a model on the hub: `owner/name`."""
    return HUB_NAME.fullmatch(Path(path).as_posix()) is not None and not Path(path).exists()


def hub_folder(name: str | Path, patterns: Sequence[str]) -> Path:
    """Return the folder of the hub's cache that holds a model's files of these patterns, fetched where need be.

    Raises:
        ValueError: no such model, no access, or no network and nothing in the cache: says what to do.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    named = Path(name).as_posix()
    nothing = f"{named} does not exist; give a run folder, a model folder or a published last.pt. As a name on the hub"
    try:
        return Path(snapshot_download(named, allow_patterns=list(patterns)))
    except GatedRepoError as error:
        raise ValueError(
            f"{nothing} it asks for a licence to be accepted and a login (hf auth login)"
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"{nothing} there is no such model, or it is private (hf auth login)") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"{nothing} it is not in the cache, and the hub cannot be reached from here ({type(error).__name__}). "
            f"Fetch it where there is a network, hf download {named} --local-dir FOLDER, and give FOLDER"
        ) from error
