"""Parts that must be quick to load never load torch: each is imported in a fresh interpreter."""

import subprocess
import sys

import pytest

from tests.import_graph import modules


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import loopscope, loopscope.results.lock, loopscope.jobs, loopscope.monitor",
        "; ".join(
            f"import loopscope.{name}" for name in sorted(modules()) if name.startswith(("config", "plan"))
        ),
        "; ".join(f"import loopscope.{name}" for name in sorted(modules()) if name.startswith("report")),
        "; ".join(
            f"import loopscope.{name}"
            for name in sorted(modules())
            if name.startswith(("cli", "results")) and name != "cli.__main__"
        ),
        "import loopscope.plan.catalogue; loopscope.plan.catalogue.catalogue_rows()",
    ],
    ids=["root", "config and plan", "report", "cli and results", "a plan at work"],
)
def test_light_parts_never_load_torch(code: str) -> None:
    assert "torch" not in modules_after(code)


def test_the_fresh_interpreter_check_can_fail() -> None:
    assert "torch" in modules_after("import loopscope.recurrence")
