"""A tiny run in processes of its own, forked from this one, which has imported all that they take and never trains."""

import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
import torch._dynamo  # what every process would import at its first step: two seconds
import torch.distributed.fsdp

from loopscope.config.recipes import recipe
from loopscope.jobs.train import execute
from loopscope.results.layout import CONFIG
from loopscope.training import throughput

Way = Literal["plain", "background", "ddp", "fsdp"]
WAYS: tuple[Way, ...] = ("plain", "background", "ddp", "fsdp")
STEPS, INTERVAL = 40, 4
SETTINGS: dict[str, Any] = {
    "model": {
        "dim": 16,
        "heads": 2,
        "layers": 1,
        "loops": 3,
        "vocabulary": 4,
        "sequence": 7,
        "dropout": 0.1,
    },
    "data": {
        "corpus": "task",
        "task": {"name": "modular-addition", "length": 6, "modulus": 3, "answers": "all", "validation": 64},
    },
    "training": {
        "batch": 8,
        "steps": STEPS,
        "checkpoint_every": INTERVAL,
        "log_every": 1,
        "monitor_every": 0,
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
        "compile": False,
    },
}


def config_of(way: Way) -> Any:
    """The run's config: the same model, data and steps every way."""
    own = {"ddp": {"parallel": "ddp"}, "fsdp": {"parallel": "fsdp"}, "background": {"save": "background"}}
    training = {**SETTINGS["training"], **own.get(way, {"save": "waiting"})}
    return recipe("laptop", "dense/rmsnorm", {**SETTINGS, "training": training})


class Trainers:
    """The processes of one run, from its newest checkpoint on.

    Attributes:
        codes: how each has ended, by its id.
    """

    def __init__(self, way: Way, run: Path) -> None:
        world = 2 if way in ("ddp", "fsdp") else 1
        port, begun = _free_port(), (run / CONFIG).is_file()
        self.pids = [self._forked(way, run, rank, world, port, begun) for rank in range(world)]
        self.codes: dict[int, int] = {}

    def _forked(self, way: Way, run: Path, rank: int, world: int, port: int, begun: bool) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            silence = os.open(run.parent / f"{run.name}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            if world > 1:
                os.environ |= {
                    "RANK": str(rank),
                    "WORLD_SIZE": str(world),
                    "LOCAL_RANK": str(rank),
                    "LOCAL_WORLD_SIZE": str(world),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
            torch.set_num_threads(1)
            throughput.SIDE["cpu"] = 64  # of the products that are timed: the longest part of a start
            execute(config_of(way), run, resume=begun, quiet=True)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                sys.stderr.flush()
            os._exit(code)

    def lives(self) -> bool:
        """Whether all of them run."""
        for pid in self.pids:
            if pid not in self.codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
        return not self.codes

    def wait(self) -> list[int]:
        """Wait until they have ended; where one fails the others are ended, as torchrun does. Return exit codes."""
        while len(self.codes) < len(self.pids):
            self.lives()
            if any(self.codes.values()):
                self.kill(one=False)
            time.sleep(0.002)
        return [self.codes[pid] for pid in self.pids]

    def kill(self, one: bool, which: int = 0) -> None:
        """Kill one of them, or all at once."""
        for pid in [self.pids[which % len(self.pids)]] if one else self.pids:
            if pid not in self.codes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
