"""The alpha readout: a dial from scale-invariant (0) to raw (1).

Features are s_ref^(1-alpha) · s^alpha · u with s the RMS of H_k over dim and u = H_k / s; no gain vector.
Computed in the logarithm of s, so scales in the tens of thousands are as exact as scales near 1.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.model.config import ModelConfig, ReadoutConfig
from loopscope.model.config.variants import READOUTS
from loopscope.model.readouts.base import AbstractReadout
from loopscope.numerics import wide


class AlphaReadout(AbstractReadout):
    """One exponent and one reference scale, or one of each per trained loop.

    In `ema` mode the reference follows the mean log scale, once per readout in training mode and never
    in evaluation; the first batch sets it.
    """

    declaration = READOUTS.shipped["alpha"].declaration

    log_s_ref: Tensor
    ema_count: Tensor
    alpha_value: Tensor

    def __init__(self, config: ReadoutConfig, loops: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.config = config
        self.eps = eps
        count = loops if config.per_loop else 1
        low, high = config.alpha_min, config.alpha_max
        if config.learned:
            share = (config.alpha - low) / (high - low)
            share = min(max(share, 1e-4), 1 - 1e-4)  # a sigmoid at 0 or 1 could never learn
            self.alpha_logit = nn.Parameter(torch.full((count,), math.log(share / (1 - share))))
        else:
            self.register_buffer("alpha_value", torch.full((count,), config.alpha))
        start = torch.full((count,), math.log(config.s_ref_value))
        if config.s_ref == "learned":
            self.log_s_ref = nn.Parameter(start)
        else:
            self.register_buffer("log_s_ref", start)
        self.register_buffer("ema_count", torch.zeros(count, dtype=torch.long))

    @classmethod
    def from_config(cls, config: ModelConfig, settings: Any) -> "AlphaReadout":
        return cls(config.readout, config.loops, config.norm_eps)

    def _index(self, loop: int) -> int:
        return min(loop, self.log_s_ref.numel()) - 1

    def alpha(self, loop: int) -> Float[Tensor, ""]:
        """Return the exponent in use at `loop`."""
        index = self._index(loop)
        if not self.config.learned:
            return self.alpha_value[index]
        low, high = self.config.alpha_min, self.config.alpha_max
        return low + (high - low) * torch.sigmoid(self.alpha_logit[index])

    def forward(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, loops: int
    ) -> Float[Tensor, "batch seq dim"]:
        # fp32: log s feeds an exponential, where bf16's 8 bits would show as whole percents.
        state = wide(hidden)
        s = state.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=self.eps)
        log_s = s.log()
        if self.training and self.config.s_ref == "ema":
            self._follow(log_s.detach().mean(), self._index(loop))
        alpha = self.alpha(loop)
        # A copy, because the moving average is updated in place before this loop's backward pass runs.
        log_s_ref = self.log_s_ref[self._index(loop)]
        if self.config.s_ref != "learned":
            log_s_ref = log_s_ref.detach().clone()
        gain = ((1 - alpha) * log_s_ref + alpha * log_s).exp()
        return (gain / s * state).to(hidden.dtype)

    @torch.no_grad()
    def _follow(self, log_s: Float[Tensor, ""], index: int) -> None:
        decay = self.config.ema_decay
        follow = decay * self.log_s_ref[index] + (1 - decay) * log_s
        self.log_s_ref[index] = torch.where(self.ema_count[index] == 0, log_s, follow)
        self.ema_count[index] += 1

    @torch.no_grad()
    def scale_exponent(self, loop: int, loops: int) -> float:
        return float(self.alpha(loop))
