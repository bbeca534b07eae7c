"""A study of variants, with tokenizers of their own, and comparisons of runs and studies that share their text."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loopscope.jobs import compare_study, run_study
from loopscope.results import load_evaluation, load_results
from loopscope.results.layout import COMPARISON, run_folder
from tests.fixtures import run_command

SHARED: dict[str, Any] = {
    "model": {"dim": 16, "heads": 2, "layers": 1, "loops": 2, "vocabulary": 300, "sequence": 16},
    "data": {
        "max_bytes": 30_000,
        "max_validation_bytes": 1_500,
        "tokenizer": {"kind": "bpe", "vocabulary": 300},
    },
    "training": {"steps": 2, "batch": 4, "threads": 1, "precision": "fp32", "monitor_every": 0},
}
BYTES = {
    "condition": "dense/raw",
    "data": {"tokenizer": "bytes"},
    "model": {"vocabulary": 256, "sequence": 24},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """dense/raw, a variant of its penalty from a YAML file, one in bytes."""
    folder = tmp_path_factory.mktemp("variants")
    values = {**SHARED, "size": "laptop", "variants": {"in bytes": BYTES, "unused": {}}}
    (folder / "all.yaml").write_text(yaml.safe_dump(values))
    (folder / "weak.yaml").write_text(yaml.safe_dump({"objective": {"norm_penalty": {"weight": 1e-3}}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCOPE_CACHE", str(folder / "cache"))
        words = ["study", "--config", folder / "all.yaml", "--quiet", "--out", folder / "study"]
        names = f"dense/raw,{folder / 'weak.yaml'},in bytes"
        assert run_command(patch, *words, "--conditions", names) == 0
        yield folder / "study"


def test_each_variant_has_its_own_name_and_settings(study: Path, tmp_path: Path) -> None:
    runs = {run.condition: run for run in load_results(study).runs}
    assert list(runs) == ["dense/raw", "weak", "in bytes"]
    assert runs["weak"].config["objective"]["norm_penalty"]["weight"] == 1e-3
    assert runs["in bytes"].config["data"]["tokenizer"]["kind"] == "bytes"
    assert yaml.safe_load((study / "study.yaml").read_text())["over"].keys() == SHARED.keys()
    with pytest.raises(
        ValueError, match=r"belongs to another config \(objective.norm_penalty.weight: 0.001 there"
    ):
        run_study("laptop", ["weak"], [0], study, SHARED, True, True, {"weak": {}})


def test_different_tokenizers_compare_in_bits_per_byte(study: Path) -> None:
    compared = compare_study(study)
    assert (study / COMPARISON).is_file()
    assert compared.conditions == ("dense/raw", "weak", "in bytes")
    for option in compared.options:
        evaluation = load_evaluation(run_folder(study, option.condition, 0))
        assert evaluation is not None
        loss = evaluation.depth[0].per_loop[option.loops - 1].loss
        assert option.bits_per_byte.mean == pytest.approx(loss / math.log(2) / evaluation.bytes_per_token)
    (difference,) = [
        d for d in compared.differences if (d.one, d.other, d.loop) == ("dense/raw", "in bytes", 2)
    ]
    means = {option.condition: option.bits_per_byte.mean for option in compared.options if option.loops == 2}
    assert difference.bits_per_byte.mean == pytest.approx(means["in bytes"] - means["dense/raw"])
    (note,) = [note for note in compared.notes if note.startswith("Windows differ")]
    assert "in bytes: 62 of 24 tokens, 1 bytes a token" in note
    with pytest.raises(
        ValueError, match="evaluated on different text .*Models of different tokenizers compare on the"
    ):
        compare_study(study, windows=8)
    with pytest.raises(ValueError, match="leave out --time"):
        compare_study(study, time=True)


def test_runs_and_studies_compare_and_names_tell_them_apart(study: Path, tmp_path: Path) -> None:
    raw, weak = study / "dense_raw" / "seed-0", study / "weak" / "seed-0"
    assert compare_study([raw, str(weak)]).conditions == ("dense/raw", "weak")
    other = Path(
        shutil.copytree(study, tmp_path / "other", ignore=shutil.ignore_patterns("in_bytes*", COMPARISON))
    )
    compared = compare_study([study, other], ["dense/raw"])
    assert compared.conditions == ("dense/raw (study)", "dense/raw (other)")
    assert {round(entry.bits_per_byte.mean, 12) for entry in compared.differences} == {0.0}
    assert not (other / COMPARISON).exists()
    # At another seed it is the same condition.
    run_study("laptop", ["dense/raw"], [1], tmp_path / "more", SHARED, quiet=True)
    assert compare_study([raw, weak, tmp_path / "more"]).conditions == ("dense/raw", "weak")
    for paths, message in (
        ([raw, raw], "name each study or run once"),
        ([raw, tmp_path], "holds neither a study"),
        ([raw], "a comparison needs two conditions"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_study(paths)


def test_another_text_is_refused(study: Path, tmp_path: Path) -> None:
    over = {**SHARED, "data": {**SHARED["data"], "max_validation_bytes": 1_400}}
    run_study("laptop", ["dense/rmsnorm"], [0], tmp_path / "short", over, quiet=True)
    with pytest.raises(ValueError, match="were evaluated on different text"):
        compare_study([study, tmp_path / "short"])
