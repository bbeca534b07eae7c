"""Labels, targets and masks that a forward needs: it gets them in unrolls, curves and exits as in audits."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import loopscope
from loopscope.evaluation import build_rule, depth_curves, early_exit, record_exits
from loopscope.recurrence import unroll
from tests.interop.fixtures import VOCABULARY, Plain, build


class Demanding(Plain):
    """Without targets it gives the last position's logits; it views what it is given, as training code does."""

    def forward(
        self, ids: Tensor, targets: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Any:
        assert attention_mask is not None
        assert attention_mask.shape == ids.shape
        x = self.tokens(ids.view(-1)).view(*ids.shape, -1) * attention_mask.view(-1).view(*ids.shape, 1)
        for _ in range(self.config.loops):
            x = self.stack(x)
        logits = self.lm_head(self.norm(x))
        if targets is None:
            return logits[:, -1:], None
        return logits, F.cross_entropy(logits.view(-1, VOCABULARY), targets.view(-1))


def arguments(ids: Tensor) -> dict[str, Tensor]:
    return {"targets": ids, "attention_mask": ids != 0}


def test_slices_of_a_batch_reach_a_forward_that_views_them() -> None:
    module = build(Demanding)
    model = loopscope.wrap(module, "layers", forward_kwargs=arguments)
    tokens = torch.arange(24).view(2, 12) * 7 % VOCABULARY
    ids, labels = tokens[:, :-1], tokens[:, 1:]
    assert not ids.is_contiguous()
    own = module(ids.contiguous(), **arguments(ids.contiguous()))[0]
    with torch.no_grad():
        *_, last = unroll(model, ids)
        assert torch.allclose(last.logits(), own, atol=1e-5)
        assert torch.allclose(model(ids), own, atol=1e-5)
    due = float(F.cross_entropy(own.flatten(0, 1), labels.flatten()))
    (curve,) = depth_curves(model, [(ids, labels)], 1.0, 3)
    assert abs(curve.per_loop[-1].loss - due) < 1e-4
    record = record_exits(model, [(ids, labels)], [build_rule("logit-margin")], 1.0)
    assert abs(float(record.losses[-1].mean()) - due) < 1e-4
    left = early_exit(model, ids, build_rule("logit-margin"), float("inf"))
    assert torch.allclose(left.logits, own, atol=1e-5)
    report = loopscope.audit(model, ids, labels)
    assert abs(report.cross_entropy[-1] - due) < 1e-4
