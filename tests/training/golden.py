"""Golden losses: what training computes, bit for bit, so that a change that must not change numbers can be held to it.

    python -m tests.training.golden           compare with tests/assets/losses.json and print the table
    python -m tests.training.golden --record  write it anew: after a change of numerics, which brings a run of its own

Twenty steps of six families, in both precisions, with a CPU's chains compiled and not. Every loss is `float.hex()`;
the SHA-256 is of all last weights, by name. One thread. Bits hold for one kind of CPU and one build of torch: the
file says which. In a process without the suite's checks of shapes, which the compiler cannot look through.
"""

import argparse
import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from loopscope.config.recipes import recipe
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.depth import draw_depths
from loopscope.objectives.objective import build_objective
from loopscope.training.optim import build_optimizer
from loopscope.training.step import TrainingStep

ASSETS = Path(__file__).parent.parent / "assets"
LOSSES = ASSETS / "losses.json"
KEYS = ASSETS / "state_dict_keys.json"

STEPS, BATCH, SEQ, VOCABULARY = 20, 4, 24, 61
FAMILIES: dict[str, float] = {  # with which dropout
    "dense/rmsnorm": 0.1,
    "dense/raw": 0.0,
    "ouro": 0.0,
    "huginn": 0.1,
    "parcae": 0.0,
    "loopformer": 0.1,
}
TINY = {"dim": 32, "heads": 2, "layers": 2, "loops": 3, "vocabulary": VOCABULARY, "sequence": SEQ}


def config_of(family: str) -> Any:
    """The run config of a family at golden size."""
    model = {**TINY, "dropout": FAMILIES.get(family, 0.0)}
    training = {"batch": BATCH, "steps": STEPS, "learning_rate": 3e-3}
    data = {"tokenizer": {"vocabulary": VOCABULARY}}
    return recipe("laptop", family, {"model": model, "data": data, "training": training})


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Counting upwards, by steps of one or two: something to learn."""
    generator = torch.Generator().manual_seed(step)
    start, stride = (torch.randint(high, (BATCH, 1), generator=generator) for high in (VOCABULARY, 2))
    tokens = (start + torch.arange(SEQ + 1) * (stride + 1)) % VOCABULARY
    return tokens[:, :-1], tokens[:, 1:]


class Trained(NamedTuple):
    """What a run leaves, and what it can be gone on with."""

    record: dict[str, Any]
    model: LoopedTransformer
    step: TrainingStep


def run(family: str, precision: Any, fused: bool) -> Trained:
    """Train: the record has the losses, and the hash of the last weights."""
    torch.compiler.reset()  # what was compiled before decides which sizes are compiled as symbols
    config = config_of(family)
    torch.manual_seed(config.training.seed)
    model = LoopedTransformer(config.model).train()
    objective = build_objective(config.objective)
    optimizer = build_optimizer(model, config.training)
    step = TrainingStep(model, objective, optimizer, config.training, torch.device("cpu"), precision, fused)
    losses = []
    for number in range(STEPS):
        torch.manual_seed(1000 + number)
        depths = draw_depths(config.training.depth, model.loops, 0, number, BATCH)
        objective.advance(number / (STEPS - 1))
        loss, _ = step(*batch(number), depths)
        losses.append(float(loss.total).hex())
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return Trained({"losses": losses, "weights": digest.hexdigest()}, model, step)


def state_keys(family: str) -> dict[str, list[int]]:
    """Names of a family's tensors, which are the keys of its checkpoints, with their shapes."""
    model = LoopedTransformer(config_of(family).model)
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def machine() -> dict[str, str]:
    """What bits depend on."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = next((line.split(":")[1].split() for line in info.splitlines() if line.startswith("flags")), [])
    vendor = next((line.split(":")[1].strip() for line in info.splitlines() if "vendor_id" in line), "")
    kinds = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return {
        "cpu": f"{platform.machine()} {vendor} {' '.join(kinds)}".strip(),
        "torch": torch.__version__,
        "threads": "1",
    }


def names() -> list[tuple[str, str, bool]]:
    """Every run: family, precision, fused."""
    return [
        (family, kind, fused) for family in FAMILIES for kind in ("fp32", "bf16") for fused in (False, True)
    ]


def title(family: str, precision: str, fused: bool) -> str:
    """The name of a run in the file."""
    return f"{family} {precision} {'fused' if fused else 'plain'}"


def worst(found: list[str], expected: list[str]) -> float:
    """The largest relative difference between two runs' losses."""
    pairs = [(float.fromhex(one), float.fromhex(other)) for one, other in zip(found, expected, strict=True)]
    return max(abs(one - other) / abs(other) for one, other in pairs)


def compare(expected: dict[str, Any], which: str) -> tuple[bool, list[str]]:
    """Whether all is as recorded, and a row for each run: bits where the machine is the recorded one's kind."""
    exact = machine() == expected["machine"]
    rows, fine = [f"{'bit for bit' if exact else 'other machine, to a tolerance'}: {machine()}"], True
    for one in names():
        if which not in title(*one):
            continue
        good, row = judge(title(*one), run(*one).record, expected)
        fine &= good
        rows.append(row)
    return fine, rows


def judge(name: str, found: dict[str, Any], expected: dict[str, Any]) -> tuple[bool, str]:
    """Whether a run's record is as recorded, and its row."""
    there = expected["runs"][name]
    error = worst(found["losses"], there["losses"])
    good = found == there if machine() == expected["machine"] else error <= (1e-4 if "fp32" in name else 2e-2)
    last = float.fromhex(found["losses"][-1])
    row = f"{name:28} {last:.6f} {'equal' if found == there else f'off by {error:.1e}'}"
    return good, row if good else f"{row}  NOT AS RECORDED"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write the file anew")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="runs whose title holds it: plain, bf16 fused"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.record:
        runs = {title(*one): run(*one).record for one in names()}
        LOSSES.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n")
        keys = {family: state_keys(family) for family in every_family()}
        KEYS.write_text(json.dumps(keys, indent=1) + "\n")
        return
    fine, rows = compare(json.loads(LOSSES.read_text()), options.only)
    print("\n".join(rows))
    sys.exit(not fine)


def every_family() -> list[str]:
    """All that a recipe can be named by."""
    from loopscope.config.recipes import CONDITIONS, NAMED

    return [*CONDITIONS, *NAMED]


if __name__ == "__main__":
    main()
