"""How Loopscope fares on the code of repositories that no package index has: one row a model, as `foreign_models`.

    python -m benchmarks.foreign_repositories --repositories DIR
    python -m benchmarks.foreign_repositories --repositories DIR looplm parcae

DIR holds checkouts, `OWNER+NAME` each, with the commit in a file COMMIT or a git repository; what it does not hold is
skipped by name. Small random models of the repository's own classes (`repository_models`). Some were written for
transformers 4.56 and have a row only there. Columns as in `foreign_models`, with the commit.
"""

import argparse
import subprocess
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.environment import environment, finish, table
from benchmarks.foreign_models import FAILS, measure
from benchmarks.repository_code import Repository
from benchmarks.repository_models import REPOSITORIES
from tests.interop.foreign.families.models import IDS, LABELS

HEADINGS = "model, commit, opened by, verdict, right, exits, depths, one unroll, bf16, masks, seconds"


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, from its file COMMIT or from git; `unknown` where neither says."""
    if (checkout / "COMMIT").is_file():
        return (checkout / "COMMIT").read_text(encoding="ascii").strip()
    found = subprocess.run(
        ["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def why_not(repository: Repository, folder: Path) -> str | None:
    """Why a model has no row here; None where it has."""
    if not (folder / repository.folder).is_dir():
        return "not in the folder"
    if repository.transformers and not transformers.__version__.startswith(f"{repository.transformers}."):
        return f"written for transformers {repository.transformers}, this is {transformers.__version__}"
    return None


def row_of(repository: Repository, folder: Path) -> dict[str, Any]:
    """Measure one model; a row that fails is a row."""
    start = time.perf_counter()
    try:
        found = measure(repository.case(folder / repository.folder), IDS, LABELS)
    except Exception as error:
        found = {"failed": f"{type(error).__name__}: {error}", "seconds": time.perf_counter() - start}
    return {**found, "right": repository.verdict, "commit": commit_of(folder / repository.folder)}


def cells(repository: Repository, row: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    head = [repository.name, row["commit"][:10], f"`{repository.call}`"]
    if "failed" in row:
        return [*head, row["failed"], row["right"], *[""] * 5, f"{row['seconds']:.0f}"]
    depths = sorted(row["depths"])
    shown = {
        name: f"{row[name]:.0e}" if isinstance(row[name], float) else row[name] or "-"
        for name in ("one_unroll", "masks")
    }
    return [
        *head,
        row["verdict"],
        row["right"],
        f"{row['exits']:.0e}",
        str(depths[0]) if len(depths) == 1 else f"{depths[0]} to {depths[-1]}",
        shown["one_unroll"],
        row["bf16"],
        shown["masks"],
        f"{row['seconds']:.0f}",
    ]


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="rows whose name holds one of these; none: all")
    parser.add_argument("--repositories", type=Path, required=True, metavar="DIR", help="folder of checkouts")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # what goes along beside H_k, and what packages deprecate
    printed, figures = [], {}
    for repository in REPOSITORIES:
        if options.names and not any(part.lower() in repository.name.lower() for part in options.names):
            continue
        if reason := why_not(repository, options.repositories):
            print(f"skipped {repository.name}: {reason}")
            continue
        row = figures[repository.name] = row_of(repository, options.repositories)
        printed.append(cells(repository, row))
    table(HEADINGS.split(", "), printed)
    right = sum(
        row.get("verdict") == row["right"] and row["bf16"] in (row["right"], FAILS)
        for row in figures.values()
    )
    print(f"right, from bf16 weights too where they run at all: {right} of {len(figures)}")
    where = {**environment(), "transformers": transformers.__version__}
    finish({"benchmark": "foreign_repositories", "rows": figures, "right": right}, where)


if __name__ == "__main__":
    main()
