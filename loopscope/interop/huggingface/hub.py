"""Models by their name on the hub: a folder of the hub's cache, filled where there is a network."""

import difflib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from loopscope.results.layout import visible

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
SETTING_FILES = ("*.json", "*.py", "tokenizer*")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
_told: set[str] = set()


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
    if named not in _told and (near := near_paths(named)) is not None:
        _told.add(named)
        warnings.warn(
            f"{named} does not exist here{near}; it is looked for on the hub, as the name of a model",
            stacklevel=2,
        )
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


def check_hub_name(name: str) -> None:
    """Raise ValueError where a name cannot be a model's on the hub."""
    if HUB_NAME.fullmatch(name) is None:
        raise ValueError(f"push is {name!r}; give the model's name on the hub, owner/name")


def upload_folder(folder: str | Path, name: str, private: bool = False) -> str:
    """Put a folder on the hub as the model `owner/name`, made where it is not there; return its address.

    Raises:
        ValueError: no name of that form, no login, no access, or no network: says which.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    check_hub_name(name)
    api = HfApi(library_name="loopscope")
    try:
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Export from Loopscope")
    except LocalTokenNotFoundError as error:
        raise ValueError(f"push is {name}, and nobody is logged in to the hub: hf auth login") from error
    except Exception as error:  # of whichever HTTP library the hub's client is built on
        cause = (str(error).strip().splitlines() or [""])[0][:200]
        raise ValueError(
            f"{name} could not be put on the hub ({type(error).__name__}: {cause}); {folder} is whole: try again "
            f"with hf upload {name} {folder}"
        ) from error
    return f"{api.endpoint}/{name}"


def near_paths(name: str | Path) -> str | None:
    """Return what is near a path that does not exist, in words; None where its folder does not exist either."""
    path = Path(name)
    if not path.parent.is_dir():
        return None
    names = visible(path.parent)
    near = difflib.get_close_matches(path.name, names, n=3) or names[:3]
    return f" ({path.parent} has {', '.join(near)})" if near else f" ({path.parent} is empty)"
