"""What every job of a study asks a Slurm cluster for: a few words of ours, and any parameter of sbatch beside them.

slurm:
  gpus: 1
  cpus: 8
  memory: 32GB
  time: 12:00:00
  partition: gpu
  constraint: a100        # what is none of ours is sbatch's own, as it is
  setup: [module load cuda]
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from loopscope.config.near_names import near_name
from loopscope.config.nested import shown, validated

HOURS = 4
"""Of a job that names no time: what nearly every partition takes. A run that needs more goes on in the next."""
OF_SBATCH = (
    *("qos", "constraint", "gres", "nodelist", "exclude", "reservation", "licenses", "dependency", "comment"),
    *(
        "exclusive",
        "nice",
        "begin",
        "deadline",
        "priority",
        "prefer",
        "hint",
        "tmp",
        "switches",
        "wckey",
        "chdir",
    ),
    *("mail_type", "mail_user", "export", "clusters", "cluster_constraint", "cpus_per_gpu", "gpus_per_task"),
    *("mem_per_cpu", "mem_per_gpu", "threads_per_core", "cores_per_socket", "sockets_per_node"),
)
"""Parameters of sbatch that are near one of ours in spelling, or often given: never taken for a slip."""
_OURS_INSTEAD = {"mem": "memory", "cpus_per_task": "cpus", "gpus_per_node": "gpus"}
_SET_HERE = (
    *("array", "output", "error", "open_mode", "signal", "job_name", "requeue", "no_requeue", "wrap"),
    *("ntasks", "ntasks_per_node", "nodes"),
)


class SlurmRequest(BaseModel):
    """What one job of a study asks for; every run is a job."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    gpus: int = Field(0, ge=0, le=64)
    """GPUs on its node."""
    cpus: int | None = Field(None, ge=1, le=4096)
    """CPU cores; None takes `training.threads` where that is named, else the cluster's default."""
    memory: str | None = None
    """Main memory, such as 32GB; None takes the cluster's default."""
    time: str = f"{HOURS}:00:00"
    """How long at most: 90 (minutes), 4:00:00, 1-12:00:00. What is not done by then is saved and queued."""
    partition: str | None = None
    """Where it waits."""
    account: str | None = None
    """Who pays."""
    requeues: int = Field(50, ge=0, le=10_000)
    """How often a job that used up its time goes back to the queue. One that is preempted always does."""
    setup: tuple[str, ...] = ()
    """Lines of shell before each job, such as `module load cuda`."""
    sbatch: Mapping[str, str | int | bool] = {}
    """Any other parameter of sbatch, by its name."""

    @field_validator("memory", mode="before")
    @classmethod
    def _has_a_unit(cls, value: Any) -> Any:
        text = str(value).strip().upper() if isinstance(value, str | int | float) else ""
        if value is None:
            return None
        found = re.fullmatch(r"(\d+)\s*([KMGT])I?B?|(\d+)", text, re.ASCII)
        if found is None or isinstance(value, bool):
            raise ValueError(
                f"{shown(value)} is no amount of memory; give gigabytes, or a number with a unit: 32GB"
            )
        return f"{found[1]}{found[2]}B" if found[1] else f"{found[3]}GB"

    @field_validator("time", mode="before")
    @classmethod
    def _is_a_time(cls, value: Any) -> Any:
        text = str(value).strip()
        minutes_of(text)
        return text

    @property
    def minutes(self) -> int:
        """The time of a job in whole minutes."""
        return minutes_of(self.time)


def minutes_of(text: str) -> int:
    """Return a time as sbatch writes it in minutes, rounded up.

    Raises:
        ValueError: none of its forms, or no time at all.

    Example:
        >>> minutes_of("1-02:30:00"), minutes_of("4:00:00"), minutes_of("90")
        (1590, 240, 90)
    """
    found = re.fullmatch(
        r"(?:(\d{1,3})-(\d{1,2})(?::(\d{1,2}))?(?::(\d{1,2}))?)|(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?", text
    )
    seconds = 0
    if found and found[1] is not None:  # days-hours[:minutes[:seconds]]
        days, hours, minutes, rest = (int(part or 0) for part in found.groups()[:4])
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    elif found:
        parts = [int(part) for part in found.groups()[4:] if part is not None]
        hours, minutes, rest = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
        seconds = (hours * 60 + minutes) * 60 + rest
    if not seconds:
        raise ValueError(
            f"{shown(text)} is no time; give minutes (90), h:mm:ss (4:00:00) or d-h:mm:ss (1-12:00:00)"
        )
    return -(-seconds // 60)


def slurm_request(values: Mapping[str, Any]) -> SlurmRequest:
    """Return the request that plain values make: names of ours, and beside them any parameter of sbatch.

    Raises:
        ValueError: a value that does not fit, or a name that is a slip of one of ours, or that jobs have already.
    """
    if not isinstance(values, Mapping):
        raise ValueError(
            f"slurm is {shown(values)}; give names and values: gpus=1,time=4:00:00, or a section of YAML"
        )
    own: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in values.items():
        key = str(name).strip().lstrip("-").replace("-", "_")
        if key in SlurmRequest.model_fields and key != "sbatch":
            own[key] = value
        elif key == "sbatch" and isinstance(value, Mapping):
            others.update({str(inner).replace("_", "-"): each for inner, each in value.items()})
        else:
            _check_parameter(key)
            others[key.replace("_", "-")] = True if value is None else value
    return validated(SlurmRequest, {**own, "sbatch": others}, "slurm")


def requests_in(text: str) -> dict[str, str | None]:
    """Return the names and values of one word, such as gpus=1,time=4:00:00,exclusive.

    Raises:
        ValueError: a name that is given twice, or a value without one.
    """
    found: dict[str, str | None] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not name or (equals and not value):
            raise ValueError(f"slurm has {shown(part)}; give names and values: gpus=1,time=4:00:00")
        if name in found:
            raise ValueError(f"slurm names {name} twice; name it once")
        found[name] = value if equals else None
    return found


def _check_parameter(key: str) -> None:
    """Refuse a name that is no parameter of sbatch's own that a user may set: a slip, or one that is set already."""
    if key in _OURS_INSTEAD:
        raise ValueError(f"slurm.{key} is {_OURS_INSTEAD[key]} here; name that")
    if key in _SET_HERE:
        raise ValueError(f"slurm.{key} is set for every job already; leave it out")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", key):
        raise ValueError(
            f"slurm has {shown(key)}, which can be no parameter of sbatch; give a word such as qos"
        )
    near = near_name(key, [name for name in SlurmRequest.model_fields if name != "sbatch"])
    if key not in OF_SBATCH and near is not None:
        raise ValueError(
            f"slurm.{key} is not known; did you mean {near}? (what is sbatch's as it is goes below `sbatch:` in a "
            "YAML file)"
        )
