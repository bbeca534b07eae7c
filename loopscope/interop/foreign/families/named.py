"""Families whose loop needs no adapter: a name for what repeats and for what sets the depth, and `wrap` follows.

Dory (in transformers, `dory`): a section of `model.layers` loops; between loops the state and the input section's
output are brought to unit length and added, so the scale is removed. Its `config.json` and its attribute
`num_hidden_layers` do not agree, so nothing is derived from that.

Inkling-2 loop (in transformers, `inkling2_loop`): a section of the layers, each pass from the state before the first.
The pass before reaches it by messages out of normed states: its output, and those between the blocks inside it, which
go along beside H_k. The scale is removed.

Nanbeige4.2 (remote code of its checkpoints): all of `model.layers`, with the final norm between passes, unless
`skip_loop_final_norm` is set: then the scale is carried on.

IQuest-Coder Loop, LoopCoder-V2 (remote code): all of `model.layers`; later loops read the first one's keys and values,
which travel in the cache. The scale is carried on.

OpenMythos: H_k is what `recurrent.injection` gives; the head reads a sum over loops, weighted by halting. Its loop
stops early once every token has halted, unless it has a cache to fill: it gets one here, so that every loop runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class NamedFamily:
    """What `adapt` hands to `wrap` for a family.

    Attributes:
        family: its name.
        parts: paths that such a module has.
        counts: settings of its config that are whole numbers.
        block: the path of what is applied once per loop; from the module.
        options: what else `wrap` is told.
        side_state: what goes from loop to loop beside H_k is known, and described above: `wrap` need not warn of it.
    """

    family: str
    parts: Sequence[str]
    counts: Sequence[str]
    block: Callable[[Any], str]
    options: Mapping[str, Any]
    side_state: bool = False

    def recognises(self, module: nn.Module) -> bool:
        """Return whether the module has this family's structure: its parts, and its settings."""
        config = getattr(module, "config", None)
        return all(_has(module, path) for path in self.parts) and all(
            type(getattr(config, name, None)) is int for name in self.counts
        )


def _has(module: Any, path: str) -> bool:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module is not None


def _dory_section(module: Any) -> str:
    config = module.config
    return f"model.layers[{config.n_input_layers}:{config.n_input_layers + config.n_recurrent_layers}]"


def _inkling_section(module: Any) -> str:
    inner = "model.language_model" if hasattr(module.model, "language_model") else "model"
    config = module.config.get_text_config()
    return f"{inner}.layers[{config.loop_layer_index_start}:{config.loop_layer_index_end}]"


def equal_steps(loops: int) -> dict[str, list[float]]:
    """LoopFormer's forward arguments for this many loops: steps of one size, that sum to one."""
    return {"steps": [1 / loops] * loops}


def _cache_to_fill(input_ids: Tensor) -> dict[str, Any]:
    return {"kv_cache": {}}


def _layers(module: Any) -> str:
    return "model.layers"


_CAUSAL = ("model.layers", "lm_head")

FOLLOWED = (
    NamedFamily(
        "Dory",
        _CAUSAL,
        ("n_recurrent_loops", "n_input_layers", "n_recurrent_layers"),
        _dory_section,
        {"set_loops": "n_recurrent_loops"},
    ),
    *(
        NamedFamily(
            "Inkling-2 loop",
            (f"{inner}.message_input", "lm_head"),
            (),
            _inkling_section,
            {"set_loops": "loop_num_passes"},
            side_state=True,
        )
        for inner in ("model", "model.language_model")
    ),
    NamedFamily("Nanbeige", _CAUSAL, ("num_loops",), _layers, {"set_loops": "num_loops"}),
    NamedFamily("LoopCoder", _CAUSAL, ("loop_num",), _layers, {"set_loops": "loop_num"}),
    NamedFamily(
        "OpenMythos",
        ("recurrent.injection", "recurrent.act", "coda", "head"),
        (),
        lambda module: "recurrent.injection",
        {"head": "head", "set_loops": "n_loops", "forward_kwargs": _cache_to_fill},
        side_state=True,
    ),
    NamedFamily(
        "readout-blind-spot",
        ("token_embedding", "position_embedding", "layers", "lm_head"),
        (),
        lambda module: "layers",
        {"set_loops": "num_loops"},
    ),
    *(
        NamedFamily(
            "LoopLM",
            ("embed", repeats, "final_norm", "exit_gate", "lm_head"),
            ("max_recurrent_steps",),
            lambda module, repeats=repeats: repeats,  # type: ignore[misc]
            {"gate": "exit_gate", "set_loops": "num_steps"},
        )
        for repeats in ("moe_layer", "layers")  # with experts, `layers` is there too, and empty
    ),
    NamedFamily(
        "LoopFormer",
        ("transformer.h", "transformer.norm_f", "time_embedder", "dt_embedder", "lm_head"),
        (),
        lambda module: "transformer.h",
        {"readout": "transformer.norm_f", "set_loops": equal_steps},
    ),
    NamedFamily(
        "looped_nanochat",
        ("transformer.prelude", "transformer.recur", "transformer.coda", "norm_recur", "lm_head"),
        (),
        lambda module: "transformer.recur",
        {"set_loops": "num_recur"},
    ),
    NamedFamily(
        "ALBERT",
        ("albert.encoder.albert_layer_groups", "predictions.decoder"),
        ("num_hidden_layers",),
        lambda module: "albert.encoder.albert_layer_groups.0",
        {"head": "predictions.decoder", "set_loops": "num_hidden_layers"},
    ),
)
"""In the order in which `adapt` asks them."""
