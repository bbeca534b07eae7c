"""Names that may be a folder's or a model's on the hub: what is not here is said before the hub is asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names that the hub was asked for; it has none of them."""
    names: list[str] = []

    def ask(name: str, **_: Any) -> str:
        names.append(name)
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", ask)
    monkeypatch.setattr("loopscope.interop.huggingface.hub._told", set())
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "raw"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    return names


def test_a_mistyped_path_is_said_first(
    asked: list[str], call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("audit", "runs/dmeo") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "runs/dmeo does not exist here (runs has demo); it is looked for on the hub" in said
    assert said.index("looked for on the hub") < said.index("cannot be reached")
    assert asked == ["runs/dmeo"]


def test_a_name_whose_owner_is_no_folder_is_asked_for_at_once(
    asked: list[str], call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("audit", "owner/model") == 2
    assert "looked for on the hub" not in capsys.readouterr().err
    assert asked == ["owner/model"]
