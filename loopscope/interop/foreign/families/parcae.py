"""Parcae: a diagonal decay and an injected input between loops, and a projection `C` before the coda.

`transformer.adapter(state, e)` is `state × decay + dt × B e` with a decay in (0, 1) per channel (or, by its
config, a linear or a plain sum). The head's output is multiplied by `config.init.logit_scale` and, where set,
softly capped. The coda is a residual stack: its input's scale reaches the logits, though weakly.
"""

from torch import nn

from loopscope.interop.foreign.families.recurrent_depth import RecurrentDepth


class Parcae(RecurrentDepth):
    """Adapter of Parcae's `Parcae` and `ModelingParcae`."""

    family = "Parcae"

    @staticmethod
    def recognises(module: nn.Module) -> bool:
        return RecurrentDepth.has_parts(module) and hasattr(module.transformer, "C")
