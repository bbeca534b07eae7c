"""Models of others that were told and measured: the page says what committed rows say, and a row can be made."""

import pytest
import torch

from benchmarks import foreign_depth
from benchmarks.fates_fit import accuracy, last_difference, prognosis
from benchmarks.foreign_depth import distinct, load_rows, measure, scores
from benchmarks.foreign_models import rows


def test_the_page_says_what_rows_say() -> None:
    found = distinct(load_rows())
    runs = [row.run for row in found]
    assert (len(load_rows()), len(found)) == (29, 25)
    assert accuracy(runs, prognosis) == pytest.approx(23 / 25)
    assert accuracy(runs, last_difference) == pytest.approx(21 / 25)
    assert "truth in the 80 % interval at 4K: 15 of 25" in scores(found)


def test_a_model_is_trained_told_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STEPS", 2), ("BATCH", 2), ("TOLD_ON", 4), ("TRUE_ON", 8), ("FORMATS", ("int8",))):
        monkeypatch.setattr(foreign_depth, name, value)
    text = torch.randint(foreign_depth.VOCABULARY, (400,), generator=torch.Generator().manual_seed(0))
    case, *_ = rows()["fixed-points, raw"]
    row = measure("fixed-points, raw", case, (text, text))
    assert row.verdict == "visible"
    assert len(row.signs) == row.trained_loops + 2
    assert len(row.losses) == 4 * row.trained_loops
    assert row.outcomes[0] in ("stays", "grows", "dies out", "breaks")
    assert row.told.tokens == 4 * foreign_depth.SEQUENCE
