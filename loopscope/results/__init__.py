"""Frozen records of what was run, measured and audited, and their round-trip through JSON.

Every figure that Loopscope draws comes from these records, never from live objects.

    layout        what lies where in run and study folders, and writing whole files
    checkpoints   which checkpoint of a run is read: the newest that is whole, or the best
    exit_status   what a process ends with that a scheduler may start again
    manifest      hashes of a folder's files, held against them wherever they are read
    fingerprint   which model a folder of transformers holds, for what is measured of it
    tensor_file   reading and writing safetensors, with messages that name the file
    shards        weights and optimizer state in a file per process
    tied_weights  whether a file and a model have the same tensors tied
    faults        what the operating system refused, in a sentence
    lock          one writer a folder
    runs          what was run and how it ended; monitoring: the scale monitor's checks
    run_phases    the steps of a run that had one objective
    audits        what audits saw; static_audits: what a config says
    rounded_runs  a model in other number formats; resting_scales: how firmly its scale is held
    scale_trends  where a run's scale is going, from its own training
    evaluations   what every depth and exit is worth; prognoses: what more loops are foretold to do
    retrofits     where a model comes from that was looped after it was trained
    comparisons   conditions beside each other, at every depth
    task_scores   benchmarks of a model at several depths
    logit_lens    what every exit says after every token of a text
    origin        when, where and with what a record was made
    codec         records to JSON and back; readable: records as people see them
    student_t     intervals over seeds

Standard library only (and, inside functions, the libraries of locks and tensor files), so that reports and scripts can
read results without loading torch.
"""

from loopscope.results.audits import (
    REMOVED,
    SEEN,
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
    SideScale,
    TokenNorms,
    Verdict,
    audit_values,
    audits_from_json,
    load_audits,
)
from loopscope.results.checkpoints import best_checkpoint, model_folder, whole_checkpoint
from loopscope.results.codec import decode, to_json
from loopscope.results.comparisons import (
    Beyond,
    Comparison,
    DepthVerdict,
    Difference,
    EqualFlops,
    Interval,
    Matched,
    Option,
    load_comparison,
)
from loopscope.results.evaluations import (
    Calibration,
    CurveReading,
    DepthCurve,
    ExitCurve,
    ExitEvaluation,
    ExitPoint,
    LoopQuality,
    ModelEvaluation,
    Speed,
    load_evaluation,
)
from loopscope.results.fingerprint import model_fingerprint
from loopscope.results.judgements import JudgedModel, Judgement, judged_values
from loopscope.results.layout import (
    COMPARISON,
    EVALUATION,
    first_runs,
    is_study,
    newest_checkpoint,
    run_folder,
    trained_runs,
)
from loopscope.results.lock import FolderHeldError, hold
from loopscope.results.logit_lens import Guess, LensLoop, LogitLens, TokenView
from loopscope.results.monitoring import ScaleCheck, ScaleEvent, check_from_figures
from loopscope.results.origin import Provenance, provenance
from loopscope.results.prognoses import FATES, Fate, ForetoldDepth, LoopSigns, Prognosis, fate_of
from loopscope.results.resting_scales import RestingScale, RestingStatus, WantedScale
from loopscope.results.retrofits import RetrofitRecord
from loopscope.results.rounded_runs import (
    ROUNDED_BY_DEFAULT,
    ROUNDING_WORST_FIRST,
    RoundedLoop,
    Rounding,
    RoundingOutcome,
)
from loopscope.results.run_phases import RunPhase
from loopscope.results.runs import (
    SCHEMA,
    EvalPoint,
    Failure,
    LoopMetrics,
    RunResult,
    Status,
    StudyResults,
    TrainPoint,
    bits_per_byte,
    load_results,
    perplexity,
    run_from_json,
    study_from_json,
)
from loopscope.results.scale_trends import ScaleTrend
from loopscope.results.static_audits import StaticAudit, StaticLoop, StaticPhase
from loopscope.results.task_scores import TaskEvaluation, TaskMetric, TaskScores, load_tasks

__all__ = [
    "COMPARISON",
    "EVALUATION",
    "FATES",
    "REMOVED",
    "ROUNDED_BY_DEFAULT",
    "ROUNDING_WORST_FIRST",
    "SCHEMA",
    "SEEN",
    "WORST_FIRST",
    "AuditReport",
    "AuditedModel",
    "Beyond",
    "Calibration",
    "Carry",
    "Clamped",
    "Comparison",
    "CurveReading",
    "DepthCurve",
    "DepthVerdict",
    "Difference",
    "EqualFlops",
    "EvalPoint",
    "ExitCurve",
    "ExitEvaluation",
    "ExitPoint",
    "Expansion",
    "Failure",
    "Fate",
    "Fit",
    "FolderHeldError",
    "ForetoldDepth",
    "Guess",
    "Interval",
    "JudgedModel",
    "Judgement",
    "LensLoop",
    "LogitLens",
    "LoopDynamics",
    "LoopMetrics",
    "LoopQuality",
    "LoopSigns",
    "LoopVerdict",
    "LoopVisibility",
    "Matched",
    "ModelEvaluation",
    "Option",
    "Prognosis",
    "Provenance",
    "Radial",
    "Remedy",
    "RestingScale",
    "RestingStatus",
    "RetrofitRecord",
    "RoundedLoop",
    "Rounding",
    "RoundingOutcome",
    "RunPhase",
    "RunResult",
    "ScaleCheck",
    "ScaleEvent",
    "ScaleTrend",
    "SideScale",
    "Speed",
    "StaticAudit",
    "StaticLoop",
    "StaticPhase",
    "Status",
    "StudyResults",
    "TaskEvaluation",
    "TaskMetric",
    "TaskScores",
    "TokenNorms",
    "TokenView",
    "TrainPoint",
    "Verdict",
    "WantedScale",
    "audit_values",
    "audits_from_json",
    "best_checkpoint",
    "bits_per_byte",
    "check_from_figures",
    "decode",
    "fate_of",
    "first_runs",
    "hold",
    "is_study",
    "judged_values",
    "load_audits",
    "load_comparison",
    "load_evaluation",
    "load_results",
    "load_tasks",
    "model_fingerprint",
    "model_folder",
    "newest_checkpoint",
    "perplexity",
    "provenance",
    "run_folder",
    "run_from_json",
    "study_from_json",
    "to_json",
    "trained_runs",
    "whole_checkpoint",
]
