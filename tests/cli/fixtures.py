"""The commands, and the classes that hold their options."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from loopscope.cli import COMMANDS
from loopscope.interop.model_folder import save_model
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from tests.fixtures import TINY, run_command

CLASSES = {
    "train": "Train",
    "study": "Study",
    "audit": "Audit",
    "generate": "Generate",
    "lens": "LensPrompt",
    "recipes": "Recipes",
    "plan": "PlanCommand",
    "list": "ListRuns",
    "doctor": "Doctor",
    "completion": "Completion",
    "report": "Report",
    "retrofit": "Retrofit",
    "export": "Export",
    "import-published": "ImportPublished",
    "evaluate depth": "Depth",
    "evaluate exits": "EvaluateExits",
    "evaluate compare": "Compare",
    "evaluate tasks": "EvaluateTasks",
}


def class_of(command: str) -> type:
    """The dataclass of a command's options."""
    named = COMMANDS[command].module if command in COMMANDS else command.replace(" ", "_")
    module = import_module(f"loopscope.cli.{named}")
    found: type = getattr(module, CLASSES[command])
    return found


@pytest.fixture(scope="module")
def lens_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, a model folder without a limit of positions, and a folder of transformers."""
    from tests.evaluation.lens.fixtures import dory

    folder = tmp_path_factory.mktemp("lens")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCOPE_CACHE", str(folder / "cache"))
        patch.setattr(torch, "set_num_threads", lambda count: None)
        patch.chdir(folder)
        assert run_command(patch, "train", *TINY, "--condition", "dense/raw", "--out", "run", "--quiet") == 0
    config = ModelConfig(dim=16, heads=2, layers=1, loops=2, vocabulary=256, sequence=16, positions="rotary")
    save_model(LoopedTransformer(config), folder / "rotary", {}, {})
    torch.manual_seed(0)
    dory(vocab_size=256, max_position_embeddings=64).save_pretrained(folder / "dory")
    return folder
