"""Fixtures of these tests; what they are made of stands in `fixtures`."""

from pathlib import Path

import pytest

from loopscope.data.config import DataConfig
from tests.data.fixtures import HELD_OUT, TEXT


@pytest.fixture
def config(tmp_path: Path, cache: Path) -> DataConfig:
    """A training file and a validation file, with a cache of this test's own."""
    (tmp_path / "train.txt").write_text(TEXT)
    (tmp_path / "held.txt").write_text(HELD_OUT)
    return DataConfig(
        corpus="files", files=(str(tmp_path / "train.txt"),), validation_files=(str(tmp_path / "held.txt"),)
    )
