"""The monitor in a Trainer of two processes: one process' figures, nothing said twice, and not a bit changed."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loopscope.interop.huggingface.export.exported_model import as_exported
from tests.model.fixtures import live_model
from tests.monitor import training_ranks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both ranks saw; then what this process alone does."""
    folder = tmp_path_factory.mktemp("ranks")
    as_exported(live_model("plain", dropout=0.0)).save_pretrained(folder / "export")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        **{"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT)},
        **{"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    }
    script, logs = str(Path(training_ranks.__file__)), [folder / f"log{rank}" for rank in (0, 1)]
    ranks = []
    for rank, log in enumerate(logs):
        with log.open("w") as file:
            ranks.append(
                subprocess.Popen(
                    [sys.executable, script, str(folder / "export"), str(folder)],
                    env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        for rank, log in zip(ranks, logs, strict=True):
            assert rank.wait(timeout=240) == 0, log.read_text()[-3000:]
    finally:
        for rank in ranks:
            rank.kill()
    model = as_exported(live_model("plain", dropout=0.0))
    alone = training_ranks.trained(model, folder, watched=True)
    return [*(json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)), alone]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_are_one(found: list[dict[str, Any]], how: str) -> None:
    first, second, alone = found
    watched = first[f"{how} watched"]
    assert watched["sharded"] is (how == "fsdp")
    for one, other in zip(watched["losses"], alone["losses"], strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    for name, weight in alone["weights"].items():
        assert watched["weights"][name] == pytest.approx(weight, rel=1e-4, abs=1e-6)
    assert len(watched["checks"]) == training_ranks.STEPS
    for one, other in zip(watched["checks"], alone["checks"], strict=True):
        assert one[-1] == other[-1] == "blind"
        assert one[0] == pytest.approx(other[0], rel=1e-5)
        assert one[1] == pytest.approx(other[1], rel=1e-3)
    assert second[f"{how} watched"]["checks"] == []
    assert watched["losses"] == first[how]["losses"]
    for rank in (first, second):
        assert rank[f"{how} watched"]["weights"] == rank[how]["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_what_is_said_is_said_by_one_process(found: list[dict[str, Any]], how: str) -> None:
    first, second, alone = found
    assert len(alone["said"]) == 1
    assert "nothing holds the scale" in alone["said"][0]
    assert len(first[f"{how} watched"]["said"]) == 1
    assert second[f"{how} watched"]["said"] == []
