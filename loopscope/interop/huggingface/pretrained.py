"""A folder of transformers (config.json and safetensors, sharded or not) as a looped model.

Families native in the installed transformers load without code of the folder's own; others need the user's word. The
module is adapted (`loopscope.adapt`): its exits have been compared with its own forward when it is returned.
"""

import json
from pathlib import Path
from typing import Any

import torch

from loopscope.interop.foreign.adapt import adapt
from loopscope.interop.huggingface.export.exported_folder import is_export, read_export
from loopscope.interop.huggingface.hub import SETTING_FILES, WEIGHT_FILES, hub_folder, is_hub_name
from loopscope.interop.huggingface.loading import Loading, chosen_loading, weight_bytes, without_bars
from loopscope.interop.huggingface.remote_code import listing, may_run
from loopscope.interop.huggingface.unlooped import refuse_unlooped
from loopscope.machine_limits import free_bytes
from loopscope.numerics import not_finite
from loopscope.recurrence import AbstractLoopedLM
from loopscope.recurrence.model_errors import in_one_line
from loopscope.results.fingerprint import CONFIG_FILE
from loopscope.results.layout import CONFIG, WEIGHTS

INDEX = f"{WEIGHTS}.index.json"
WRITTEN_FOR = {"ouro": "4.56", "huginn_raven": "4.56"}
"""Families whose own code was written for an older transformers, by `model_type`: newer ones cannot load it."""
ROOM = 1.15
"""How much memory loading takes, for the size of the weights."""


def is_transformers_folder(path: str | Path) -> bool:
    """Return whether a folder is one that transformers wrote, and none of Loopscope's own."""
    path = Path(path)
    return (path / CONFIG_FILE).is_file() and not (path / CONFIG).is_file()


def load_folder(
    path: str | Path, trust_remote_code: bool = False, how: Loading | None = None
) -> AbstractLoopedLM:
    """Return the looped model of a folder that transformers wrote, or of a name on the hub, in evaluation mode.

    On the CPU and in its stored type, unless told otherwise.

    Args:
        trust_remote_code: run the folder's own code, where the family is not in transformers.
        how: type and devices; None: as the process was told.

    Raises:
        ValueError: a file is missing or damaged, weights that do not fit the memory, a family that needs code of its
            own or another transformers, a model that is no loop.
    """
    import transformers

    on_hub, how = is_hub_name(path), how or chosen_loading()
    folder = hub_folder(path, SETTING_FILES) if on_hub else Path(path)
    if is_export(folder):
        return _load_export(hub_folder(path, (*SETTING_FILES, *WEIGHT_FILES)) if on_hub else folder, how)
    remote = _check_family(folder, trust_remote_code)
    if not remote:
        refuse_unlooped(folder)
    if on_hub:
        folder = hub_folder(path, (*SETTING_FILES, *WEIGHT_FILES))
    _check_weights(folder, how)
    kind = str(folder_settings(folder).get("model_type", ""))
    load: Any = transformers.AutoModelForCausalLM.from_pretrained
    placed = {} if how.device_map is None else {"device_map": how.placement()}
    try:
        with without_bars():
            module, found = load(
                str(folder),
                dtype=how.dtype,
                trust_remote_code=remote,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused by name
                **placed,
            )
    except Exception as error:  # the libraries', and whatever a stranger's code raises
        raise ValueError(
            f"{folder} could not be loaded by transformers {transformers.__version__} "
            f"({in_one_line(error)}){_older(kind)}"
        ) from error
    check_complete(folder, module, found)
    _check_in_place(folder, module, how)
    try:
        return adapt(module.eval())
    except ValueError as error:
        unfit = not_finite(module.named_parameters())
        raise ValueError(f"{path}: {f'{unfit}. So ' if unfit else ''}{error}") from error


def _load_export(folder: Path, how: Loading) -> AbstractLoopedLM:
    """Return the model of a folder that Loopscope exported: its own layers, and none of the folder's code."""
    if how.device_map is not None:
        raise ValueError(
            f"device-map is {how.device_map!r}, and {folder} is an export of Loopscope, which is loaded whole: leave "
            "it out, or load the folder by transformers with that map and pass loopscope.adapt(model)"
        )
    _check_weights(folder, how)
    model = read_export(folder)
    return model if how.dtype == "auto" else model.to(getattr(torch, how.dtype))


