"""Small tasks of local files, of every kind, and lm-evaluation-harness without what takes it seconds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.data.tokenizers import ByteTokenizer
from loopscope.interop.model_folder import save_model
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer

WORDS = ("red", "green", "blue", "the sky", "of grass", "a rose", "deep sea", "and", "is", "in winter")


def write_tasks(folder: Path, documents: int = 12) -> Path:
    """`colours` (answers to choose from), `lines` (whole texts), `lasts` (a last word), `endings` (text to write).

    Returns the folder, which is what --include-path takes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(documents):
        picked = [WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 7)]
        rows.append(
            {
                "question": f"Of what colour {picked[2]} {picked[0]}?" + " and" * (number % 4),
                "choices": [picked[0], f"{picked[1]} {picked[2]}", "blue"],
                "answer": number % 3,
                "line": " ".join(picked * (1 + number % 3)),
                "ending": picked[1],
            }
        )
    data = folder / "documents.json"
    data.write_text(json.dumps(rows))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "metadata": {"version": 1.0},
    }
    asked = {"doc_to_text": "{{question}}", "doc_to_target": "{{ending}}"}
    kinds: dict[str, dict[str, Any]] = {
        "colours": {
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "doc_to_choice": "{{choices}}",
            "metric_list": [_mean("acc"), _mean("acc_norm")],
        },
        "lines": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{line}}",
            "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
        },
        "lasts": {
            "output_type": "loglikelihood",
            **asked,
            "doc_to_target": " {{ending}}",
            "metric_list": [{"metric": "perplexity", "aggregation": "perplexity"}, _mean("acc")],
        },
        "endings": {
            "output_type": "generate_until",
            **asked,
            "generation_kwargs": {"until": ["\n", "and"], "max_gen_toks": 5, "do_sample": False},
            "metric_list": [_mean("exact_match")],
        },
    }
    for name, settings in kinds.items():
        # JSON is YAML.
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **common, **settings}))
    return folder


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `write_tasks`."""
    return write_tasks(tmp_path_factory.mktemp("questions"))


def byte_model(**changes: Any) -> LoopedTransformer:
    """A small model of bytes whose exits differ."""
    torch.manual_seed(0)
    settings = {"dim": 32, "heads": 2, "layers": 1, "loops": 4, "vocabulary": 256, "sequence": 64}
    model = LoopedTransformer(ModelConfig(**settings | {"positions": "rotary"} | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="session")
def byte_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `byte_model`, with its tokenizer."""
    folder = tmp_path_factory.mktemp("bytes") / "model"
    save_model(byte_model(), folder, {}, {"tokenizer.json": ByteTokenizer().to_text()})
    return folder


@pytest.fixture
def quick_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """`simple_evaluate` describes the machine after every run, for seconds."""
    from lm_eval import evaluator

    for name in ("add_env_info", "add_tokenizer_info"):
        monkeypatch.setattr(evaluator, name, lambda *given: None)
    monkeypatch.setattr(evaluator, "get_git_commit_hash", lambda: None)


def harness_run(lm: Any, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """What a run of the harness by itself finds."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from loopscope.evaluation.tasks.harness import BOOTSTRAP, quiet_harness

    with quiet_harness():
        manager = TaskManager(include_path=folder, include_defaults=False)
        found = simple_evaluate(
            lm, tasks=list(names), task_manager=manager, bootstrap_iters=BOOTSTRAP, log_samples=False
        )
    return dict(found["results"])


@pytest.fixture
def few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness with one folder of its own tasks: reading all 14,000 takes seven seconds."""
    from lm_eval.tasks import manager

    monkeypatch.setattr(manager, "__file__", str(Path(manager.__file__).parent / "arc" / "manager.py"))


@pytest.fixture(scope="session")
def dory_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Dory with a tokenizer that has BOS and EOS."""
    import tokenizers
    import transformers

    from tests.evaluation.lens.fixtures import dory

    if not hasattr(transformers, "DoryConfig"):
        pytest.skip(f"transformers {transformers.__version__} has no Dory")
    folder = tmp_path_factory.mktemp("dory")
    torch.manual_seed(0)
    dory(vocab_size=300, max_position_embeddings=64).save_pretrained(folder)
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    bpe.train_from_iterator(["the sky is blue and the grass is green in winter"] * 3, trainer)
    bpe.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    return folder
