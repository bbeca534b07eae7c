"""Exit statuses that schedulers read."""

REQUEUE = 99
"""Of a training that a scheduler cut off: the same command, or the one it names, goes on."""
