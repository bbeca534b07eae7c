"""What is measured of folders that transformers wrote: where it is kept, the page of it, and models side by side."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopscope.audit import audit
from loopscope.evaluation.compare.comparison import compare
from loopscope.jobs import compare_study
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.results import AuditReport, Comparison, ModelEvaluation, load_audits, model_fingerprint
from loopscope.results.layout import AUDIT, EVALUATION, PREVIOUS_AUDIT, REPORT, visible
from tests.fixtures import TINY
from tests.interop.huggingface.test_pretrained import byte_tokenizer, dory, hrm
from tests.report.fixtures import without_files

TEXT = "def main(loops):\n    return loops + 1\n" * 60


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models: one with a tokenizer, and one that reads bytes."""
    folders = {}
    for make in (dory, hrm):
        torch.manual_seed(0)
        folder = folders[make.__name__] = tmp_path_factory.mktemp("models") / make.__name__
        make().eval().save_pretrained(folder)
    byte_tokenizer().save(str(folders["dory"] / "tokenizer.json"))
    return folders


@pytest.fixture
def models(written: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return {name: Path(shutil.copytree(folder, tmp_path / name)) for name, folder in written.items()}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def heading(page: str) -> str:
    return page[page.index("<h1>") : page.index("</h1>")]


@pytest.mark.usefixtures("blank_figures")
def test_records_stay_with_the_model_and_make_its_page(
    models: dict[str, Path],
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: Path,
) -> None:
    folder = models["dory"]
    without_files(monkeypatch)
    words = ("--windows", 2, "--length", 8, "--loops", 4, "--data", text)
    assert call("evaluate", "depth", folder, *words) == 0
    assert f"kept in {folder / EVALUATION}; loopscope report {folder} shows it" in capsys.readouterr().err
    assert call("report", folder) == 0
    page = (folder / REPORT).read_text()
    assert "dory" in heading(page)
    assert 'id="depth"' in page
    assert 'id="results"' not in page  # of runs
    assert "Not audited" in page
    assert "Not evaluated" not in page


def test_records_may_be_kept_elsewhere(models: dict[str, Path], call: Callable[..., int], text: Path) -> None:
    folder, kept = models["hrm"], models["hrm"].parent / "mine"
    before = visible(folder)
    words = ("--length", 16, "--data", text, "--keep-in", kept)
    assert call("evaluate", "depth", folder, "--windows", 2, "--loops", 4, *words) == 0
    assert call("audit", folder, "--sequences", 1, *words) == 0
    assert visible(folder) == before
    assert visible(kept) == [AUDIT, EVALUATION]
    assert call("audit", folder, models["dory"], *words) == 2


@pytest.mark.usefixtures("blank_figures")
def test_a_folder_without_records_has_no_page(
    models: dict[str, Path], call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("report", models["dory"]) == 2
    assert "or measure a model that is there: loopscope audit" in capsys.readouterr().err


def test_models_of_others_compare_on_one_text_and_nothing_is_written(
    models: dict[str, Path], call: Callable[..., int], capsys: pytest.CaptureFixture[str], text: Path
) -> None:
    before = {name: visible(folder) for name, folder in models.items()}
    words = ("--data", text, "--length", 16, "--windows", 20, "--loops", 2, "--json")
    assert call("evaluate", "compare", models["dory"], models["hrm"], *words) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["conditions"] == ["dory", "hrm"]
    assert compared["settings"]["unit"] == "bits per byte"
    assert "counted on one forward at each depth: dory, hrm" in compared["settings"]["flops"]
    assert all(option["flops_per_token"] > 0 for option in compared["options"])
    amounts = [entry["flops_per_byte"] for entry in compared["equal_flops"]]
    assert amounts
    assert amounts == sorted(amounts)
    assert {name: visible(folder) for name, folder in models.items()} == before


def test_a_run_compares_with_a_model_of_others_on_the_runs_own_text(
    models: dict[str, Path], call: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert call("train", "--out", run, "--quiet", "--training.seed", 3, *TINY) == 0
    seen: dict[str, ModelEvaluation] = {}

    def watched(evaluations: Any, *rest: Any) -> Comparison:
        seen.update({each.condition: each for each in evaluations})
        return compare(evaluations, *rest)

    monkeypatch.setattr("loopscope.jobs.evaluate_compare.compare", watched)
    compared = compare_study([run, models["dory"]], loops=2)
    assert "Nothing says how much text these were trained on: dory." in compared.notes
    own, theirs = seen["dense/rmsnorm"], seen["dory"]
    assert own.text_hash == theirs.text_hash
    assert (own.seed, theirs.seed) == (3, 3)
    assert own.bytes_per_token > theirs.bytes_per_token == 1.0
    read = [each.windows * each.sequence * each.bytes_per_token for each in (own, theirs)]
    assert read[0] == pytest.approx(read[1], rel=0.05)  # the last window is not filled
    assert [curve.per_loop for curve in theirs.depth]
    assert (own.flops_counted, theirs.flops_counted) == (False, True)
    assert len(compared.equal_flops) > 0


def test_what_is_no_model_is_not_compared(
    models: dict[str, Path], tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", "compare", models["dory"]) == 2
    assert "needs two conditions with completed runs, or models" in capsys.readouterr().err
    assert call("evaluate", "compare", models["dory"], tmp_path) == 2
    assert "nor a model (config.json" in capsys.readouterr().err


def trained_on(folder: Path) -> None:
    """Change the folder's weights, as training does."""
    (file,) = folder.glob("*.safetensors")
    save_file({name: 1.01 * tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})


QUICK = ("--sequences", 1, "--length", 16)


@pytest.fixture(scope="module")
def report() -> AuditReport:
    """An audit, measured once."""
    ids = torch.arange(20).view(2, 10) * 7 % 40
    return audit(
        LoopedTransformer(ModelConfig(dim=8, heads=2, loops=2, vocabulary=40, sequence=16)).eval(), ids, ids
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, report: AuditReport) -> None:
    """Audits whose figures are always the same: what is kept, where, and what is said of it is not."""
    monkeypatch.setattr("loopscope.jobs.audit.audit_each", lambda *_, **__: [report])


@pytest.mark.usefixtures("quick")
@pytest.mark.usefixtures("blank_figures")
def test_a_record_of_other_weights_is_told_and_not_shown(
    models: dict[str, Path], call: Callable[..., int], capsys: pytest.CaptureFixture[str], text: Path
) -> None:
    folder = models["hrm"]
    assert call("audit", folder, "--data", text, *QUICK) == 0
    assert load_audits(folder / AUDIT)[0].fingerprint == model_fingerprint(folder)
    trained_on(folder)
    capsys.readouterr()
    assert call("report", folder) == 2
    assert "was measured of other weights or settings" in " ".join(capsys.readouterr().err.split())
    before = (folder / AUDIT).read_text()
    assert call("audit", folder, "--data", text, *QUICK) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "was of other weights of this model; it is kept as audit.previous.json" in said
    assert (folder / PREVIOUS_AUDIT).read_text() == before
    assert call("report", folder) == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.usefixtures("blank_figures")
def test_one_folder_does_not_keep_two_models(
    models: dict[str, Path], call: Callable[..., int], capsys: pytest.CaptureFixture[str], text: Path
) -> None:
    kept = models["hrm"].parent / "mine"
    words = ("--data", text, "--keep-in", kept, "--length", 16)
    assert call("evaluate", "depth", models["dory"], "--windows", 2, "--loops", 2, *words) == 0
    capsys.readouterr()
    assert call("audit", models["hrm"], "--sequences", 1, *words) == 0
    assert "evaluation.json is of another model, dory" in " ".join(capsys.readouterr().err.split())
    assert call("report", kept) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "keeps what was measured of two models: audit.json of hrm, evaluation.json of dory" in said
    assert call("evaluate", "depth", models["hrm"], "--windows", 2, "--loops", 2, *words) == 0
    assert "was of another text or another model" in " ".join(capsys.readouterr().err.split())
    assert call("report", kept) == 0


@pytest.mark.usefixtures("quick")
def test_somebody_elses_file_of_that_name_is_not_lost(
    models: dict[str, Path], call: Callable[..., int], capsys: pytest.CaptureFixture[str], text: Path
) -> None:
    folder = models["hrm"]
    (folder / AUDIT).write_text('{"vulnerabilities": {}}')
    assert call("audit", folder, "--data", text, *QUICK) == 0
    assert "audit.json was no audit of Loopscope; it is kept as" in " ".join(capsys.readouterr().err.split())
    assert (folder / PREVIOUS_AUDIT).read_text() == '{"vulnerabilities": {}}'
