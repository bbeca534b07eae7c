"""What schedulers send to a training, and the exit status that they read."""

import signal

PREEMPTION = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""How schedulers ask: SLURM with SIGTERM, or with what `--signal` names; Windows has no SIGUSR1."""
REQUEUE = 99
"""Of a training that a scheduler cut off: the same command, or the one it names, goes on."""