def _check_family(folder: Path, trust_remote_code: bool) -> bool:
    """Return whether the folder's own code has to run, which the user has allowed; refuse what cannot be loaded."""
    import transformers

    settings = folder_settings(folder)
    kind = str(settings.get("model_type", ""))
    native = kind in transformers.CONFIG_MAPPING
    remote = bool(settings.get("auto_map")) and not native
    if remote and not may_run(folder, trust_remote_code):
        raise ValueError(
            f"{folder} is of model_type {kind!r}, which transformers {transformers.__version__} does not have: it "
            f"needs the folder's own code ({listing(folder) or 'which is not in the folder'}). Read it, and add "
            "--trust-remote-code (trust_remote_code=True)"
        )
    if not native and not remote:
        raise ValueError(
            f"{folder / CONFIG_FILE} says model_type {kind!r}, which transformers {transformers.__version__} does not "
            f"have, and names no code of its own{_older(kind)}; install a version that has it, or load the module "
            "yourself and pass loopscope.adapt(module) or loopscope.wrap(module, block=…) to the functions"
        )
    return remote


def folder_settings(folder: Path) -> dict[str, Any]:
    """Return the contents of a folder's config.json.

    Raises:
        ValueError: it is no JSON, or no mapping.
    """
    path = folder / CONFIG_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}); restore it") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds {type(settings).__name__}, not a mapping of settings; restore it")
    return settings


def _older(kind: str) -> str:
    version = WRITTEN_FOR.get(kind)
    return (
        f". This family's code was written for transformers {version}: use an environment with that one"
        if version
        else ""
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the files with a folder's weights.

    Raises:
        ValueError: some are missing.
    """
    files = [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        try:
            shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{folder / INDEX} is no index of weights ({error}); restore it") from error
        files = [folder / str(name) for name in sorted(set(shards))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f"{folder} has {CONFIG_FILE} and not its weights: {', '.join(missing[:5])} missing. Download the whole "
            "model; weights in pickles (.bin) are not read, convert them to safetensors"
        )
    return files


def _check_weights(folder: Path, how: Loading) -> None:
    """Refuse a folder without its weights, and one that does not fit the memory, before anything is loaded."""
    files = weight_files(folder)
    needed, there = ROOM * weight_bytes(files, how.dtype), free_bytes()
    if how.device_map is None and there is not None and needed > there:
        halves = weight_bytes(files, "bfloat16") < weight_bytes(files, how.dtype)
        smaller = "load it in half precision (--dtype bfloat16), " if halves else ""
        raise ValueError(
            f"{folder} needs about {needed / 2**30:.1f} GiB of memory, and {there / 2**30:.1f} GiB are free; {smaller}"
            "let --device-map auto place it over what devices there are, use a larger machine, or end what else runs"
        )


def _check_in_place(folder: Path, module: Any, how: Loading) -> None:
    """Refuse parts that accelerate left where they come from for their own call alone: nothing else can read them."""
    elsewhere = sum(parameter.is_meta for parameter in module.parameters())
    if elsewhere:
        places = {str(place) for place in getattr(module, "hf_device_map", {}).values()}
        raise ValueError(
            f"{folder}: device-map {how.device_map} left {elsewhere} weights off the devices "
            f"({', '.join(sorted(places))}), because these hold no more, and audits, curves and generation cannot read "
            "them there. Use devices with more memory or --dtype bfloat16, or leave --device-map out: on the CPU it "
            f"needs about {ROOM * _bytes_of(folder, how) / 2**30:.1f} GiB"
        )


def _bytes_of(folder: Path, how: Loading) -> int:
    return weight_bytes(sorted(folder.glob("*.safetensors")), how.dtype)


def check_complete(folder: Path, module: Any, found: dict[str, Any]) -> None:
    """Refuse weights that were left at random, such as a head that the file should have tied."""
    tied = {name for name, _ in module.named_parameters(remove_duplicate=False)} - {
        name for name, _ in module.named_parameters()
    }
    missing = sorted(set(found.get("missing_keys") or ()) - tied)
    mismatched = sorted(str(entry[0]) for entry in found.get("mismatched_keys") or ())
    if missing or mismatched:
        names = ", ".join([*missing, *mismatched][:5])
        raise ValueError(
            f"{folder}: {len(missing) + len(mismatched)} weights of {type(module).__name__} are not in the file or "
            f"have another shape, and would be random ({names}): the config is another model's, or the weights were "
            "written by another version of transformers (an untied head, say: tie_word_embeddings)"
        )
