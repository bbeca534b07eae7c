"""`loopscope generate` on a folder that transformers wrote: the words of the command line, and what they mean there."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import loopscope
from loopscope.data.tokenizers import ByteTokenizer
from loopscope.jobs.generate import encode
from tests.fixtures import run_command
from tests.interop.foreign.families.fixtures import hrm

PROMPT = "def main("


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hrm") / "model"
    torch.manual_seed(0)
    module: Any = hrm(vocab_size=256)
    module.save_pretrained(path)
    return path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Any:
    """What a command prints: the texts of its JSON lines, or its error."""

    def run(*words: str) -> Any:
        code = partial(run_command, monkeypatch)("generate", str(folder), "--new-tokens", "6", *words)
        shown = capsys.readouterr()
        if code:
            return code, " ".join(shown.err.split())
        return [json.loads(line) for line in shown.out.splitlines()]

    return run


@pytest.mark.parametrize(
    "words", [(), ("--cache-kind", "static"), ("--no-cache",), ("--prompt-piece", "2")], ids=" ".join
)
def test_every_cache_gives_the_text_of_the_whole_model(
    said: Any, folder: Path, words: tuple[str, ...]
) -> None:
    (found,) = said("--prompt", PROMPT, "--json", "--loops", "4", *words)
    assert found["loops"] == [4] * 6
    model, ids = loopscope.load(folder), encode(ByteTokenizer(), PROMPT)
    for token in found["tokens"]:
        with torch.no_grad():
            *_, last = loopscope.unroll(model, torch.tensor([ids]), 4)
        assert token == int(last.logits()[0, -1].argmax())
        ids.append(token)


def test_lines_of_a_file_on_a_model_of_others(said: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": PROMPT, "loops": 1}) + "\n" + json.dumps({"prompt": "import "}))
    first, second = said("--prompts", str(file))
    (alone,) = said("--prompt", PROMPT, "--loops", "1", "--json")
    assert first["tokens"] == alone["tokens"]
    assert second["loops"] == [3] * 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--cache-kind", "statik"), "cache is 'statik', and HrmTextForCausalLM cannot use it"),
        (("--cache-kind", "static", "--no-cache"), "cache-kind is 'static', and --no-cache asks for none"),
        (
            ("--exit-rule", "fixed", "--threshold", "2"),
            "exits per token of HrmTextForCausalLM, and drafts, cannot keep keys",
        ),
        (("--loops", "0"), "loops is 0"),
        (("--loops=-1",), "loops is -1"),
    ],
)
def test_mistakes_end_with_2_and_a_sentence(said: Any, words: tuple[str, ...], message: str) -> None:
    code, error = said("--prompt", PROMPT, *words)
    assert code == 2
    assert message in error
