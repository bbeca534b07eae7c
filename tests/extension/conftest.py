"""The page's package, in reach of this process."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extension.fixtures import write_package


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's package where this process finds it, forgotten afterwards."""
    write_package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("myloops", "theirs")]:
        del sys.modules[name]
