"""Workers: one works at a time, each warmed up and in its own process; none outlives the block; a dead one says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.workers import WARM_UP, workers

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where a worker finds the benchmarks


def serving(build: str, before: str = "") -> list[str]:
    """The command of a worker whose `build` is this expression."""
    return [
        sys.executable,
        "-c",
        f"import os\nfrom benchmarks.workers import serve\n{before}\nserve({build})",
    ]


def test_a_step_counts_after_the_warm_up_and_what_it_prints_does_not_matter() -> None:
    counting = serving(
        "lambda: lambda: print('noise') or next(n)", "from itertools import count; n = count()"
    )
    with workers({"one": counting}) as steps:
        assert [steps["one"]() for _ in range(3)] == [WARM_UP, WARM_UP + 1, WARM_UP + 2]


def test_only_one_worker_works_at_any_time(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def logging(name: str) -> list[str]:
        say = f"def say(what):\n    with open({str(log)!r}, 'a') as log: print(what, {name!r}, file=log)"
        step = "def step():\n    say('begin'); say('end'); return 1.0"
        return serving("lambda: say('build') or step", f"{say}\n{step}")

    with workers({name: logging(name) for name in ("one", "two")}) as steps:
        for name in ("one", "two", "one"):
            steps[name]()
    expected = []
    for name in ("one", "two"):
        expected += [f"build {name}", *[f"begin {name}", f"end {name}"] * WARM_UP]
    for name in ("one", "two", "one"):
        expected += [f"begin {name}", f"end {name}"]
    assert log.read_text().splitlines() == expected


@pytest.mark.parametrize("failing", [False, True])
def test_workers_are_other_processes_and_end_with_the_block(failing: bool) -> None:
    found: set[int] = set()
    command = serving("lambda: os.getpid")
    try:
        with workers({"one": command, "two": command}) as steps:
            found = {int(step()) for step in steps.values()}
            assert len(found | {os.getpid()}) == 3
            if failing:
                raise KeyError("the block's own error")
    except KeyError:
        assert failing
    for number in found:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_a_worker_that_cannot_build_says_why_and_takes_the_others_with_it(tmp_path: Path) -> None:
    process = tmp_path / "process"
    good = serving("lambda: os.getpid", f"open({str(process)!r}, 'w').write(str(os.getpid()))")
    bad = serving("lambda: 1 / 0")
    with (
        pytest.raises(RuntimeError, match=r"'bad' steps ended with exit code 1(.|\n)*ZeroDivisionError"),
        workers({"good": good, "bad": bad}),
    ):
        raise AssertionError("the block must not begin")
    with pytest.raises(ProcessLookupError):
        os.kill(int(process.read_text()), 0)


def test_a_worker_that_dies_between_steps_is_an_error_at_the_next() -> None:
    leaving = serving("lambda: step", f"n = iter(range({WARM_UP + 1}))\ndef step():\n    return next(n)")
    with workers({"leaving": leaving}) as steps:
        assert steps["leaving"]() == WARM_UP
        with pytest.raises(RuntimeError, match="StopIteration"):
            steps["leaving"]()


def test_a_worker_that_is_killed_hints_at_memory() -> None:
    with workers({"one": serving("lambda: os.getpid")}) as steps:
        os.kill(int(steps["one"]()), 9)
        with pytest.raises(RuntimeError, match="exit code -9; memory may have run out"):
            steps["one"]()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["masked fp32", "unlooped fp32"])
def test_the_training_step_serves_one_kind(kind: str) -> None:
    shape = ["--size=laptop", "--batch=1", "--sequence=16", "--threads=1", "--clock=processor", "--dropout=0"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_step", *shape, "--serve", kind],
        input="\n\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ready, *seconds = done.stdout.splitlines()
    assert ready == "ready"
    assert len(seconds) == 2
    assert all(0 < float(one) < 60 for one in seconds)
