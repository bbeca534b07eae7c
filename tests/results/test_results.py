"""Records and their round-trip through JSON."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.results import (
    EvalPoint,
    Failure,
    LoopMetrics,
    Provenance,
    RunResult,
    StudyResults,
    TrainPoint,
    load_results,
    provenance,
    run_from_json,
    study_from_json,
    to_json,
)
from loopscope.results.codec import json_object

number = st.floats(allow_nan=False, allow_infinity=False, width=32)
texts = st.text(max_size=20)
metrics = st.builds(
    LoopMetrics,
    loop=st.integers(1, 64),
    loss=number,
    perplexity=number,
    bits_per_byte=number,
    l2_norm=number,
    rms=number,
)
norms = st.lists(number, max_size=4).map(tuple)
failures = st.builds(
    Failure,
    message=texts,
    step=st.none() | st.integers(1, 9),
    loop=st.none() | st.integers(1, 4),
    l2_norm=norms,
    last_checkpoint=st.none() | texts,
)
records = st.builds(
    Provenance,
    date=texts,
    versions=st.dictionaries(texts, texts, max_size=3),
    git=st.none() | texts,
    platform=texts,
    device=texts,
    threads=st.none() | st.integers(1, 64),
    command=texts,
)
runs = st.builds(
    RunResult,
    condition=texts,
    size=texts,
    seed=st.integers(0, 99),
    status=st.sampled_from(["completed", "diverged", "failed"]),
    parameters=st.integers(0),
    tokens_trained=st.integers(0),
    steps=st.integers(0),
    seconds=number,
    per_loop=st.lists(metrics, max_size=4).map(tuple),
    training=st.lists(st.builds(TrainPoint, st.integers(1), number, norms), max_size=3).map(tuple),
    evaluations=st.lists(
        st.builds(EvalPoint, st.integers(1), st.lists(metrics, max_size=2).map(tuple)), max_size=2
    ).map(tuple),
    failure=st.none() | failures,
    config=st.dictionaries(texts, texts, max_size=3),
    provenance=st.none() | records,
)


@given(st.lists(runs, max_size=3), records)
def test_round_trip(found: list[RunResult], record: Provenance) -> None:
    study = StudyResults(runs=tuple(found), provenance=record)
    assert study_from_json(to_json(study)) == study
    for run in found:
        assert run_from_json(to_json(run)) == run


def example() -> RunResult:
    entry = LoopMetrics(loop=1, loss=1.0, perplexity=2.7, bits_per_byte=0.5, l2_norm=4.0, rms=2.0)
    return RunResult(
        condition="dense/raw",
        size="laptop",
        seed=0,
        status="completed",
        parameters=1,
        tokens_trained=2,
        steps=3,
        seconds=4.0,
        per_loop=(entry, replace(entry, loop=2, rms=6.0)),
        provenance=provenance(),
    )


def test_what_is_not_finite_is_null_in_strict_json() -> None:
    run = replace(example(), per_loop=(replace(example().per_loop[0], perplexity=math.inf),))
    text = to_json(run)
    assert json.loads(text, parse_constant=pytest.fail)["per_loop"][0]["perplexity"] is None
    assert math.isnan(run_from_json(text).per_loop[0].perplexity)


def test_drift_is_the_growth_of_the_rms() -> None:
    assert example().drift == 3.0
    assert replace(example(), per_loop=()).drift is None


def test_the_documented_keys_of_a_study() -> None:
    study = json.loads(to_json(StudyResults(runs=(example(),), provenance=provenance())))
    assert {"condition", "size", "seed", "status", "parameters", "tokens_trained", "per_loop"} <= set(
        study["runs"][0]
    )
    assert set(study["runs"][0]["per_loop"][0]) == {
        "loop",
        "loss",
        "perplexity",
        "bits_per_byte",
        "l2_norm",
        "rms",
    }
    assert "provenance" in study


def test_loading_by_folder_and_by_file(tmp_path: Path) -> None:
    run = example()
    (tmp_path / "result.json").write_text(to_json(run))
    assert load_results(tmp_path).runs == (run,)
    study = StudyResults(runs=(run, run), provenance=provenance())
    (tmp_path / "results.json").write_text(to_json(study))
    assert load_results(tmp_path) == study
    assert load_results(tmp_path / "result.json").runs == (run,)


@pytest.mark.parametrize("text", ["[]", "{}", '{"runs": [{}]}', "{", '{"runs": [], "schema": 9}'])
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"results\.json"):
        load_results(tmp_path)


def test_nothing_to_read_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no results at .*looked for"):
        load_results(tmp_path)


def test_provenance_says_when_and_where() -> None:
    record = provenance("cpu", threads=2)
    assert record.date.endswith("+00:00")
    assert record.versions["torch"]
    assert (record.device, record.threads) == ("cpu", 2)


def test_json_that_is_nested_too_deeply_is_damage_like_any_other() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        json_object('{"a": ' + "[" * 200_000)


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("condition", None, "condition: it is nothing; text is meant"),
        ("seed", "1", "seed: it is text; a number is meant"),
        ("seed", 1.5, "seed: it is 1.5; a whole number is meant"),
        ("seed", True, "seed: it is true or false; a number is meant"),
        ("per_loop", "text", "per_loop: it is text; a list is meant"),
        ("per_loop", [{"loop": 1, "loss": [2]}], "per_loop: loss: it is a list; a number is meant"),
    ],
)
def test_a_value_of_another_type_is_named(entry: str, value: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    data = json.loads(to_json(example()))
    path.write_text(json.dumps({**data, entry: value}))
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        load_results(path)
    assert str(path) in str(caught.value)


def test_numbers_too_large_for_one_are_damage(tmp_path: Path) -> None:
    data = json.loads(to_json(example()))
    data["per_loop"] = [{**data["per_loop"][0], "loss": 10**400}]
    (tmp_path / "result.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="loss: it is too large a number"):
        load_results(tmp_path)
