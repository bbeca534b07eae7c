"""Parts that must be quick to load never load torch: each is imported in a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest

from loopscope.interop.model_folder import save_model
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
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


def test_the_list_of_commands_waits_for_no_settings() -> None:
    loaded = modules_after(
        "import sys; sys.argv = ['loopscope', '--help']; from loopscope import cli; cli.main()"
    )
    assert {"pydantic", "rich", "loopscope.config", "loopscope.results", "numpy"} & loaded == set()


def test_a_fast_audit_loads_no_compiler_and_no_transformers(tmp_path: Path) -> None:
    """torch's compiler comes with the first `checkpoint`, sympy with a gradient that is given its own: seconds each."""
    config = ModelConfig(dim=16, heads=2, layers=1, loops=2, vocabulary=256, sequence=16)
    save_model(LoopedTransformer(config), tmp_path / "model", {}, {})
    words = ["loopscope", "audit", str(tmp_path / "model"), "--fast", "--sequences", "2"]
    loaded = modules_after(f"import sys; sys.argv = {words!r}; from loopscope import cli; cli.main()")
    assert "torch" in loaded
    assert {"torch._dynamo", "sympy", "transformers", "matplotlib", "plotly", "pandas"} & loaded == set()
