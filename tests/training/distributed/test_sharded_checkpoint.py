"""Checkpoints of a model in shards: written by all, read by any number of processes, and by whoever wants it whole."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.interop.load import load
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.results.checkpoints import model_folder
from loopscope.results.layout import CONFIG, OPTIMIZER, STATE, WEIGHTS, checkpoint_folders, has_weights
from loopscope.results.shards import reader_of
from loopscope.results.tensor_file import read_tensors
from loopscope.training.checkpoint import verify
from loopscope.training.distributed.sharded_checkpoint import check_shards
from loopscope.training.weights import load_weights
from tests.crash.kills import tensor_hashes
from tests.training.distributed.fixtures import run_ranks, trained_by
from tests.training.distributed.sharded_ranks import SHAPE
from tests.training.distributed.training_ranks import alone

pytestmark = pytest.mark.slow
SETTINGS = {"steps": 8, "checkpoint_every": 4, "keep_last": 2}
FSDP = {**SETTINGS, "parallel": "fsdp"}
MUON = {**FSDP, "optimizer": "muon"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes in shards: in one piece, saved in the background, by Muon; and one of one process."""
    folder = tmp_path_factory.mktemp("made")
    plan = [
        {"name": "whole", "training": FSDP},
        {"name": "background", "training": {**FSDP, "save": "background"}},
        {"name": "muon", "training": MUON},
    ]
    trained_by(2, folder, plan)
    alone(folder, [{"name": "one", "training": SETTINGS}])
    return folder


def cut(made: Path, run: str, to: Path) -> Path:
    """A copy of a run that was killed after step 4."""
    shutil.copytree(made / run, to)
    shutil.rmtree(to / "checkpoints" / "step-00000008")
    return to


def shards(run: Path) -> dict[tuple[str, str], str]:
    found = tensor_hashes(run)
    assert all(name.startswith("shard-") for name, _ in found)
    return found


def losses(run: Path) -> list[float]:
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in lines if record["kind"] == "train"]


def test_every_process_writes_its_share_and_no_pickle(made: Path) -> None:
    newest = checkpoint_folders(made / "whole")[0]
    names = {path.name for path in newest.iterdir()}
    assert names == {
        STATE,
        *(f"shard-0000{rank}-model-0000{kind}-of-00002.safetensors" for rank in (1, 2) for kind in (1, 2)),
    }
    assert set(json.loads((newest / STATE).read_text())["sha256"]) == names - {STATE}
    verify(newest)
    assert shards(made / "background") == shards(made / "whole")


def test_resumed_by_as_many_it_is_the_run_in_one_piece_bit_for_bit(made: Path, tmp_path: Path) -> None:
    cut(made, "whole", tmp_path / "again")
    cut(made, "muon", tmp_path / "muon")
    plan = [{"name": "again", "training": FSDP}, {"name": "muon", "training": MUON}]
    trained_by(2, tmp_path, plan)
    assert shards(tmp_path / "again") == shards(made / "whole")
    assert losses(tmp_path / "again") == losses(made / "whole")
    assert shards(tmp_path / "muon") == shards(made / "muon")


def test_resumed_by_others_it_trains_on_as_the_run_in_one_piece(made: Path, tmp_path: Path) -> None:
    cut(made, "whole", tmp_path / "four")
    cut(made, "whole", tmp_path / "one")
    trained_by(4, tmp_path, [{"name": "four", "training": FSDP}])
    alone(tmp_path, [{"name": "one", "training": SETTINGS}])
    for run in ("four", "one"):
        assert losses(tmp_path / run) == pytest.approx(losses(made / "whole"), rel=1e-5)
        assert losses(tmp_path / run)[:4] == losses(made / "whole")[:4]


def test_loaded_by_any_number_of_processes_tensors_are_exact_and_a_full_disk_costs_one_save(
    made: Path, tmp_path: Path
) -> None:
    script = str(Path(__file__).parent / "sharded_ranks.py")
    checkpoints = [str(checkpoint_folders(made / run)[0]) for run in ("whole", "muon", "one")]
    for world in (2, 4):
        run_ranks([script, str(tmp_path), *checkpoints], world, tmp_path)
        found: dict[str, Any] = json.loads((tmp_path / "held.json").read_text())
        assert min(found[path] for path in checkpoints) > 40, found
        if world == 2:
            for key in ("waiting 0", "waiting 1", "background 0", "background 1"):
                (said,) = found[key]["said"]
                assert "step-00000004 was not saved: the disk is full" in said, key
                assert "step-00000002 is the newest" in said
                assert found[key]["kept"] == ["step-00000007", "step-00000006", "step-00000002"]
                assert found[key]["there"] == sorted(found[key]["kept"])


def test_whoever_reads_weights_reads_shards(made: Path, tmp_path: Path) -> None:
    newest = checkpoint_folders(made / "whole")[0]
    one = read_tensors(checkpoint_folders(made / "one")[0] / WEIGHTS)
    found = read_tensors(newest / WEIGHTS)
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor, one[name], atol=1e-4), name
    assert model_folder(made / "whole") == newest
    assert has_weights(newest)
    model = LoopedTransformer(ModelConfig(**SHAPE, dropout=0.0))  # type: ignore[arg-type]
    load_weights(model, str(made / "whole"))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.items())
    folder = shutil.copytree(newest, tmp_path / "model")
    (folder / STATE).unlink()
    (folder / CONFIG).write_text(json.dumps({"model": model.config.model_dump(mode="json")}))
    assert all(torch.equal(tensor, load(folder).state_dict()[name]) for name, tensor in found.items())


@pytest.mark.parametrize("kind", [1, 2])
def test_a_damaged_or_missing_share_is_named_and_the_one_before_is_read(
    made: Path, tmp_path: Path, kind: int
) -> None:
    run = Path(shutil.copytree(made / "whole", tmp_path / "run"))
    path = checkpoint_folders(run)[0] / f"shard-00002-model-0000{kind}-of-00002.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=path.name):
        verify(path.parent)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path.name} is missing"):
        verify(path.parent)
    path.write_bytes(content)
    path.with_name(path.name.replace("shard-00002", "shard-00001")).unlink()
    (path.parent / STATE).unlink()  # which would name it
    with pytest.raises(ValueError, match="of the .* numbers of .* in its shards; restore the missing"):
        read_tensors(path.parent / (WEIGHTS if kind == 1 else OPTIMIZER))
    plan = [{"name": "run", "training": FSDP}]
    trained_by(2, tmp_path, plan)
    assert shards(run) == shards(made / "whole")
    assert "damaged-step-00000008" in {path.name for path in (run / "checkpoints").iterdir()}


def test_shards_that_are_not_tied_as_the_model_are_refused_by_name(made: Path) -> None:
    newest = checkpoint_folders(made / "whole")[0]
    found: Any = reader_of(newest, WEIGHTS).read_metadata().state_dict_metadata
    model = LoopedTransformer(ModelConfig(**SHAPE))  # type: ignore[arg-type]
    check_shards(newest, model, found, {})
    untied = LoopedTransformer(ModelConfig(**SHAPE, tied=False))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"unembedding.weight\); set model.tied: true"):
        check_shards(newest, untied, found, {})
    with pytest.raises(
        ValueError, match=r"unembedding.weight\), and this model's is tied .*model.tied: false"
    ):
        check_shards(newest, model, {**found, "unembedding.weight": found["token_embedding.weight"]}, {})
    wider = LoopedTransformer(ModelConfig(**{**SHAPE, "dim": 32}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"token_embedding.weight is \(17, 16\) there, \(17, 32\) here"):
        check_shards(newest, wider, found, {})
