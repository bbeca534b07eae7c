"""Records as people see them: printed, in a notebook, as rows."""

import dataclasses
import math

import pytest

from loopscope.results import Failure, StudyResults, provenance
from loopscope.results.readable import WIDTH, Readable
from tests.results.test_results import example


@dataclasses.dataclass(frozen=True)
class Made(Readable):
    name: str

    def lines(self) -> list[str]:
        return [self.name, "word " * 40]

    def table(self) -> list[dict[str, object]]:
        return [
            {"loop": 1, "why": "a <b>", "value": 0.123456, "count": 12345},
            {"loop": 10, "why": "longer", "value": math.nan, "count": None},
            {"loop": 11, "why": "x", "value": 123456.7, "count": 1},
        ]


def test_a_record_prints_as_lines_and_a_table() -> None:
    lines = str(Made("the name")).splitlines()
    assert lines[0] == "the name"
    assert max(map(len, lines)) <= WIDTH
    assert lines[-4:] == [
        "loop  why       value   count",
        "   1  a <b>    0.1235  12,345",
        "  10  longer",
        "  11  x       123,457       1",
    ]
    assert repr(Made("x")) == "Made(name='x')"  # for whoever wants every field


def test_a_notebook_shows_the_same_and_nothing_runs() -> None:
    page = Made("<script>")._repr_html_()
    assert page.startswith("<p>&lt;script&gt;</p>")
    assert page.count("<tr>") == 4
    assert "<td>a &lt;b&gt;</td><td>0.1235</td><td>12,345</td>" in page
    assert "<td>longer</td><td></td><td></td>" in page


def test_runs_and_studies() -> None:
    run = example()
    study = StudyResults((run, dataclasses.replace(run, seed=1)), provenance())
    assert (
        str(run)
        .splitlines()[0]
        .startswith(f"{run.condition}, seed {run.seed}, size {run.size}: {run.status} after")
    )
    assert [row["loop"] for row in run.table()] == [entry.loop for entry in run.per_loop]
    assert len(str(study).splitlines()) == 2 + 2
    assert "unknown tokens" not in study.table()[0]
    lossy = dataclasses.replace(run, unknown_share=0.083)
    assert "8.3% of the validation text's tokens are unknown" in str(lossy)
    assert StudyResults((lossy,), study.provenance).table()[0]["unknown tokens"] == 0.083
    diverged = dataclasses.replace(
        run, status="diverged", per_loop=(), failure=Failure("not finite at loop 2")
    )
    assert str(diverged).splitlines()[-1] == "not finite at loop 2"
    assert str(StudyResults((run, diverged), study.provenance)).startswith("2 runs: 1 completed, 1 diverged.")


@pytest.mark.parametrize("kind", Readable.__subclasses__())
def test_no_record_has_a_field_that_hides_a_way_to_read_it(kind: type) -> None:
    assert not {"lines", "table"} & {field.name for field in dataclasses.fields(kind)}
