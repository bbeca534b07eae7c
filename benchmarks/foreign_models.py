"""How Loopscope fares on looped models of others: opened, verdict, exits, half precision, masks; one row a model.

    python -m benchmarks.foreign_models
    python -m benchmarks.foreign_models dory nanbeige

Small random models: real code where a package has it (a row whose package is missing says so), elsewhere structures of
our own with the same parts (`tests/interop/lookalikes`). Right verdicts are the structures, from sources and hooks
alone. Columns:

    exits      largest difference of logits, of forwards of 1 to 2K loops, from the module's own
    one unroll the same, of the exits of one unroll of 2K loops; "-" where an exit on the way is another by design
    bf16       the verdict from bf16 weights
    masks      largest difference at a row's tokens, padded on the left, from what the row gives alone
"""

import argparse
import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import torch
import transformers
from torch import Tensor

import loopscope
from benchmarks.environment import environment, finish, table
from loopscope.recurrence import unroll
from tests.interop.foreign.families import fixtures
from tests.interop.foreign.families.models import CASES, IDS, LABELS, Named

PADDED = 3
"""Tokens of padding in the row that is padded."""

HEADINGS = "model, code, opened by, verdict, right, exits, one unroll, bf16, masks, seconds"

FAILS = "own forward fails"
"""What is said of a module that does not run in bf16 by itself."""

REAL = {"hrm": "transformers", "x-transformers": "x-transformers"}
"""Families with an adapter of their own whose real code is run here."""


def rows() -> dict[str, tuple[Named, Tensor, Tensor]]:
    """Every model, with the ids and labels that its own logits are for."""
    found = {name: (case, IDS, LABELS) for name, case in CASES.items()}
    for name, case in fixtures.CASES.items():
        named = Named(case.make, case.own, case.verdict, code=REAL.get(name, "structure"))
        found[name] = (named, fixtures.IDS, fixtures.LABELS)
    return found


def measure(case: Named, ids: Tensor, labels: Tensor) -> dict[str, Any]:
    """Everything that a row says, as numbers and words; what fails says how."""
    start = time.perf_counter()
    torch.manual_seed(0)
    module = case.make().eval()
    model = case.open(module)
    found: dict[str, Any] = {"loops": model.loops, "verdict": loopscope.audit(model, ids, labels).verdict}
    with torch.no_grad():
        own = {loops: case.own(copy.deepcopy(module), loops) for loops in case.depths(model.loops)}
        alone = [_gap(last_logits(model, ids, loops), logits) for loops, logits in own.items()]
        on_the_way = [
            _gap(state.logits(), own[state.loop])
            for state in unroll(model, ids, max(own))
            if state.loop in own
        ]
    found["depths"] = list(own)
    found["exits"] = max(alone)
    found["one_unroll"] = max(on_the_way) if case.on_the_way and len(own) > 1 else None
    found["masks"] = _tried(lambda: masked_gap(model, ids)) if case.masks else None
    found["bf16"] = _tried(lambda: half_verdict(case, ids, labels))
    found["seconds"] = time.perf_counter() - start
    return found


def last_logits(model: Any, ids: Tensor, loops: int, **more: Any) -> Tensor:
    """Logits of the last of so many loops."""
    *_, last = unroll(model, ids, loops, **more)
    return last.logits()


@torch.no_grad()
def masked_gap(model: Any, ids: Tensor) -> float:
    """How much a row's logits change when it is padded on the left beside a longer one."""
    short = ids[:1, PADDED:]
    padded = torch.cat([ids[:1, :PADDED] * 0, short], dim=1)
    both = torch.cat([padded, ids[1:]])
    mask = torch.ones_like(both)
    mask[0, :PADDED] = 0
    together = last_logits(model, both, model.loops, attention_mask=mask)[:1, PADDED:]
    return _gap(together, last_logits(model, short, model.loops))


def half_verdict(case: Named, ids: Tensor, labels: Tensor) -> str:
    """The verdict from bf16 weights."""
    try:
        with torch.no_grad():
            case.own(_in_half(case), 2)
    except Exception:
        return FAILS
    return str(loopscope.audit(case.open(_in_half(case)), ids, labels).verdict)


def _in_half(case: Named) -> Any:
    """The module in bf16, loaded as transformers loads it where it does: some weights stay in fp32."""
    torch.manual_seed(0)
    module = case.make().eval()
    # A repository's class is no more where its weights would be looked for.
    if not isinstance(module, transformers.PreTrainedModel) or case.code == "repository":
        return module.bfloat16()
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        return type(module).from_pretrained(folder, dtype=torch.bfloat16).eval()


def _tried(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().max())


def _cells(name: str, case: Named, found: Mapping[str, Any]) -> list[str]:
    if "verdict" not in found:
        return [name, case.code, case.call, found["missing"], case.verdict, *[""] * 5]
    code = case.code if case.code == "structure" else f"{case.code} {metadata.version(case.code)}"
    words = [name, code, case.call]
    masks = f"{found['masks']:.0e}" if isinstance(found["masks"], float) else "not given"
    one = "-" if found["one_unroll"] is None else f"{found['one_unroll']:.0e}"
    bf16 = found["bf16"].split(":")[0]
    return [
        *words,
        found["verdict"],
        case.verdict,
        f"{found['exits']:.0e}",
        one,
        bf16,
        masks,
        f"{found['seconds']:.0f}",
    ]


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="rows whose name holds one of these; none: all")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # what goes along beside H_k, and what packages deprecate
    printed, figures = [], {}
    for name, (case, ids, labels) in rows().items():
        if options.names and not any(part in name for part in options.names):
            continue
        try:
            found = measure(case, ids, labels)
        except ImportError as error:
            found = {"missing": f"not installed ({error.name or error})"}
        except Exception as error:  # a row that fails is a row
            found = {"missing": f"{type(error).__name__}: {error}"}
        figures[name] = {**found, "right": case.verdict}
        printed.append(_cells(name, case, found))
    table(HEADINGS.split(", "), printed)
    measured = [row for row in figures.values() if "verdict" in row]
    right = sum(row["verdict"] == row["right"] and row["bf16"] in (row["right"], FAILS) for row in measured)
    print(f"right, from bf16 weights too where they run at all: {right} of {len(measured)}")
    where = {**environment(), "transformers": transformers.__version__}
    finish({"benchmark": "foreign_models", "rows": figures, "right": right}, where)


if __name__ == "__main__":
    main()
