"""Configs of random values and damaged files end in a config or in one sentence, never in a traceback.

300 cases here; `pytest --hypothesis-profile=full tests/config/test_fuzz.py` draws 3,000.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopscope.cli.arguments import settings_of_a_run
from loopscope.config.nested import merged, read_yaml
from loopscope.config.recipes import CONDITIONS, NAMED, recipe
from loopscope.config.run_config import RunConfig, parse_config
from loopscope.config.sizes import SIZES
from loopscope.model.config.yaml_reader import plain_yaml
from loopscope.plan.memory import least_training_bytes
from loopscope.plan.static_audit import audit_config
from tests.fixtures import refusal

CASES = max(150, settings.default.max_examples if settings.default else 0)  # twice: values, and damaged files
NAMES = [option.name for option in settings_of_a_run().options]
SECTIONS = sorted({name.rpartition(".")[0] for name in NAMES})
ODD_NUMBERS = st.sampled_from(
    [0, -1, 1, 2, 3, 2**31, 2**53 + 1, 2**64, -(2**70), 10**400, 1e308, -0.0, 5e-324]
)
WORDS = st.sampled_from(
    [*CONDITIONS, *NAMED, *SIZES, "none", "auto", "all", "", "\x00", "..", "a/b:c", "os:system", "é"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | ODD_NUMBERS | st.floats() | WORDS | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "weight", "settings", "x", ""]), inner, max_size=2)
    ),
    max_leaves=5,
)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is usual nine times in ten, and anything else."""
    return st.tuples(st.integers(0, 9), usual, VALUES).map(
        lambda drawn: drawn[2] if drawn[0] == 9 else drawn[1]
    )


def nested(name: str, value: Any) -> dict[str, Any]:
    """A value at a dotted name."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


@given(
    size=mostly(st.sampled_from(list(SIZES))),
    condition=mostly(st.sampled_from([*CONDITIONS, *NAMED, "huginn:dense/raw", "unlooped:dense/raw"])),
    given=st.lists(
        st.tuples(st.sampled_from([*NAMES, *SECTIONS, "model.lr", "nothing"]), VALUES), max_size=3
    ),
)
@settings(max_examples=CASES)
def test_a_config_of_any_values(size: Any, condition: Any, given: list[tuple[str, Any]]) -> None:
    over: dict[str, Any] = {}
    for name, value in given:
        over = merged(over, nested(name, value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = refusal(lambda: works(recipe(size, condition, over)))
    assert said is None or 0 < len(said) < 5000


def works(config: RunConfig) -> None:
    """What is accepted can be written, read, counted and judged."""
    assert parse_config(plain_yaml(config.to_yaml(), "yaml"), "yaml") == config
    assert least_training_bytes(config) > 0
    if config.model.loops <= 16:
        assert audit_config(config).verdict


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "run.yaml"


@given(
    cuts=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 40), st.binary(max_size=8)), min_size=1, max_size=4
    )
)
@settings(max_examples=CASES, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file(file: Path, cuts: list[tuple[int, int, bytes]]) -> None:
    whole = recipe("laptop", "dense/raw").to_yaml().encode()
    for start, length, put in cuts:
        whole = whole[:start] + put + whole[start + length :]
    file.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = refusal(lambda: works(parse_config(read_yaml(file), str(file))))
    assert said is None or said.startswith(str(file))
    assert said is None or len(said.splitlines()) == 1
