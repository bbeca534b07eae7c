"""Names of classes in tables: short, and never two alike."""

import pytest

from loopscope.results.short_names import short_names


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["kl", "mine.rules:GapStall"], ["kl", "GapStall"]),
        (["mine.gap:GapStall", "mine.gap:Other", "gap:Third"], ["GapStall", "Other", "gap:Third"]),
        (["mine.a:Same", "mine.b:Same", "mine.b:Other"], ["a:Same", "b:Same", "Other"]),
        (["one.a:Same", "two.a:Same", "Same"], ["one.a:Same", "two.a:Same", "Same"]),
        (
            ["huginn:dense/mine.readouts:Peak+penalty", "mine.places:Ramp/raw", "unlooped:dense/raw"],
            ["huginn:dense/Peak+penalty", "Ramp/raw", "unlooped:dense/raw"],
        ),
        (["mine.rules:GapStall", "mine.rules:GapStall"], ["GapStall"]),
    ],
)
def test_a_class_by_its_own_name_where_that_tells_it_apart(names: list[str], short: list[str]) -> None:
    found = short_names(names)
    assert list(found) == list(dict.fromkeys(names))
    assert list(found.values()) == short
