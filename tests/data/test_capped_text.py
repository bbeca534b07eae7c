"""What the size caps leave out of files is said, with the setting that reads more."""

from pathlib import Path

import pytest

from loopscope.data.capped_text import capped_text_note
from loopscope.data.config import DataConfig


@pytest.mark.parametrize(
    ("caps", "said"),
    [
        ({}, None),
        ({"max_bytes": 1_900_000, "max_validation_bytes": 100_000}, None),
        (
            {"max_bytes": 800_000},
            "read 0.8 of 1.9 MB of text to train on (--data.max-bytes N reads more, None all)",
        ),
        (
            {"max_bytes": 1_000_000, "max_validation_bytes": 50_000},
            "read 1.0 of 1.9 MB of text to train on (--data.max-bytes N reads more, None all), and 0.1 of 0.1 MB of "
            "text to validate on (--data.max-validation-bytes N reads more, None all)",
        ),
    ],
)
def test_files_longer_than_their_caps(tmp_path: Path, caps: dict[str, int], said: str | None) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"word " * 400_000)
    assert capped_text_note(DataConfig(files=(str(path),), **caps)) == said
    assert (
        capped_text_note(DataConfig(**caps)) is None
    )  # a sample of sources that nobody wrote to be trained on
