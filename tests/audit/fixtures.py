"""Tiny models for tests of the audit, and their audits."""

from typing import Any

import torch

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.audit.carry import measure_carries
from loopscope.audit.verdict import model_verdict
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll

LOOPS = 3

IDS = torch.arange(24).view(2, 12)

LABELS = (IDS * 7 + 1) % 40


def make(**settings: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    values = {"dim": 32, "heads": 4, "loops": LOOPS, "vocabulary": 40, "sequence": 12}
    return LoopedTransformer(ModelConfig(**{**values, "initialisation": "published", **settings})).eval()


def audit(model: LoopedTransformer, **objective: Any) -> Any:
    return loopscope.audit(model, IDS, LABELS, build_objective(ObjectiveConfig(**objective)))


def verdict(model: LoopedTransformer, **objective: Any) -> Any:
    """The model's verdict alone: what an audit says of it, without all else that it measures."""
    return model_verdict(judge(model, IDS, LABELS, build_objective(ObjectiveConfig(**objective))).loops)


def carried(model: LoopedTransformer, loops: int = LOOPS) -> list[Any]:
    with torch.no_grad():
        return measure_carries(list(unroll(model, IDS, loops)))
