"""Synthetic audits, clearly so: figures from formulas, for tests of drawing only."""

import math
from typing import Any

from loopscope.results import (
    AuditedModel,
    AuditReport,
    Carry,
    Clamped,
    Expansion,
    Fit,
    LoopDynamics,
    LoopVerdict,
    LoopVisibility,
    Radial,
    Remedy,
    TokenNorms,
    Verdict,
    provenance,
)


def make_report(verdict: Verdict = "blind", depth: int = 4, /, **changes: Any) -> AuditReport:
    """Loop k has scale 2k, carry 1 - 1 / (2k), and an exposure of 1e-8 (blind, damped, removed) or 1."""
    exposure = {"visible": 1.0}.get(verdict, 1e-8)
    every = range(1, depth + 1)
    carry = [0.0 if verdict == "removed" else 1 - 1 / (2 * k) for k in every]
    deep = range(1, 4 * depth + 1)
    own = tuple(5.0 - k / depth for k in every)
    values: dict[str, Any] = {
        "verdict": verdict,
        "why": f"made up: {verdict}",
        "objective": "dense",
        "terms": tuple(f"cross_entropy@{k}" for k in every),
        "loops": tuple(
            LoopVerdict(k, verdict, exposure, c, exposure, 30 * exposure) for k, c in zip(every, carry, strict=True)
        ),
        "cross_entropy": own,
        "visibility": tuple(
            LoopVisibility(
                loop=k,
                direct={f"cross_entropy@{k}/readout": Radial(exposure, exposure, 0.25)},
                total={
                    **{f"cross_entropy@{j}": Radial(-0.5 / j, 0.5 / j, 0.1) for j in range(k, depth + 1)},
                    "loss": Radial(-0.75, 0.75, 0.1),
                },
                grown=30 * exposure,
                readout_response=float(verdict == "visible"),
                readout_response_grown=float(verdict == "visible"),
            )
            for k in every
        ),
        "readout": tuple(Radial(exposure, exposure, 0.25) for _ in every),
        "carry": tuple(Carry(k, c, 0.01, 1.0, 1.0) for k, c in zip(every, carry, strict=True)),
        "expansion": Expansion(
            rms=tuple(2.0 * k for k in deep),
            l2_norm=tuple(16.0 * k for k in deep),
            radial_increment=(2.0,) * (len(deep) - 1),
            angular_step=tuple(1 / (2.0 * k) for k in deep[:-1]),
            step_size=tuple(1.0 / k for k in deep[:-1]),
            direction_cosine=tuple(1 - 0.1 / k for k in deep[:-1]),
            update_cosine=tuple(1 - 0.2 / k for k in deep[:-2]),
            growth=Fit(2.0, 0.0, 1.0) if len(deep) > 2 else None,
            turning=Fit(1.0, 0.0, 1.0) if len(deep) > 3 else None,
        ),
        "dynamics": tuple(LoopDynamics(k, 1 + 0.1 / k, 1 - 0.1 / k, 1.0, k != 2) for k in every),
        "tokens": tuple(
            TokenNorms(k, 64, 11.0 * k, 10.0 * k, 30.0 * k, 40.0 * k, 5.0 * k, 3.0 * k, 0.09, 0.4,
                       ((0, 3, 17, 40.0 * k), (1, 5, 18, 30.0 * k)))
            for k in every
        ),
        "final_scale_sweep": {"0.1": 4.25, "1": 4.0, "10": 4.5},
        "radial_clamp": {
            "none": Clamped(own, own, own),
            "freeze_loop1": Clamped(tuple(value + 0.25 for value in own), own, own),
            "remove_radial": Clamped(tuple(value + 0.5 for value in own), own, own),
        },
        "rescaled": {
            str(k): Clamped(tuple(value + 0.125 * k * (j >= k) for j, value in enumerate(own, 1)), own, own)
            for k in every
        },
        "remedies": (
            Remedy("add a norm penalty", "visible", 4.0, 0.0),
            Remedy("put a norm between loops", "removed", 4.75, 0.75),
        )
        if verdict in ("blind", "damped")
        else (),
        "notes": ("made up, not measured",),
    }  # fmt: skip
    return AuditReport(**{**values, **changes})


def make_audit(
    name: str = "made/up", verdict: Verdict = "blind", loops: int = 4, **changes: Any
) -> AuditedModel:
    """One audited model; `changes` are of the model, its report is made by `make_report`."""
    values: dict[str, Any] = {
        "name": name,
        "report": make_report(verdict, loops),
        "objective_from": "model",
        "others": (),
        "data": "made-up tokens",
        "batch": (8, 256),
        "parameters": 1_234_567,
        "token_texts": {"17": "\n", "18": " the"},
        "provenance": provenance("cpu", 1),
    }
    return AuditedModel(**{**values, **changes})


NAN = math.nan


def broken_report(loops: int = 3) -> AuditReport:
    """Where nothing could be measured: no number is finite, no line fits, nothing was tried."""
    nothing = Radial(NAN, NAN, NAN)
    every = range(1, loops + 1)
    clamped = Clamped((NAN,) * loops, (math.inf,) * loops, (math.inf,) * loops)
    return make_report(
        "blind",
        loops,
        loops=tuple(LoopVerdict(k, "blind", NAN, NAN, math.inf, NAN) for k in every),
        cross_entropy=(NAN,) * loops,
        visibility=tuple(
            LoopVisibility(k, {"cross_entropy/readout": nothing}, {"loss": nothing}, NAN, NAN, NAN) for k in every
        ),
        readout=(nothing,) * loops,
        expansion=Expansion((NAN,) * 12, (NAN,) * 12, (NAN,) * 11, (NAN,) * 11, (math.inf,) * 11, (NAN,) * 11,
                            (NAN,) * 10, None, None),
        dynamics=tuple(LoopDynamics(k, NAN, math.inf, NAN, False) for k in every),
        tokens=tuple(TokenNorms(k, 4, NAN, NAN, NAN, math.inf, NAN, NAN, NAN, NAN, ()) for k in every),
        final_scale_sweep={"1": NAN, "odd": 2.0},
        radial_clamp={"none": clamped},
        rescaled={"1": clamped},
        remedies=(Remedy("try", "blind", NAN, NAN),),
    )  # fmt: skip
