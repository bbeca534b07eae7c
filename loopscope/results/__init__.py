"""Frozen records of what was run, measured and audited, and their round-trip through JSON.

Standard library only, so that reports and scripts can read results without loading torch. Every figure
that Loopscope draws comes from these records, never from live objects.
"""

from loopscope.results.audits import (
    WORST_FIRST,
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
    StaticAudit,
    StaticLoop,
    TokenNorms,
    Verdict,
    audit_values,
    audits_from_json,
    load_audits,
)
from loopscope.results.codec import decode, to_json
from loopscope.results.origin import Provenance, provenance
from loopscope.results.runs import (
    SCHEMA,
    EvalPoint,
    Failure,
    LoopMetrics,
    RunResult,
    Status,
    StudyResults,
    TrainPoint,
    load_results,
    run_from_json,
    study_from_json,
)

__all__ = [
    "SCHEMA",
    "WORST_FIRST",
    "AuditReport",
    "AuditedModel",
    "Carry",
    "Clamped",
    "EvalPoint",
    "Expansion",
    "Failure",
    "Fit",
    "LoopDynamics",
    "LoopMetrics",
    "LoopVerdict",
    "LoopVisibility",
    "Provenance",
    "Radial",
    "Remedy",
    "RunResult",
    "StaticAudit",
    "StaticLoop",
    "Status",
    "StudyResults",
    "TokenNorms",
    "TrainPoint",
    "Verdict",
    "audit_values",
    "audits_from_json",
    "decode",
    "load_audits",
    "load_results",
    "provenance",
    "run_from_json",
    "study_from_json",
    "to_json",
]
