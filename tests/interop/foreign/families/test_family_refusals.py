"""What no family's adapter can run is refused by name."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from x_transformers import Decoder, TransformerWrapper

import loopscope
from loopscope.interop.foreign.adapt import ADAPTERS
from tests.interop import lookalikes
from tests.interop.foreign.families.fixtures import IDS, LABELS, Case, each_case, x_transformer


@each_case
def test_an_adapter_that_disagrees_is_refused(case: Case) -> None:
    """A version whose forward does one thing more than the adapter knows."""

    class Drifted(case.make().__class__):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            if isinstance(output, Tensor):
                return output * 1.01
            if isinstance(output, dict) and not hasattr(output, "logits"):
                logits = output["logits"]
                return {**output, "logits": None if logits is None else logits * 1.01}
            output.logits = output.logits * 1.01
            return output

    torch.manual_seed(0)
    module = case.make()
    module.__class__ = Drifted
    with pytest.raises(ValueError, match=r"the logits differ by up to .* Use loopscope.wrap"):
        loopscope.adapt(module)


def test_unknown_modules_are_told_of_wrap() -> None:
    class Unknown(nn.Module):
        """LoopLM, with its parts under other names than those that it is known by."""

        def __init__(self) -> None:
            super().__init__()
            inner = lookalikes.LoopLM()
            self.stack, self.lm_head, self.rest = inner.layers, inner.lm_head, [inner]

        def forward(self, ids: Tensor, num_steps: int | None = None) -> Any:
            return self.rest[0](ids, num_steps)

    names = "|".join(family.family for family in ADAPTERS).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(
        ValueError, match=rf"({names}).*loopscope.wrap\(module, 'stack', set_loops='num_steps'\)"
    ):
        loopscope.adapt(Unknown())
    with pytest.raises(ValueError, match="module is str"):
        loopscope.adapt("ByteDance/Ouro-1.4B")
    plain = TransformerWrapper(num_tokens=9, max_seq_len=4, attn_layers=Decoder(dim=32, depth=1, heads=1))
    with pytest.raises(ValueError, match="without looped=True: it is not a loop"):
        loopscope.adapt(plain)
    with pytest.raises(ValueError, match="OuroForCausalLM.*loopscope.adapt.*loopscope.wrap"):
        loopscope.audit(lookalikes.OuroForCausalLM(), IDS, LABELS)


@pytest.mark.parametrize("config", [SimpleNamespace(), None])
def test_a_module_without_its_trained_depth_is_refused(config: Any) -> None:
    torch.manual_seed(0)
    module = lookalikes.RavenForCausalLM()
    module.config = config
    with pytest.raises(ValueError, match=r"the parts of Huginn, but no config\.mean_recurrence"):
        loopscope.adapt(module)
    del module.config
    with pytest.raises(ValueError, match=r"no config\.mean_recurrence"):
        loopscope.adapt(module)


def test_what_cannot_be_reproduced_is_refused_by_name() -> None:
    noisy = lookalikes.RavenForCausalLM()
    noisy.config.test_time_noise = 0.1
    with pytest.raises(ValueError, match="Set config.test_time_noise = 0"):
        loopscope.adapt(noisy)
    unset = lookalikes.OuroForCausalLM()
    nn.init.constant_(unset.lm_head.weight, torch.nan)
    with pytest.raises(ValueError, match="not finite: its weights may never have been set"):
        loopscope.adapt(unset)
    broken = lookalikes.OuroForCausalLM()
    del broken.model.embed_tokens
    with pytest.raises(ValueError, match="looks like Ouro, but cannot be run as such .*embed_tokens"):
        loopscope.adapt(broken)
    for settings, word in (
        ({"use_cls_token": True}, "use_cls_token"),
        ({"mixture_of_softmax": True}, "mixture_of_softmax"),
        ({"num_output_heads": 2}, "num_output_heads"),
    ):
        with pytest.raises(ValueError, match=f"built with {word}"):
            loopscope.adapt(x_transformer(**settings))
