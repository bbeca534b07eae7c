"""Runs of a study as jobs: submitted once, through preemption and requeue, with whoever watches stopped, to results."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loopscope.config.slurm_request import SlurmRequest
from loopscope.config.study_launch import StudyLaunch
from loopscope.jobs import local_jobs, slurm_jobs
from loopscope.jobs import places as places_module
from loopscope.jobs.planned_runs import planned_study, study_script
from loopscope.jobs.study import run_study
from loopscope.jobs.submitted import read_submitted
from loopscope.results import load_results
from loopscope.results.layout import jobs_folder, newest_checkpoint, run_folder, step_in_name, submitted_file
from loopscope.results.lock import present_holder
from tests.fixtures import TINY, refusal
from tests.jobs.fake_slurm import install_slurm, on_path
from tests.jobs.fixtures import (
    OVER,
    PAIR,
    cache,  # noqa: F401 (a fixture)
    odd_variants,
    trained_steps,
    wait_for,
)
from tests.results.fixtures import start_holder

pytest.importorskip("submitit", reason="extra `slurm`")

LOCAL = StudyLaunch(launcher="local", at_once=2)
SLURM = StudyLaunch(launcher="slurm")
LONG = {**OVER, "training": {**OVER["training"], "steps": 10**6, "checkpoint_every": 10**6}}


@pytest.fixture(autouse=True)
def four_cores_and_short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "usable_cores", lambda: 4.0)
    for module, name in ((local_jobs, "LOCAL"), (slurm_jobs, "SLURM")):
        monkeypatch.setattr(module, f"{name}_POLL", 0.1)
        monkeypatch.setattr(module, f"{name}_PATIENCE", 0.5)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """Folder of a study whose jobs on this machine end with the test."""
    yield tmp_path / "study"
    for job in read_submitted(tmp_path / "study").values():
        if local_jobs.is_job(job, jobs_folder(tmp_path / "study")):
            os.kill(int(job.job), signal.SIGTERM)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster whose nodes are processes of this machine, which end with the test."""
    folder = tmp_path / "slurm"
    monkeypatch.setenv("PATH", on_path(install_slurm(folder)))
    yield folder
    for path in folder.glob("pid-*"):
        try:
            os.kill(int(path.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.slow
def test_jobs_of_this_machine_end_in_the_results_of_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """submitit calls a job that failed FINISHED: what counts is the run's own result, also of one that diverged."""
    variants = odd_variants(tmp_path)
    names = [*PAIR, "nan", "broken"]
    results = run_study("laptop", names, [0], tmp_path / "jobs", OVER, variants=variants, launch=LOCAL)
    said = capsys.readouterr().err
    assert [run.status for run in results.runs] == ["completed", "completed", "diverged", "failed"]
    alone = run_study("laptop", names, [0], tmp_path / "one", OVER, quiet=True, variants=variants)
    assert [run.per_loop for run in results.runs] == [run.per_loop for run in alone.runs]
    assert load_results(tmp_path / "jobs").runs == results.runs
    assert said.count("2 jobs submitted") in (1, 2)  # two places: the others came one by one, or both
    assert "dense/raw, seed 0: finished" in said
    submitted = submitted_file(tmp_path / "jobs").read_text()
    again = run_study(
        "laptop", names[:3], [0], tmp_path / "jobs", OVER, quiet=True, variants=variants, launch=LOCAL
    )
    assert again.runs == results.runs
    assert submitted_file(tmp_path / "jobs").read_text() == submitted


@pytest.mark.slow
def test_a_watcher_that_is_stopped_leaves_its_jobs_which_are_preempted_requeued_and_watched_again(
    out: Path,
) -> None:
    run = run_folder(out, "dense/raw", 0)
    code = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
sys.argv = ["loopscope", "study", "--conditions", "dense/raw", "--out", {str(out)!r}, "--launcher", "local",
    *{[word for word in TINY if "steps" not in word]!r}, "--training.steps=1000000", "--training.monitor-every=0"]
from loopscope.cli import main
main()
"""
    watcher = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(trained_steps(run)) > 3)
        watcher.send_signal(signal.SIGINT)
        _, said = watcher.communicate(timeout=60)
    finally:
        watcher.kill()
        watcher.wait()
    assert watcher.returncode == 130
    (job,) = read_submitted(out).values()
    last = said.splitlines()[-1]
    assert f"stopped watching; 1 jobs go on (to end them, saved: kill {job.job})" in last
    assert "loopscope study --conditions dense/raw" in last

    task = present_holder(run)
    assert task is not None
    os.kill(task.pid, signal.SIGTERM)  # what comes first where a job is preempted
    os.kill(task.pid, signal.SIGUSR2)  # submitit's signal: put it back
    requeued = wait_for(lambda: (now := present_holder(run)) and now.pid != task.pid and now)
    saved = step_in_name(newest_checkpoint(run))  # type: ignore[arg-type]
    assert saved is not None
    wait_for(lambda: trained_steps(run)[-1] > saved + 3)
    taken = trained_steps(run)
    assert taken == [*range(1, len(taken) + 1)]  # it went on from what it saved, and did no step twice

    os.kill(int(job.job), signal.SIGTERM)  # as the message said
    wait_for(lambda: present_holder(run) is None and read_submitted(out)["dense_raw/seed-0"].ended)
    assert requeued.pid != task.pid
    saved = step_in_name(newest_checkpoint(run))  # type: ignore[arg-type]
    assert saved is not None
    for path in (out / "study.yaml", run / "config.yaml"):
        path.write_text(path.read_text().replace("steps: 1000000", f"steps: {saved + 5}"))  # it ends soon
    over = yaml.safe_load((out / "study.yaml").read_text())["over"]
    results = run_study("laptop", ["dense/raw"], [0], out, over, quiet=True, launch=LOCAL)
    assert [run.status for run in results.runs] == ["completed"]
    assert trained_steps(run) == [*range(1, saved + 6)]


@pytest.mark.slow
def test_an_array_of_slurm_is_trained_and_a_preempted_job_goes_on(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preempted: list[int] = []
    out = tmp_path / "study"
    look = slurm_jobs.SlurmJobs.alive

    def alive(self: Any, jobs: Any) -> Any:
        holder = present_holder(run_folder(out, "dense/raw", 0))
        if holder and not preempted and trained_steps(run_folder(out, "dense/raw", 0)):
            preempted.append(holder.pid)
            os.kill(holder.pid, signal.SIGUSR2)
        return look(self, jobs)

    monkeypatch.setattr(slurm_jobs.SlurmJobs, "alive", alive)
    over = {**OVER, "training": {**OVER["training"], "steps": 400, "checkpoint_every": 1000}}
    launch = StudyLaunch(launcher="slurm", at_once=2, slurm=SlurmRequest(cpus=1, time="30"))
    results = run_study("laptop", PAIR, [0], out, over, quiet=True, launch=launch)
    assert [run.status for run in results.runs] == ["completed"] * 2
    calls = (cluster / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["sbatch", "scontrol"]
    assert calls[1] == "scontrol requeue 100_1"
    for name in PAIR:
        assert trained_steps(run_folder(out, name, 0)) == [*range(1, 401)]
    alone = run_study("laptop", ["dense/raw"], [0], tmp_path / "one", over, quiet=True)
    assert alone.runs[0].per_loop == results.runs[1].per_loop


@pytest.mark.slow
def test_a_job_that_dies_is_a_failure_with_its_reason_and_one_that_is_cancelled_is_none(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []
    runs = {name: run_folder(tmp_path / "study", name, 0) for name in PAIR}
    look = slurm_jobs.SlurmJobs.alive

    def alive(self: Any, jobs: Any) -> Any:
        if not done and all(trained_steps(run) for run in runs.values()):
            done.extend(PAIR)
            os.kill(present_holder(runs["dense/rmsnorm"]).pid, signal.SIGKILL)  # type: ignore[union-attr]
            subprocess.run(["scancel", "100_1"], check=True)
        return look(self, jobs)

    monkeypatch.setattr(slurm_jobs.SlurmJobs, "alive", alive)
    monkeypatch.setattr("loopscope.jobs.launched.GRACE", 0.0)
    results = run_study("laptop", PAIR, [0], tmp_path / "study", LONG, launch=SLURM)
    said = capsys.readouterr().err
    assert [(run.condition, run.status) for run in results.runs] == [("dense/rmsnorm", "failed")]
    failure = results.runs[0].failure
    assert failure is not None
    assert "job 100_0 ended without a result (Slurm says FAILED); its log is" in failure.message
    assert "dense/raw, seed 0: dense/raw seed 0: stopped by SIGTERM after step" in said
    assert "call again to go on with it" in said
    assert newest_checkpoint(runs["dense/raw"]) is not None


def test_runs_that_have_a_job_are_not_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The jobs wait: nothing is trained here."""
    folder = tmp_path / "slurm"
    monkeypatch.setenv("PATH", on_path(install_slurm(folder, nodes=False)))
    out = tmp_path / "study"
    for _ in range(2):
        assert run_study("laptop", PAIR, [0], out, OVER, wait=False, launch=SLURM).runs == ()
    said = capsys.readouterr().err
    assert (folder / "calls").read_text().count("sbatch") == 1
    assert "2 jobs submitted (scancel 100 ends them)" in said
    assert "2 of 2 runs have a job already" in said
    run_study("laptop", PAIR, [0, 1], out, OVER, quiet=True, wait=False, launch=SLURM)
    (folder / "job-100_0").write_text("CANCELLED")
    run_study("laptop", PAIR, [0], out, OVER, quiet=True, wait=False, launch=SLURM)
    assert sorted(path.name for path in folder.glob("job-*")) == [
        "job-100_0",
        "job-100_1",
        "job-101_0",
        "job-101_1",
        "job-102",
    ]
    assert read_submitted(out)["dense_rmsnorm/seed-0"].job == "102"
    other = start_holder(run_folder(out, "dense/raw", 2))  # whoever trains it needs no job
    try:
        run_study("laptop", ["dense/raw"], [2], out, OVER, quiet=True, wait=False, launch=SLURM)
    finally:
        other.kill()
        other.wait()
    (folder / "silent").touch()
    said = refusal(lambda: run_study("laptop", PAIR, [0], out, OVER, quiet=True, launch=SLURM)) or ""
    assert said == "squeue fails (slurm_load_jobs error: Unable to contact slurm controller); try again later"
    (folder / "silent").unlink()
    (folder / "refuses").write_text("sbatch: error: invalid partition specified: gpu")
    said = refusal(lambda: run_study("laptop", PAIR, [9], out, OVER, quiet=True, launch=SLURM)) or ""
    assert said == (
        "sbatch refused the jobs (sbatch: error: invalid partition specified: gpu); change what they ask for (--slurm)"
    )
    assert (folder / "calls").read_text().count("sbatch") == 4


def test_the_script_that_a_dry_run_prints_is_the_one_that_sbatch_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = SlurmRequest.model_validate(
        {
            "gpus": 1,
            "cpus": 8,
            "memory": "32",
            "time": "1-02:00:00",
            "partition": "gpu",
            "account": "loops",
            "setup": ["module load cuda"],
            "sbatch": {"constraint": "a100", "exclusive": True},
        }
    )
    launch = StudyLaunch(launcher="slurm", at_once=1, slurm=request)
    out = tmp_path / "study"
    plans = planned_study("laptop", PAIR, [0], out, OVER, launch=launch)
    script = study_script(out, plans, 1, launch)
    assert script is not None
    assert not out.exists()
    folder = tmp_path / "slurm"
    monkeypatch.setenv("PATH", on_path(install_slurm(folder, nodes=False)))
    run_study("laptop", PAIR, [0], out, OVER, quiet=True, wait=False, launch=launch)
    assert (folder / "script-100").read_text() == script
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {
        "array=0-1%1",
        "gpus-per-node=1",
        "cpus-per-task=8",
        "mem=32GB",
        "time=1560",
        "partition=gpu",
        "account=loops",
        "constraint=a100",
        "exclusive",
        "requeue",
        "signal=USR2@120",
        "open-mode=append",
    } <= set(lines)
    assert "module load cuda" in script
    (command,) = (line for line in script.splitlines() if line.startswith("srun --unbuffered"))
    assert " --cpus-per-task=8 " in command
    assert study_script(out, plans[:1], 1, launch).count("--array") == 0  # type: ignore[union-attr]


def test_a_device_of_the_nodes_need_not_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "slurm"
    monkeypatch.setenv("PATH", on_path(install_slurm(folder, nodes=False)))
    over = {**OVER, "training": {**OVER["training"], "device": "cuda:7"}}
    run_study("laptop", PAIR, [0], tmp_path / "study", over, quiet=True, wait=False, launch=SLURM)
    assert (folder / "calls").read_text().count("sbatch") == 1
    assert "cuda:7" in (refusal(lambda: run_study("laptop", PAIR, [0], tmp_path / "x", over)) or "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--launcher", "slrum"], "launcher is 'slrum'; it is one of local, slurm; did you mean slurm?"),
        (["--launcher", "slurm"], "launcher 'slurm' needs sbatch, which is not on this machine's PATH"),
        (["--slurm", "gpus=1"], "slurm is 'gpus=1', which is for jobs of a cluster; add --launcher slurm"),
        (["--launcher", "slurm", "--slurm", "gpus=-1"], "slurm: gpus is '-1'"),
        (["--launcher", "slurm", "--slurm", "memory=much"], "'much' is no amount of memory"),
        (["--launcher", "slurm", "--slurm", "time=soon"], "'soon' is no time"),
        (["--launcher", "slurm", "--slurm", "partion=gpu"], "did you mean partition?"),
        (["--launcher", "slurm", "--slurm", "mem=3"], "slurm.mem is memory here; name that"),
        (["--launcher", "slurm", "--slurm", "array=3"], "slurm.array is set for every job already"),
        (["--launcher", "slurm", "--slurm", "gpus=1,gpus=2"], "slurm names gpus twice"),
        (["--launcher", "local", "--at-once", "9"], "at-once is 9, and the 4 cores"),
    ],
)
def test_what_cannot_be_launched_is_refused_before_anything_is_written(
    call: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert call("study", "--out", tmp_path / "study", *TINY[:-1], *words) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert says in said[0]
    assert not (tmp_path / "study").exists()
