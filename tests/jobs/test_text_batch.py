"""`loopscope generate --prompts`: a file of prompts as one batch, each with what its line says."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from loopscope.jobs.generate import generate_text
from loopscope.jobs.opened import open_model
from tests.fixtures import run_command
from tests.jobs.fixtures import byte_folder

LINES: list[dict[str, Any]] = [
    {"prompt": "one", "new_tokens": 5},
    {"prompt": "three", "loops": 2},
    {"prompt": "of them", "exit_rule": "fixed", "threshold": 1},
]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    return partial(run_command, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return byte_folder(tmp_path / "model")


def written(path: Path, *lines: Any) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def test_every_line_gets_what_it_gets_alone(
    call: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "p.jsonl", *LINES, "")
    assert call("generate", str(folder), "--prompts", file, "--new-tokens", "7") == 0
    shown = capsys.readouterr()
    found = [json.loads(line) for line in shown.out.splitlines()]
    opened = open_model(folder)
    for line, got in zip(LINES, found, strict=True):
        options = {name: line[name] for name in ("loops", "exit_rule", "threshold") if name in line}
        alone = generate_text(opened, line["prompt"], line.get("new_tokens", 7), **options)
        assert got["text"] == alone.texts[0]
        assert (got["tokens"], got["loops"]) == (list(alone.tokens[0]), list(alone.loops[0]))
    assert [got["depth"] for got in found] == [3, 2, 3]
    assert found[2]["mean_loops"] == 1
    assert "3 texts, 19 tokens in " in shown.err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"prompt": "one"'], "line 1 of .*p.jsonl is no JSON"),
        ([LINES[0], {"text": "one"}], 'line 2 of .*p.jsonl has no prompt; give an object such as {"prompt"'),
        ([{"prompt": "one", "lops": 3}], "line 1 of .* says 'lops'; did you mean loops"),
        ([{"prompt": "one", "loops": 0}], "loops is 0; it must be a whole number from 1 up"),
        ([{"prompt": "one", "new_tokens": -1}], "new_tokens is -1; it must be a whole number from 1 up"),
        ([{"prompt": "one", "exit_rule": "gate", "threshold": 0.5}], "needs a model with an exit gate"),
        ([{"prompt": ""}], "the prompt is empty"),
        ([""], "p.jsonl has no lines"),
        ([{"prompt": "one", "loops": [2, 3]}], r"line 1 of .*: loops is \[2, 3\]; a line says one value"),
    ],
)
def test_lines_that_cannot_be_end_with_2_and_a_sentence(
    call: Any,
    folder: Path,
    tmp_path: Path,
    lines: list[Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("generate", str(folder), "--prompts", written(tmp_path / "p.jsonl", *lines)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len([line for line in shown.err.splitlines() if line]) < 4
    assert re.search(message, " ".join(shown.err.split()))


def test_one_source_of_prompts(call: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("generate", str(folder), "--prompts", "p.jsonl", "--prompt", "x") == 2
    assert "or several as --prompts FILE.jsonl" in " ".join(capsys.readouterr().err.split())
    assert call("generate", str(folder), "--prompts", "nowhere.jsonl") == 2
    assert "prompts nowhere.jsonl cannot be read" in " ".join(capsys.readouterr().err.split())
