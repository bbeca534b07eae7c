"""What a machine has, and the advice that follows."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from loopscope.jobs import machine_facts
from loopscope.jobs.machine_advice import advice_for
from loopscope.jobs.machine_facts import MachineFacts, cpu_vectors
from loopscope.jobs.machine_report import examine_machine
from loopscope.training import throughput

QUIET = MachineFacts(
    device="cuda:0",
    device_name="a GPU",
    cpu="a CPU",
    cpu_has=("AVX2",),
    cores=4.0,
    cores_of_machine=8,
    threads=4,
    load=0.1,
    speeds={"fp32": 1e11, "bf16": 4e11},
    precision="bf16",
    compiler_missing=None,
    memory=10**11,
    memory_free=9 * 10**10,
    sizes=("laptop",),
    disk=".",
    disk_free=10**11,
    cache="cache",
    cache_free=10**11,
    versions={"torch": "2.13.0"},
    extras={"log": True},
    trials=(),
)


def advice(**changes: object) -> str:
    return "\n".join(advice_for(dataclasses.replace(QUIET, **changes)))  # type: ignore[arg-type]


def test_a_machine_without_a_fault_gets_no_advice() -> None:
    assert advice() == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": "cpu"}, "No GPU: a run of size"),
        (
            {"precision": "fp32", "speeds": {"fp32": 1e11, "bf16": 4e10}},
            "bf16 is emulated here: its products run at",
        ),
        ({"precision": "fp32"}, "bf16 products are 4 times as fast as fp32's, though auto takes fp32"),
        ({"speeds": {"fp32": 1e11, "bf16": 1e11}}, "only 1 times as fast"),
        (
            {"device": "cpu", "threads": 9},
            "9 threads for 4 cores: they wait for each other. Set OMP_NUM_THREADS=4",
        ),
        ({"device": "cpu", "threads": 1}, "1 thread of 4 cores"),
        ({"device": "cpu", "cores": 1.5, "threads": 2}, "2 threads for 1.5 cores"),
        ({"load": 9.0}, "9.0 processes want 4 cores"),
        ({"compiler_missing": "neither g++ nor clang++ is there"}, "Install g++"),
        ({"memory_free": 10**9}, "1 of 100 GB of memory are free"),
        ({"cache_free": 10**9}, "1 GB are free for cache"),
        ({"extras": {"log": False, "eval": False, "data": True}}, "pip install 'loopscope[log,eval]'"),
    ],
)
def test_each_fault_has_a_line(changes: dict[str, object], says: str) -> None:
    assert says in advice(**changes)


def test_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(throughput, "SIDE", {"cpu": 128})
    found = examine_machine(tmp_path / "not" / "yet", "cpu")
    assert found.versions["torch"] == torch.__version__
    assert found.threads == torch.get_num_threads()
    assert all(speed > 0 for speed in found.speeds.values())
    assert 0 < found.cores <= found.cores_of_machine == os.cpu_count()
    assert "laptop" in found.sizes
    assert found.disk_free
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="cannot be used here"):
        examine_machine(tmp_path, "cuda:9")


def test_instructions_are_called_as_people_call_them(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"flags": "fpu avx2 avx512f avx512_bf16 amx_tile amx_bf16"}
    monkeypatch.setattr(machine_facts, "cpu_info", lambda: said)
    assert cpu_vectors() == ("AVX2", "AVX-512", "AVX512-BF16", "AMX", "AMX-BF16")
    monkeypatch.setattr(machine_facts, "cpu_info", dict)
    assert cpu_vectors() == ()
