"""What memory and cores there are: a container's limit counts where it is less than the machine's."""

from pathlib import Path

import pytest

from loopscope import machine_limits
from loopscope.machine_limits import free_bytes, machine_bytes, usable_cores


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = tuple(str(tmp_path / name) for name in ("max", "current", "stat"))
    monkeypatch.setattr(machine_limits, "_LIMITS", (files,))
    return tmp_path


def test_a_containers_limit_is_the_machines_and_what_it_uses_is_not_free(container: Path) -> None:
    (container / "max").write_text("5000\n")
    (container / "current").write_text("4000\n")
    (container / "stat").write_text("anon 1000\ninactive_file 3000\nactive_file 0\n")
    assert machine_bytes() == 5000
    assert free_bytes() == 4000  # files that were read are given back
    (container / "current").write_text("9000\n")
    assert free_bytes() == 0


def test_no_limit_leaves_what_the_machine_has(container: Path) -> None:
    free = free_bytes()
    (container / "max").write_text("max\n")
    (container / "current").write_text("4000\n")
    now = free_bytes()
    assert (free is None) == (now is None)
    if free is not None and now is not None:
        assert now > 10_000_000


def test_a_container_has_fewer_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_limits.Path, "read_text", lambda *_, **__: "50000 100000\n")
    assert usable_cores() == 0.5
    monkeypatch.setattr(machine_limits.Path, "read_text", lambda *_, **__: "max 100000\n")
    assert usable_cores() >= 1
