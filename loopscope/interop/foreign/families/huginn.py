"""Huginn (recurrent-pretraining; remote code of its checkpoints, and the training code's `RecurrentGPT`).

`transformer.adapter` reads the state beside the prelude's output. Every block is a sandwich that ends in a norm,
so the core itself removes the state's scale. `ln_f` runs twice, before and after the coda; `latent_states` in the
module's output are already behind the first of them, H_k here is before it. Its labels are shifted by the caller,
as an audit's are.
"""

from typing import Any

from torch import nn

from loopscope.interop.foreign.families.recurrent_depth import RecurrentDepth


class Huginn(RecurrentDepth):
    """Adapter of Huginn's `RavenForCausalLM` and `RecurrentGPT`."""

    family = "Huginn"

    def __init__(self, module: Any) -> None:
        noise = getattr(getattr(module, "config", None), "test_time_noise", 0)
        if noise:
            raise ValueError(
                f"config.test_time_noise is {noise}: every loop adds random noise, so no two runs agree. "
                "Set config.test_time_noise = 0 first"
            )
        super().__init__(module)

    @staticmethod
    def recognises(module: nn.Module) -> bool:
        return RecurrentDepth.has_parts(module) and not hasattr(module.transformer, "C")
