"""Processes of one training, started by hand as torchrun starts them; and what a training showed, to be compared."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def environments(world: int) -> list[dict[str, str]]:
    """The environment of each of `world` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        **{"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"},
        **{
            "MASTER_PORT": str(port),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        },
    }
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def run_ranks(
    words: Sequence[str], world: int, folder: Path, timeout: float = 240, expected: int = 0
) -> list[str]:
    """Run `python WORDS` in so many processes; return what each printed. All must end with one status."""
    logs = [folder / f"log{rank}" for rank in range(world)]
    processes = []
    for log, environment in zip(logs, environments(world), strict=True):
        with log.open("w") as file:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *words], env=environment, stdout=file, stderr=subprocess.STDOUT
                )
            )
    try:
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(timeout=timeout) == expected, log.read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()
    return [log.read_text() for log in logs]


def trained_by(world: int, folder: Path, plan: list[dict[str, Any]]) -> dict[str, Any]:
    """What `training_ranks` showed of every training in a plan, by so many processes."""
    script = Path(__file__).parent / "training_ranks.py"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    run_ranks([str(script), str(folder)], world, folder)
    shown: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return shown
