"""The static reading against measured gradients and carries, over configs drawn from the whole family.

In float64, with every parameter moved off its start value and norms without eps to speak of: what the config says
nothing sees must have no radial gradient, what it says is seen must have one, and the carry must be what it says.
"""

import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from loopscope.audit.carry import measure_carries
from loopscope.audit.total_visibility import measure_visibility
from loopscope.audit.verdict import loop_verdicts
from loopscope.config.run_config import RunConfig, parse_config
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.objective import build_objective
from loopscope.plan.scale_facts import step_does
from loopscope.plan.static_audit import TERMS, audit_config
from loopscope.recurrence import LoopState, unroll
from tests.fixtures import open_verdicts

IDS = torch.randint(24, (2, 6), generator=torch.Generator().manual_seed(5))
LABELS = (IDS * 5 + 2) % 24
NIL = 1e-9
"""Nats per e-fold, in float64. What is nil measures below 1e-12, what is seen above 1e-6."""


@st.composite
def configs(draw: Any) -> RunConfig:
    loops = draw(st.integers(1, 4))
    steps = st.sampled_from(["rmsnorm", "layernorm", "readout-norm", "damping", "decay"])
    carry = draw(st.just([]) | st.just(["damping"]) | st.lists(steps, max_size=2, unique=True))
    gate = draw(st.booleans())
    model = {
        "dim": 16,
        "layers": draw(st.integers(1, 2)),
        "heads": 2,
        "loops": loops,
        "vocabulary": 24,
        "sequence": 6,
        "initialisation": "published",
        "norm_eps": 1e-14,
        "readout": draw(
            st.sampled_from(
                [
                    "rmsnorm",
                    "rmsnorm",
                    "layernorm",
                    "raw",
                    "final-only",
                    {"kind": "alpha", "alpha": 0.4},
                    {"kind": "alpha", "alpha": 0.0},
                ]
            )
        ),
        "carry": carry,
        "prelude": draw(st.integers(0, 1)),
        "coda": draw(st.integers(0, 1)),
        "coda_norm": draw(st.booleans()),
        "start": draw(st.sampled_from(["embedding", "zero", "random"])),
        "injection": draw(
            st.sampled_from(["none", "add", "gated", "concat", "write", {"kind": "add", "norm": True}])
        ),
        "loop_embedding": draw(st.sampled_from(["none", "learned", "sinusoidal", "modulation"])),
        "looped": draw(st.sampled_from(["all", "attention"])),
        "block": {
            "placement": draw(st.sampled_from(["pre", "sandwich", "sandwich-sum", "post"])),
            "scaling": draw(
                st.sampled_from(["none", "1/N", "1/sqrt(N)", "1/(N*sqrt(L))", "deepnorm", "deeploop"])
            ),
            "norm": draw(st.sampled_from(["rmsnorm", "layernorm"])),
        },
        "attention": {
            "qk_norm": draw(st.booleans()),
            "value_embeddings": draw(st.sampled_from(["none", "added", "gated"])),
        },
        "adapters": draw(st.sampled_from([0, 2])),
        "exit_gate": gate,
        "gate_reads": draw(st.sampled_from(["hidden", "readout"])) if gate else "hidden",
    }
    weights = st.none() | st.lists(st.sampled_from([0.0, 1.0]), min_size=loops, max_size=loops).filter(any)
    placement = draw(st.sampled_from(["terminal", "dense", "exit-weighted", "gate-improvement"]))
    objective: dict[str, Any] = {"placement": placement}
    if placement == "dense":
        objective["loop_weights"] = draw(weights)
    for name in ("norm_penalty", "scale_anchor"):
        if draw(st.integers(0, 3)) == 0:
            each = draw(weights)
            objective[name] = (
                {"weight": 0.1, "over": "each", "loop_weights": each} if each else {"weight": 0.1}
            )
    if draw(st.integers(0, 5)) == 0:
        objective["shortcut"] = {"weight": 0.1}
    if draw(st.integers(0, 5)) == 0:
        objective["jacobian"] = {"weight": 0.1, "through_state": True}
    values = {"model": model, "objective": objective, "data": {"tokenizer": {"vocabulary": 24}}}
    try:
        return parse_config(values, "drawn")
    except ValueError:  # settings that contradict each other: refused elsewhere, with a reason
        assume(False)
        raise


def moved(config: RunConfig) -> LoopedTransformer:
    """A model none of whose parameters is where it starts, so that no gradient is nil by accident."""
    torch.manual_seed(0)
    model = LoopedTransformer(config.model).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.bias"):
                continue  # a LayerNorm's shift is not part of the state's size; it fades beside it
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


seen_kinds: set[str] = set()


@settings(
    max_examples=250,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    derandomize=True,
)
@given(configs())
def check_a_config(config: RunConfig) -> None:
    model, objective = moved(config), build_objective(config.objective)
    read = audit_config(config)
    measured = measure_visibility(model, objective, IDS, LABELS)
    for loop in measured:
        sees = [name for name, term in TERMS.items() if term(config.model, config.objective, loop.loop)]
        found = sum(entry.absolute for entry in loop.direct.values())
        assert (found > NIL) == bool(sees), (loop.loop, found, sees, loop.direct)
    with torch.no_grad():
        states = list(unroll(model, IDS))
        large = [LoopState(s.loop, s.hidden * 1e6, s.model, s.context) for s in states]
    whole = measure_carries(large)
    removes = step_does(config.model).effect == "removes"
    for carry in whole:
        if removes:
            assert abs(carry.mean) < 1e-3
        else:
            assert carry.mean == pytest.approx(1, abs=0.02)
    seen_kinds.add(read.verdict)
    # At a scale where a norm's branches are small beside the state, the measured verdict is the read one.
    verdicts = loop_verdicts(measured, whole)
    saturating = any(
        TERMS["the exit gate (which may saturate)"](config.model, config.objective, loop)
        for loop in range(1, config.model.loops + 1)
    )
    if not saturating:
        for said, found in zip(read.loops, verdicts, strict=True):
            assert found.status in open_verdicts(config, said), (said, found)


@pytest.mark.slow
def test_a_sample_of_the_family() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # settings without effect warn
        check_a_config()
    assert seen_kinds == {"blind", "visible", "damped", "removed"}
