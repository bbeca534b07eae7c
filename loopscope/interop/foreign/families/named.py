"""Families whose loop needs no adapter: a name for what repeats and for what sets the depth, and `wrap` follows.

Dory (in transformers, `dory`): a section of `model.layers` loops; between loops the state and the input section's
output are brought to unit length and added, so the scale is removed. Its `config.json` and its attribute
`num_hidden_layers` do not agree, so nothing is derived from that.

Nanbeige4.2 (remote code of its checkpoints): all of `model.layers`, with the final norm between passes, unless
`skip_loop_final_norm` is set: then the scale is carried on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class NamedFamily:
    """What `adapt` hands to `wrap` for a family.

    Attributes:
        family: its name.
        block: the path of what is applied once per loop, by the module's config.
        loops: the setting that holds the number of loops.
        needs: further settings that such a config has.
    """

    family: str
    block: Callable[[Any], str]
    loops: str
    needs: tuple[str, ...] = ()

    def recognises(self, module: nn.Module) -> bool:
        """Return whether the module has this family's structure: its layers, its head, and its settings."""
        config = getattr(module, "config", None)
        layers = getattr(getattr(module, "model", None), "layers", None)
        settings = (self.loops, *self.needs)
        return (
            isinstance(layers, nn.ModuleList)
            and hasattr(module, "lm_head")
            and all(type(getattr(config, name, None)) is int for name in settings)
        )


def _dory_section(config: Any) -> str:
    return f"model.layers[{config.n_input_layers}:{config.n_input_layers + config.n_recurrent_layers}]"


FOLLOWED = (
    NamedFamily("Dory", _dory_section, "n_recurrent_loops", ("n_input_layers", "n_recurrent_layers")),
    NamedFamily("Nanbeige", lambda config: "model.layers", "num_loops"),
)
"""In the order in which `adapt` asks them."""
