"""What a config says of its loops, against measurements, on a sample of the whole family."""

import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from loopscope.audit.carry import measure_carries
from loopscope.audit.total_visibility import measure_visibility
from loopscope.audit.verdict import loop_verdicts
from loopscope.config.run_config import RunConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.objective import build_objective
from loopscope.plan.static_audit import audit_config
from loopscope.recurrence import unroll
from tests.fixtures import open_verdicts

IDS = torch.arange(48).view(3, 16) * 7 % 60
LABELS = (IDS * 11 + 5) % 60
EXAMPLES = 220


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Values of a valid config: architecture × carry × readout × placement × penalty."""
    placement = draw(st.sampled_from(["pre", "pre", "sandwich", "sandwich-sum", "post"]))
    scaling = ["none", "1/N", "1/sqrt(N)", "1/(N*sqrt(L))"]
    injection = draw(st.sampled_from(["none", "none", "add", "gated", "concat", "write"]))
    readout = draw(
        st.sampled_from(
            ["rmsnorm", "rmsnorm", "layernorm", "raw", "final-only", {"kind": "alpha", "alpha": 0.5}]
        )
    )
    normed = readout in ("rmsnorm", "layernorm")
    initialisation = draw(st.sampled_from(["published", "scaled"]))
    # Where weights start at a hundredth, what a coda shows fades below the audit's threshold: not drawn.
    coda = draw(st.sampled_from([0, 0, 1])) if initialisation == "published" else 0
    carry = draw(st.lists(st.sampled_from(["rmsnorm", "layernorm", "damping"]), unique=True, max_size=1))
    if injection == "write" or (injection != "none" and draw(st.booleans())):
        carry.append("decay")
    if normed and draw(st.integers(0, 5)) == 0:
        carry.append("readout-norm")
    scaling += ["deepnorm", "deeploop"] if placement == "post" else []
    loss = draw(st.sampled_from(["terminal", "dense", "dense", "exit-weighted"]))
    reads = draw(st.sampled_from(["hidden", "readout"])) if loss == "exit-weighted" else "hidden"
    embedding = ["none", "none", "learned", "sinusoidal", *(["modulation"] if placement == "pre" else [])]
    return {
        "model": {
            "dim": 32,
            "heads": 4,
            "layers": draw(st.integers(1, 2)),
            "loops": draw(st.integers(2, 4)),
            "vocabulary": 60,
            "sequence": 16,
            "initialisation": initialisation,
            "norm_eps": 1e-12,  # a config cannot know how small a state is against a norm's eps
            "prelude": draw(st.integers(0, 1)),
            "coda": coda,
            "coda_norm": bool(coda and normed and draw(st.booleans())),
            "start": draw(st.sampled_from(["embedding", "zero", "random"]))
            if injection != "none"
            else "embedding",
            "injection": {"kind": injection, "norm": injection != "none" and draw(st.booleans())},
            "block": {
                "placement": placement,
                "scaling": draw(st.sampled_from(scaling)),
                "activation": draw(st.sampled_from(["swiglu", "gelu", "gelu-tanh", "gelu-new", "relu2"])),
            },
            "attention": {
                "qk_norm": draw(st.booleans()),
                "key_value_heads": draw(st.sampled_from([None, 2])),
                "qk_bias": draw(st.booleans()),
                "value_embeddings": draw(st.sampled_from(["none", "added", "gated"])),
            },
            "loop_embedding": draw(st.sampled_from(embedding)),
            "looped": draw(st.sampled_from(["all", "all", "attention"])),
            "adapters": {"rank": draw(st.sampled_from([0, 0, 2]))},
            "carry": carry,
            "readout": readout,
            "exit_gate": loss == "exit-weighted",
            "gate_reads": reads,
        },
        "objective": {
            "placement": loss,
            "norm_penalty": {"weight": draw(st.sampled_from([0.0, 0.0, 0.0, 0.1]))},
            "shortcut": {"weight": draw(st.sampled_from([0.0, 0.0, 0.1]))},
        },
        "data": {"tokenizer": {"vocabulary": 60}},
    }


@pytest.mark.slow
@given(values=configs(), seed=st.integers(0, 2**31))
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_the_reading_is_the_measurement(values: dict[str, Any], seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = RunConfig(**values)
    torch.manual_seed(seed)
    model = LoopedTransformer(config.model).eval()
    with torch.no_grad():  # what starts at zero (gates of modulated layers, adapters) would have no say
        for parameter in model.parameters():
            if not parameter.any():
                parameter.add_(0.1 * torch.randn_like(parameter))
    objective = build_objective(config.objective)
    seen = measure_visibility(model, objective, IDS, LABELS)
    with torch.no_grad():
        states = list(unroll(model, IDS))
        measured = loop_verdicts(seen, measure_carries(states))
    read = audit_config(config)
    event(f"{read.verdict}, {len({loop.status for loop in read.loops})} kinds of loop")
    for said, found in zip(read.loops, measured, strict=True):
        assert found.status in open_verdicts(config, said), (
            said,
            [(loop.status, loop.exposure, loop.exposure_grown, loop.carry) for loop in measured],
        )
