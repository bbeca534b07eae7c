"""The reader of config files: PyYAML's values where a config is meant, a sentence for everything else."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from loopscope.model.config.yaml_reader import MOST_CHARACTERS, MOST_DEPTH, plain_yaml, plain_yaml_file

TEXT = st.text(st.characters(exclude_characters="\x85", exclude_categories=["Cs"]), max_size=9)
"""Without the next-line sign, which PyYAML writes as it is and reads as a blank."""
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
@settings(max_examples=30)
def test_what_pyyaml_writes_is_read_as_pyyaml_reads_it(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    assert plain_yaml(text, "here") == yaml.safe_load(text) == value


def test_aliases_merges_and_dates_are_values_of_a_config() -> None:
    text = "a: &a {steps: 3, batch: 2}\nb: {<<: *a, batch: 4}\nname: 2026-11-28\nsign: =\n"
    assert plain_yaml(text, "here") == {
        "a": {"steps": 3, "batch": 2},
        "b": {"steps": 3, "batch": 4},
        "name": "2026-11-28",
        "sign": "=",
    }


def laughs(levels: int) -> str:
    """Nested aliases: `levels` lines that stand for 9 ** levels values."""
    lines = ["l0: &l0 ha"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, levels + 1)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(9), "more than 20,000 values, aliases spelled out in line 6"),
        ("a: &a [*a]", r"alias \*a stands inside what it names in line 1"),
        ("a: *b", "found undefined alias 'b' in line 1"),
        ("[" * (MOST_DEPTH + 1), f"nested more than {MOST_DEPTH} deep in line 1"),
        ("{a: " * 5000, f"nested more than {MOST_DEPTH} deep"),
        ("model: {dim: 8}\nmodel: {dim: 16}", "key 'model' is given twice in line 2"),
        ("on: 1", "key on is no text; put it in quotes in line 1"),
        ("? [1]\n: 2", "is no text; put it in quotes"),
        ("a: !!python/object/apply:os.system [ls]", "a value of kind"),
        ("a: !!binary aGk=", "a value of kind binary in line 1"),
        ("a: !!set {b}", "a value of kind set"),
        ("a: " + "9" * 5000, "is not YAML that a config can be read from"),
        ("a: 1\n--- 2", "is not YAML that a config can be read from"),
        ("a: \x00", "is not YAML that a config can be read from"),
        ("a: 'b", "is not YAML that a config can be read from"),
        ("x" * (MOST_CHARACTERS + 1), "is no config: it has 1,048,577 characters"),
    ],
)
def test_everything_else_is_one_sentence_that_names_the_source(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        plain_yaml(text, "run.yaml")
    assert str(caught.value).startswith("run.yaml is n")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    (tmp_path / "large.yaml").write_bytes(b"#" * (4 * MOST_CHARACTERS + 1))
    for name, message in (
        ("gone.yaml", "does not exist"),
        (".", "is not a file"),
        ("latin.yaml", "is not YAML"),
        ("large.yaml", "is no config: it has 4,194,305 bytes"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            plain_yaml_file(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_what_was_read_belongs_to_the_reader() -> None:
    """A text is read once and handed out as copies."""
    text = "model: {layers: [1, 2]}\n"
    plain_yaml(text, "run.yaml")["model"]["layers"].append(3)
    assert plain_yaml(text, "run.yaml") == {"model": {"layers": [1, 2]}}
