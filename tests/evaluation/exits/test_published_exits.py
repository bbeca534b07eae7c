"""The published code's exits, to 1e-4: fixed depths, and every policy's thresholds, mean loops and perplexity."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from loopscope.evaluation.exits.curves import exit_curve, fixed_points
from loopscope.evaluation.exits.record import record_exits
from loopscope.evaluation.exits.rules import build_rule
from loopscope.interop.published import read_published
from tests.fixtures import PUBLISHED

POLICIES = {
    "max_prob": "max-probability",
    "logit_margin": "logit-margin",
    "confidence_entropy": "entropy-confidence",
}


def close(found: object, expected: object) -> None:
    torch.testing.assert_close(
        torch.as_tensor(found).double(), torch.as_tensor(expected).double(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_exits_agree_with_the_published_code(name: str, fixtures: Path) -> None:
    folder = fixtures / name
    expected = json.loads((folder / "expected.json").read_text())["exit"]
    tensors = load_file(folder / "expected.safetensors")
    ids, labels = tensors["exit_input_ids"], tensors["exit_labels"]
    assert len(ids) == expected["sequences"]
    rules = [build_rule(ours) for ours in POLICIES.values()]
    record = record_exits(read_published(folder / "last.pt").model, [(ids, labels)], rules, 1.0)
    fixed = fixed_points(record)
    close([[point.mean_loops, point.perplexity] for point in fixed], expected["fixed"])
    for theirs, ours in POLICIES.items():
        points = exit_curve(record, build_rule(ours), "sequence").points
        found = [[point.threshold, point.mean_loops, point.perplexity] for point in points]
        close(found, expected["policies"][theirs])
