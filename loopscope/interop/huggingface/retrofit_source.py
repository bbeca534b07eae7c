"""The model that is to be looped: a folder of transformers, loaded in fp32, with a head that its tensors decide on.

No code of the folder's own runs: its family is one that transformers has.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.interop.huggingface.hub import SETTING_FILES, WEIGHT_FILES, hub_folder, is_hub_name
from loopscope.interop.huggingface.loading import tensors_in, weight_bytes, without_bars
from loopscope.interop.huggingface.pretrained import (
    ROOM,
    check_complete,
    folder_settings,
    weight_files,
)
from loopscope.interop.huggingface.retrofit_families import (
    RETROFIT_FAMILIES,
    RetrofitFamily,
    UnknownSettingError,
)
from loopscope.machine_limits import free_bytes
from loopscope.numerics import not_finite
from loopscope.recurrence.model_errors import in_one_line
from loopscope.results.fingerprint import CONFIG_FILE
from loopscope.results.layout import TOKENIZER

HEAD = "lm_head.weight"
COPIES = 2
"""Of the weights in fp32 that are in memory at once: the source's, and the looped model's."""


@dataclass(frozen=True)
class RetrofitFolder:
    """A folder that can be looped, before its weights are read.

    Attributes:
        folder: where it lies.
        family: how its weights are named.
        config: its settings, as transformers reads them.
        settings: the same of its layers in our words.
        tied: whether its head is its token embedding.
        notes: what the reader should know of how that was decided.
    """

    folder: Path
    family: RetrofitFamily
    config: Any
    settings: Mapping[str, Any]
    tied: bool
    notes: tuple[str, ...]

    @property
    def layers(self) -> int:
        """How many it has."""
        return int(self.config.num_hidden_layers)

    @property
    def positions(self) -> int:
        """Tokens of the longest text that it was made for."""
        return int(getattr(self.config, self.family.positions))


@dataclass(frozen=True)
class RetrofitSource:
    """A loaded model that is to be looped: in fp32, in evaluation mode."""

    found: RetrofitFolder
    module: Any

    @property
    def stack(self) -> nn.ModuleList:
        """Its layers."""
        layers: nn.ModuleList = self.module.get_submodule(self.found.family.stack)
        return layers

    @torch.no_grad()
    def logits(
        self, ids: Int[Tensor, "batch seq"], layers: Sequence[int]
    ) -> Float[Tensor, "batch seq vocab"]:
        """Return what the model answers with these of its layers alone, in this order."""
        whole, config = self.stack, self.module.config
        body, _, name = self.found.family.stack.rpartition(".")
        owner, count = self.module.get_submodule(body), config.num_hidden_layers
        setattr(owner, name, nn.ModuleList(whole[layer] for layer in layers))
        config.num_hidden_layers = len(layers)
        try:
            found: Tensor = self.module(input_ids=ids, use_cache=False).logits
            return found
        finally:
            setattr(owner, name, whole)
            config.num_hidden_layers = count


def find_source(path: str | Path) -> RetrofitFolder:
    """Look at a folder that transformers wrote (or a name on the hub), without reading its weights.

    Raises:
        ValueError: no such folder, a family or a setting of one that is not known, weights that are missing, or more
            than the memory takes.
    """
    import transformers

    folder = hub_folder(path, (*SETTING_FILES, *WEIGHT_FILES)) if is_hub_name(path) else Path(path)
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(
            f"{folder} has no {CONFIG_FILE}; give a folder that transformers wrote (config.json and safetensors)"
        )
    written = folder_settings(folder)
    kind = str(written.get("model_type"))
    if kind not in RETROFIT_FAMILIES:
        raise ValueError(
            f"{folder} is of family {kind!r}, whose layers retrofit does not know; it knows "
            f"{', '.join(RETROFIT_FAMILIES)}"
        )
    family, files = RETROFIT_FAMILIES[kind], weight_files(folder)
    with _in_words(folder):
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        settings = family.settings(config)
    needed, there = COPIES * ROOM * weight_bytes(files, "float32"), free_bytes()
    if there is not None and needed > there:
        raise ValueError(
            f"{folder} needs about {needed / 2**30:.1f} GiB of memory to be looped (its weights in fp32, {COPIES} "
            f"times), and {there / 2**30:.1f} GiB are free; use a larger machine, or end what else runs"
        )
    tied, notes = _tied(family, files, written.get("tie_word_embeddings"))
    config.tie_word_embeddings = tied
    return RetrofitFolder(folder, family, config, settings, tied, notes)


def load_source(found: RetrofitFolder) -> RetrofitSource:
    """Read a folder's weights, by transformers' own class of the family.

    Raises:
        ValueError: weights that are damaged, missing, not finite, of another shape, or of another model.
    """
    import transformers

    folder = found.folder
    load: Any = transformers.AutoModelForCausalLM.from_pretrained
    with _in_words(folder), without_bars():
        module, told = load(
            str(folder),
            config=found.config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused by name
        )
    check_complete(folder, module, told)
    if others := sorted(told.get("unexpected_keys") or ()):
        raise ValueError(
            f"{folder} has {len(others)} weights that a language model of family {found.family.model_type} has not "
            f"({', '.join(others[:3])}): it is another kind of model; give one with a language-model head"
        )
    if (unfit := not_finite(module.named_parameters())) is not None:
        raise ValueError(
            f"{folder}: {unfit}; nothing can be trained from there. Restore the weights from a copy, or download "
            "them again"
        )
    return RetrofitSource(found, module.eval())


@contextmanager
def _in_words(folder: Path) -> Iterator[None]:
    """Name the folder in whatever the libraries raise at one that is damaged."""
    import transformers

    try:
        yield
    except UnknownSettingError as error:
        raise ValueError(f"{folder}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{folder} could not be loaded by transformers {transformers.__version__} ({in_one_line(error)})"
        ) from error


def _tied(family: RetrofitFamily, files: Sequence[Path], says: Any) -> tuple[bool, tuple[str, ...]]:
    """Return whether the head is the embedding, as the tensors have it: configs of transformers 4 leave it out."""
    embedding = (
        family.ends["token_embedding"].partition(".")[2] + ".weight"
    )  # with or without the body's name
    places = {name: file for file in files for name in tensors_in(file)}
    if HEAD not in places:
        note = f"config.json says an untied head, and the weights have none ({HEAD}): it is tied to the embedding"
        return True, (note,) if says is False else ()
    stored = next((name for name in places if name.endswith(embedding)), None)
    if says is not False and stored is not None and _equal(places, HEAD, stored):
        return True, ()
    return False, (
        ("config.json says a tied head, and the weights have one of its own: it is untied",) if says else ()
    )


def _equal(places: Mapping[str, Path], *names: str) -> bool:
    """Whether two tensors of a folder are the same numbers."""
    one, other = (_tensor(places[name], name) for name in names)
    return torch.equal(one, other)


def _tensor(file: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        found: Tensor = opened.get_tensor(name)
    return found


def tokenizer_text(folder: Path) -> str | None:
    """Return the contents of a source's tokenizer.json, or what transformers makes of older files; None without any."""
    if (folder / TOKENIZER).is_file():
        return (folder / TOKENIZER).read_text(encoding="utf-8")
    import transformers

    try:
        made: Any = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        # Without any file of one, transformers 5 makes a GPT-2 or Qwen tokenizer that gives no ids for any text.
        if not made.get_vocab().keys() - set(made.all_special_tokens):
            return None
        return str(made.backend_tokenizer.to_str())
    except Exception:  # none there, or of a kind that the library cannot turn
        return None
