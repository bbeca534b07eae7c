"""`python -m tests.fuzz --cases 2000`: damaged files of every kind. Exits with 1 where any fails.

Configs and model folders have tests of their own (tests/config/test_fuzz.py, tests/interop/test_damaged_files.py): they
are run too, with their own number of cases.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BESIDE = (HERE.parent / "config" / "test_fuzz.py", HERE.parent / "interop" / "test_damaged_files.py")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="of the kinds of files here together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = {}
    for path in (*sorted(HERE.glob("test_*.py")), *BESIDE):
        name = str(path.relative_to(HERE.parent.parent))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
        command += [f"--hypothesis-seed={options.seed}", "--hypothesis-show-statistics"]
        environment = {**os.environ, "LOOPSCOPE_FUZZ_CASES": str(options.cases)}
        done = subprocess.run(
            command, cwd=HERE.parent.parent, env=environment, capture_output=True, text=True
        )
        counts = [int(count) for count in re.findall(r"- (\d+) passing", done.stdout)]
        found[name] = {"passed": done.returncode == 0, "cases": sum(counts)}
        print(
            f"{name:44} {sum(counts):6} cases  {'passed' if done.returncode == 0 else 'FAILED'}", flush=True
        )
        if done.returncode:
            print(done.stdout[-4000:])
    failed = [name for name, each in found.items() if not each["passed"]]
    print(json.dumps({"fuzz": "damaged files", "seed": options.seed, "failed": failed, "files": found}))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
