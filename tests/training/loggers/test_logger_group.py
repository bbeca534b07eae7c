"""All trackers as one: what each is sent, and that none can stop a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loopscope.training.loggers import AbstractLogger, LoggedRun, LoggerGroup, logger_group

RECORDS = [{"kind": "train", "step": step, "loss": 1.0, "l2_norm": [4.0, 8.0]} for step in (1, 2, 3)]


class Kept(AbstractLogger):
    """Keeps what it is given."""

    made: list["Kept"]

    def __init__(self, run: LoggedRun) -> None:
        self.run, self.steps, self.closed = run, list[int](), False
        self.made.append(self)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self.steps.append(step)

    def by_loop(self, step: int, values: Mapping[str, Mapping[int, float]]) -> None:
        assert all(set(line) <= set(self.run.loops) for line in values.values())

    def text(self, title: str, text: str) -> None:
        pass

    def file(self, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    def close(self) -> None:
        self.closed = True


class Dead(Kept):
    """Cannot even be opened."""

    def __init__(self, run: LoggedRun) -> None:
        raise ConnectionError("network is unreachable")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    Kept.made = []
    kinds = {"tensorboard": Kept, "trackio": Kept, "wandb": Dead}
    monkeypatch.setattr(logger_group, "logger_class", kinds.__getitem__)
    return Kept.made


def logged(folder: Path) -> LoggedRun:
    return LoggedRun(folder, "raw", "loopscope", "", (1, 2), {})


def group(folder: Path, *names: str, records: Any = ()) -> LoggerGroup:
    return LoggerGroup(names, logged(folder), 16, records)


def test_one_that_cannot_be_opened_is_told_once_and_left_out(tmp_path: Path, kept: list[Kept]) -> None:
    with pytest.warns(UserWarning, match=r"logger wandb failed \(.*unreachable\).*metrics.jsonl") as said:
        opened = group(tmp_path, "wandb", "trackio")
    assert len(said) == 1
    for record in RECORDS:
        opened.record(record)
    opened.text("verdict", "blind")
    assert [each.steps for each in kept] == [[1, 2, 3]]
    assert list(json.loads((tmp_path / "trackers.json").read_text())["loggers"]) == ["trackio"]


def test_one_that_dies_in_mid_run_leaves_the_others(
    tmp_path: Path, kept: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = group(tmp_path, "tensorboard", "trackio")
    opened.record(RECORDS[0])
    with monkeypatch.context() as patch:
        patch.setattr(kept[0], "numbers", lambda *_: 1 / 0)
        with pytest.warns(UserWarning, match="logger tensorboard failed .ZeroDivisionError") as said:
            opened.record(RECORDS[1])
    opened.record(RECORDS[2])
    assert len(said) == 1
    assert [each.steps for each in kept] == [[1], [1, 2, 3]]
    with pytest.warns(UserWarning, match="logger trackio failed .*disk is full"):
        opened.file(tmp_path / "x.yaml")
    assert not opened.open


def test_what_is_written_again_after_a_checkpoint_is_not_sent_again(tmp_path: Path, kept: list[Kept]) -> None:
    first = group(tmp_path, "trackio")
    for record in RECORDS:
        first.record(record)
    second = group(tmp_path, "trackio", records=RECORDS)  # goes on from a checkpoint at step 1
    for step in (2, 3, 4):
        second.record({**RECORDS[0], "step": step})
    second.record({"kind": "evaluation", "step": 3, "per_loop": [{"loop": 1, "loss": 1.0}]})
    third = group(tmp_path, "trackio", records=RECORDS[:1])  # metrics cut short meanwhile
    third.record(RECORDS[2])
    assert [each.steps for each in kept] == [[1, 2, 3], [4], []]
    assert len({each.run.identity for each in kept}) == 1
    assert [each.run.before is None for each in kept] == [True, False, False]


def test_a_tracker_that_comes_late_has_the_whole_curve(tmp_path: Path, kept: list[Kept]) -> None:
    group(tmp_path, "trackio", records=RECORDS)
    late = group(tmp_path, "trackio", "tensorboard", records=RECORDS)
    late.record({**RECORDS[0], "step": 4})
    assert [each.steps for each in kept] == [[1, 2, 3], [4], [1, 2, 3, 4]]


def test_without_a_name_nothing_is_opened_or_written(tmp_path: Path, kept: list[Kept]) -> None:
    group(tmp_path).record(RECORDS[0])
    assert not kept
    assert list(tmp_path.iterdir()) == []
