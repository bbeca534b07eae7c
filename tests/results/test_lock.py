"""One writer a folder: who holds it is named, who is killed is followed, and where nothing can be locked it is said."""

import os
import signal
import threading
from pathlib import Path

import filelock
import pytest

from loopscope.results import FolderHeldError
from loopscope.results.layout import HOLDER, LOCK
from loopscope.results.lock import hold
from tests.results.fixtures import start_holder


def test_a_held_folder_names_its_process_and_a_killed_one_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = start_holder(folder)
    try:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(
            FolderHeldError, match=rf"{folder} is held by process {other.pid} .*since 20\d\d-"
        ):
            hold(folder).__enter__()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with hold(folder):
        assert f'"pid": {os.getpid()}' in (folder / HOLDER).read_text()
    assert [path.name for path in folder.iterdir()] == [LOCK]  # it was there before, so it stays


def test_holding_twice_is_holding_once_and_a_thread_of_ones_own_is_another(tmp_path: Path) -> None:
    refused: list[str] = []

    def other() -> None:
        try:
            with hold(tmp_path):
                pass
        except FolderHeldError as error:
            refused.append(str(error))

    with hold(tmp_path):
        with hold(str(tmp_path)):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in refused[0]
    other()
    assert len(refused) == 1


def test_a_folder_into_which_nothing_came_is_taken_away(tmp_path: Path) -> None:
    with hold(tmp_path / "study" / "run"):
        assert (tmp_path / "study" / "run" / LOCK).is_file()
    assert not (tmp_path / "study").exists()
    with hold(tmp_path / "study" / "run"):
        (tmp_path / "study" / "notes.txt").write_text("keep")
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("error", [OSError(95, "Operation not supported"), NotImplementedError("no flock")])
def test_where_nothing_can_be_locked_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", cannot)
    done = False
    with pytest.warns(UserWarning, match=r"cannot be locked .*start none on the same folder"), hold(tmp_path):
        done = True
    assert done
