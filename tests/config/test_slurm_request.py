"""What jobs ask a cluster for: names of ours, anything of sbatch's, and slips that are found."""

from typing import Any

import pytest

from loopscope.config.nested import yaml_value
from loopscope.config.slurm_request import (
    OF_SBATCH,
    SlurmRequest,
    minutes_of,
    requests_in,
    slurm_request,
)
from tests.test_readme import ROOT, blocks


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("1:30", 2),
        ("4:00:00", 240),
        ("0:00:01", 1),
        ("2-0", 2880),
        ("1-02:30", 1590),
        ("1-12:00:00", 2160),
    ],
)
def test_times_are_sbatch_s(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes
    assert SlurmRequest(time=text).minutes == minutes


@pytest.mark.parametrize("text", ["", "0", "0:00:00", "soon", "1-", "-1", "1:2:3:4", "1.5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; give minutes"):
        minutes_of(text)


@pytest.mark.parametrize(
    ("value", "found"),
    [("32", "32GB"), (32, "32GB"), ("32gb", "32GB"), ("512M", "512MB"), ("1TiB", "1TB"), (None, None)],
)
def test_memory_has_a_unit(value: Any, found: str | None) -> None:
    assert slurm_request({"memory": value}).memory == found


def test_a_time_in_a_file_is_no_number_to_the_base_of_sixty() -> None:
    for text in ("4:00:00", "08:00:00", "1:30", "1-12:00:00", "90"):
        found = slurm_request(yaml_value(f"time: {text}", "cluster.yaml"))
        assert found == slurm_request(requests_in(f"time={text}"))


def test_words_and_sections_say_the_same() -> None:
    word = slurm_request(
        requests_in("gpus=2, time=4:00:00,partition=gpu,constraint=a100,exclusive,mail-type=END")
    )
    section = slurm_request(
        {
            "gpus": 2,
            "time": "4:00:00",
            "partition": "gpu",
            "sbatch": {"constraint": "a100", "exclusive": True, "mail_type": "END"},
        }
    )
    assert word == section
    assert dict(word.sbatch) == {"constraint": "a100", "exclusive": True, "mail-type": "END"}
    assert requests_in("") == {}
    assert slurm_request({}) == SlurmRequest()


def test_no_parameter_of_sbatch_is_taken_for_a_slip() -> None:
    for name in OF_SBATCH:
        assert dict(slurm_request({name: "1"}).sbatch) == {name.replace("_", "-"): "1"}


def test_the_section_of_the_page_on_clusters_is_one() -> None:
    (text,) = blocks(ROOT / "docs" / "cluster.md", "yaml")
    found = slurm_request(yaml_value(text, "cluster.yaml")["slurm"])
    assert (found.gpus, found.minutes, found.setup) == (1, 720, ("module load cuda",))
    assert dict(found.sbatch) == {"constraint": "a100"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"partion": "gpu"}, "slurm.partion is not known; did you mean partition?"),
        ({"acount": "x"}, "did you mean account?"),
        ({"cpus_per_task": 3}, "slurm.cpus_per_task is cpus here; name that"),
        ({"nodes": 2}, "slurm.nodes is set for every job already; leave it out"),
        ({"signal": "USR1"}, "is set for every job already"),
        ({"a b": 1}, "which can be no parameter of sbatch"),
        ({"gpus": "many"}, "slurm: gpus is 'many'"),
        ({"cpus": 0}, "slurm: cpus is 0"),
        (["gpus"], "give names and values"),
    ],
)
def test_what_does_not_fit_is_told(values: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        slurm_request(values)


@pytest.mark.parametrize(
    ("text", "says"), [("gpus=", "give names and values"), ("=1", "give names"), ("gpus=1,gpus=2", "twice")]
)
def test_words_that_say_nothing_are_told(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        requests_in(text)
