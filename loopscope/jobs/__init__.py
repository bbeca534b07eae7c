"""A path or a config in, a record out: train, study, audit, evaluate, generate, export, import.

    train               one run: config to folder and result; `folder` is whose the folder is,
                        `resumption` where and how long it goes on
    study               conditions × seeds in one folder, by one process or several; study_cells are its runs,
                        study_folder says whose it is, study_results collects them, study_order is the order of its
                        conditions
    side_by_side        runs of a study at the same time, in processes (cell_worker) that have a share of the machine
                        (places); study_board is the table that people see, cell_rows what stands in it
    launched            runs of a study as jobs (cell_job, job_signals) of a scheduler: slurm_jobs, local_jobs;
                        submitted is which job has which run, lost_run a record of one that left none
    opened, text        from a path to a model with what it knows of itself, and to windows of text
    audit               from a path to an audited model; judged_phase: of a schedule of objectives, the one to judge by
    evaluate            the record that a model's evaluation is kept in; evaluate_depth, evaluate_exits: its parts;
                        evaluate_tasks: benchmarks by depth, in a record of their own; task_tokenizer reads for them;
                        evaluation_series: several models, with what is done kept; evaluate_compare: conditions side
                        by side, from the runs and models that `sources` finds; shared_text is what models of
                        different tokenizers are compared on
    generate            settings from plain arguments; text_stream: text as it comes; text_batch: several texts
                        that differ in what is asked of them
    planned_runs        what train and study would make: everything is checked, nothing written
    run_trackers        what trackers are told of a run
    listed_runs         runs and studies in a folder, and how far each is
    counted_flops       FLOPs of a model that no formula knows
    lens                what every exit says of a prompt
    retrofit            a model of transformers to a looped model folder
    import_published    a published checkpoint to a model folder
    machine             device and threads as a user names them; machine_report: what it has and how fast it is,
                        from machine_facts, with what is slow in machine_advice; device_timing: as one to plan for
    export              a run to a folder of transformers; export_tokenizer: its tokenizer as theirs; model_card:
                        what its README says; export_onnx: ONNX files beside it; export_summary: what it came to

`loopscope.generate` and the command line are made of these. Names are loaded on first use: most need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.interop.huggingface.retrofit_plan import RetrofitPlan as RetrofitPlan
    from loopscope.jobs.audit import audit_model as audit_model
    from loopscope.jobs.audit import audit_paths as audit_paths
    from loopscope.jobs.audit import judge_paths as judge_paths
    from loopscope.jobs.audit import parse_objective as parse_objective
    from loopscope.jobs.device_timing import measured_device as measured_device
    from loopscope.jobs.evaluate_compare import compare_study as compare_study
    from loopscope.jobs.evaluate_depth import depth_verdicts as depth_verdicts
    from loopscope.jobs.evaluate_depth import measure_depth as measure_depth
    from loopscope.jobs.evaluate_exits import ExitSettings as ExitSettings
    from loopscope.jobs.evaluate_exits import measure_exits as measure_exits
    from loopscope.jobs.evaluate_tasks import TaskSettings as TaskSettings
    from loopscope.jobs.evaluate_tasks import measure_tasks as measure_tasks
    from loopscope.jobs.evaluate_tasks import open_tasks as open_tasks
    from loopscope.jobs.evaluation_series import evaluate_series as evaluate_series
    from loopscope.jobs.export import ExportSettings as ExportSettings
    from loopscope.jobs.export import check_hub_name as check_hub_name
    from loopscope.jobs.export import export_run as export_run
    from loopscope.jobs.export import push_export as push_export
    from loopscope.jobs.export_onnx import add_onnx as add_onnx
    from loopscope.jobs.export_onnx import check_onnx as check_onnx
    from loopscope.jobs.export_summary import ExportSummary as ExportSummary
    from loopscope.jobs.export_summary import summarise_export as summarise_export
    from loopscope.jobs.generate import generate_text as generate_text
    from loopscope.jobs.import_published import convert_published as convert_published
    from loopscope.jobs.lens import lens_prompt as lens_prompt
    from loopscope.jobs.listed_runs import runs_below as runs_below
    from loopscope.jobs.machine import use_cpu_ops as use_cpu_ops
    from loopscope.jobs.machine import use_threads as use_threads
    from loopscope.jobs.machine_report import MachineReport as MachineReport
    from loopscope.jobs.machine_report import examine_machine as examine_machine
    from loopscope.jobs.opened import OpenedModel as OpenedModel
    from loopscope.jobs.opened import allow_remote_code as allow_remote_code
    from loopscope.jobs.opened import check_one as check_one
    from loopscope.jobs.opened import load_with as load_with
    from loopscope.jobs.opened import open_model as open_model
    from loopscope.jobs.planned_runs import PlannedRun as PlannedRun
    from loopscope.jobs.planned_runs import planned_run as planned_run
    from loopscope.jobs.planned_runs import planned_study as planned_study
    from loopscope.jobs.planned_runs import study_script as study_script
    from loopscope.jobs.retrofit import RetrofitSettings as RetrofitSettings
    from loopscope.jobs.retrofit import recipe_of as recipe_of
    from loopscope.jobs.retrofit import retrofit_model as retrofit_model
    from loopscope.jobs.run_trackers import add_to_trackers as add_to_trackers
    from loopscope.jobs.step_timing import timed_step as timed_step
    from loopscope.jobs.study import run_study as run_study
    from loopscope.jobs.study_order import ordered_first_runs as ordered_first_runs
    from loopscope.jobs.study_order import ordered_runs as ordered_runs
    from loopscope.jobs.text import TextWindows as TextWindows
    from loopscope.jobs.text import held_out as held_out
    from loopscope.jobs.text import some_windows as some_windows
    from loopscope.jobs.text_batch import TextBatch as TextBatch
    from loopscope.jobs.text_batch import generate_batch as generate_batch
    from loopscope.jobs.text_stream import TextStream as TextStream
    from loopscope.jobs.text_stream import stream_text as stream_text
    from loopscope.jobs.train import execute as execute

_HOMES = {
    "MachineReport": "machine_report",
    "examine_machine": "machine_report",
    "measured_device": "device_timing",
    "timed_step": "step_timing",
    "OpenedModel": "opened",
    "allow_remote_code": "opened",
    "ExitSettings": "evaluate_exits",
    "ExportSettings": "export",
    "ExportSummary": "export_summary",
    "TaskSettings": "evaluate_tasks",
    "TextBatch": "text_batch",
    "TextStream": "text_stream",
    "TextWindows": "text",
    "add_onnx": "export_onnx",
    "add_to_trackers": "run_trackers",
    "audit_model": "audit",
    "audit_paths": "audit",
    "judge_paths": "audit",
    "check_one": "opened",
    "check_onnx": "export_onnx",
    "compare_study": "evaluate_compare",
    "convert_published": "import_published",
    "depth_verdicts": "evaluate_depth",
    "evaluate_series": "evaluation_series",
    "execute": "train",
    "check_hub_name": "export",
    "export_run": "export",
    "push_export": "export",
    "generate_text": "generate",
    "held_out": "text",
    "lens_prompt": "lens",
    "runs_below": "listed_runs",
    "load_with": "opened",
    "measure_depth": "evaluate_depth",
    "measure_exits": "evaluate_exits",
    "measure_tasks": "evaluate_tasks",
    "open_model": "opened",
    "open_subject": "opened",
    "open_tasks": "evaluate_tasks",
    "ordered_first_runs": "study_order",
    "ordered_runs": "study_order",
    "parse_objective": "audit",
    "PlannedRun": "planned_runs",
    "planned_run": "planned_runs",
    "planned_study": "planned_runs",
    "study_script": "planned_runs",
    "RetrofitPlan": "retrofit",
    "RetrofitSettings": "retrofit",
    "recipe_of": "retrofit",
    "retrofit_model": "retrofit",
    "run_study": "study",
    "some_windows": "text",
    "stream_text": "text_stream",
    "summarise_export": "export_summary",
    "generate_batch": "text_batch",
    "use_cpu_ops": "machine",
    "use_threads": "machine",
}
__all__ = [
    "ExitSettings",
    "ExportSettings",
    "ExportSummary",
    "MachineReport",
    "OpenedModel",
    "PlannedRun",
    "RetrofitPlan",
    "RetrofitSettings",
    "TaskSettings",
    "TextStream",
    "TextWindows",
    "add_onnx",
    "add_to_trackers",
    "allow_remote_code",
    "audit_model",
    "audit_paths",
    "check_one",
    "check_onnx",
    "compare_study",
    "convert_published",
    "depth_verdicts",
    "evaluate_series",
    "examine_machine",
    "execute",
    "export_run",
    "generate_text",
    "held_out",
    "judge_paths",
    "lens_prompt",
    "load_with",
    "measure_depth",
    "measure_exits",
    "measure_tasks",
    "measured_device",
    "open_model",
    "open_tasks",
    "ordered_first_runs",
    "ordered_runs",
    "parse_objective",
    "planned_run",
    "planned_study",
    "push_export",
    "recipe_of",
    "retrofit_model",
    "run_study",
    "runs_below",
    "some_windows",
    "stream_text",
    "study_script",
    "summarise_export",
    "timed_step",
    "use_cpu_ops",
    "use_threads",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"loopscope.jobs.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'loopscope.jobs' has no attribute {name!r}")
