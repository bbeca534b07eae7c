"""Files of results: a record that can be written again and shown, or a sentence that names the file."""

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.config.recipes import recipe
from loopscope.jobs.audit import audit_paths
from loopscope.jobs.listed_runs import runs_below
from loopscope.jobs.train import execute
from loopscope.report import write_report
from loopscope.results import load_audits, load_results, to_json
from loopscope.results.layout import AUDIT, METRICS, RESULT
from tests.fuzz.damage import DAMAGE, Damage, cases, damaged, said_of
from tests.jobs.fixtures import OVER
from tests.report.fixtures import Tags

ODD: list[Any] = [None, True, -1, 0, 1e400, 10**400, "", "<script>x</script>", "../../x", [], {}, [[]], "nan"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCOPE_CACHE", str(folder / "cache"))
        execute(recipe("laptop", "dense/rmsnorm", OVER), folder / "run", quiet=True)
        list(audit_paths([folder / "run"]))
        yield folder / "run"


def replaced(value: Any, place: list[int], put: Any) -> Any:
    """A value of JSON with another in the place that some numbers lead to."""
    if not place or not isinstance(value, dict | list) or not value:
        return put
    key = sorted(value)[place[0] % len(value)] if isinstance(value, dict) else place[0] % len(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced(value[key], place[1:], put)
    return copy


@given(
    name=st.sampled_from([RESULT, AUDIT, METRICS]),
    damage=DAMAGE,
    value=st.booleans(),
    place=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    put=st.sampled_from(ODD),
)
@cases()
def test_a_damaged_record(
    run: Path, tmp_path: Path, name: str, damage: list[Damage], value: bool, place: list[int], put: Any
) -> None:
    """Other bytes, or JSON in which one value is another."""
    copy = tmp_path / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    path = copy / name
    whole = path.read_bytes()
    if value and name != METRICS:
        path.write_text(json.dumps(replaced(json.loads(whole), place, put)))
    else:
        path.write_bytes(damaged(whole, damage))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said_of(lambda: round_trips(load_results(copy), copy), copy)
        said_of(lambda: [to_json(audit) for audit in load_audits(copy / AUDIT)], path)
        runs_below(tmp_path)  # says of what it cannot read that it is left out


def round_trips(results: Any, copy: Path) -> None:
    text = to_json(results)
    (copy / "again.json").write_text(text)
    assert to_json(load_results(copy / "again.json")) == text


@pytest.mark.slow
@given(place=st.lists(st.integers(0, 60), min_size=1, max_size=5), put=st.sampled_from(ODD))
@cases(0.1)
@pytest.mark.usefixtures("blank_figures")
def test_a_page_of_a_changed_record(run: Path, tmp_path: Path, place: list[int], put: Any) -> None:
    """Nothing that a record says breaks out of the page."""
    copy = tmp_path / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    path = copy / RESULT
    path.write_text(json.dumps(replaced(json.loads(path.read_bytes()), place, put)))
    pages: list[Path] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said_of(lambda: pages.append(Path(write_report(copy, copy / "page.html"))), copy)
    for page in pages:
        text = page.read_text()
        assert text.count("<script") == text.count("</script>") == 3
        assert all("onerror" not in attributes for _, attributes in Tags(text).tags)
