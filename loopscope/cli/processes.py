"""The command line in several processes (torchrun): the first one speaks, and all end alike. Never waits for torch."""

import os
import signal
import threading
import time

SHARED_COMMANDS = ("train",)
"""Commands that several processes carry out together."""
PATIENCE = 2.0
"""Seconds that the others leave the first to say why it ends: torchrun ends all when one has."""


def place() -> tuple[int, int]:
    """Return this process' number and how many there are, as torchrun says in the environment; (0, 1): it is alone."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(os.environ.get(name) for name in names):
        return 0, 1
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except ValueError:  # what joins them says what is wrong
        return 0, 1


def speaks() -> bool:
    """Return whether this process is the one that prints."""
    return place()[0] == 0


def refuse_company(name: str) -> None:
    """Raise ValueError for a command that several processes would do several times."""
    _, world = place()
    if world > 1 and name not in SHARED_COMMANDS:
        raise ValueError(
            f"{world} processes were started for `loopscope {name}`, which takes one; start it without torchrun. "
            "`loopscope train` is what several processes do together"
        )


def let_the_first_speak() -> None:
    """Wait, in all processes but the first, until that one has said why all end."""
    if speaks():
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(PATIENCE)
