"""A run becomes a folder of transformers: refused by name where it cannot, with its tokenizer and its card."""

import json
import math
import re
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import loopscope
from loopscope.data.tokenizers import (
    AbstractTokenizer,
    BPETokenizer,
    ByteTokenizer,
    FileTokenizer,
    SymbolTokenizer,
    WordTokenizer,
)
from loopscope.interop.huggingface.hub import upload_folder
from loopscope.interop.model_folder import save_model
from loopscope.jobs.export_tokenizer import fast_tokenizer
from loopscope.jobs.model_card import figure
from loopscope.jobs.opened import open_model
from loopscope.model.looped import LoopedTransformer
from loopscope.results import Failure, run_from_json, to_json
from tests.fixtures import TINY, run_command

TEXT = "def main(argv):\n    '''Élève <eos> x'''\n\n    return 42 + x_1  # 中 ª½\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "raw"
    with pytest.MonkeyPatch.context() as patch:
        assert run_command(patch, "train", *TINY, "--condition=dense/raw", f"--out={folder}") == 0
    return folder


def test_a_run_is_exported_with_tokenizer_and_card_and_read_back(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exported"
    assert run_command(monkeypatch, "export", run, folder) == 0
    printed = capsys.readouterr().out
    own, opened = loopscope.load(run), open_model(folder)
    assert all(
        torch.equal(a, b)
        for a, b in zip(own.state_dict().values(), opened.model.state_dict().values(), strict=True)
    )
    assert opened.objective == open_model(run).objective
    assert opened.tokenizer is not None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = open_model(run).tokenizer
    assert before is not None
    for reading in (before, opened.tokenizer):
        assert reading.encode(TEXT).tolist() == tokenizer(TEXT)["input_ids"]
    ids = torch.tensor([tokenizer(TEXT)["input_ids"][:9]])
    assert torch.equal(AutoModelForCausalLM.from_pretrained(folder)(ids).logits, own(ids))
    card, result = (folder / "README.md").read_text(), run_from_json((run / "result.json").read_text())
    for loop in result.per_loop:
        shown = " | ".join(
            figure(value) for value in (loop.perplexity, loop.bits_per_byte, loop.rms, loop.l2_norm)
        )
        assert f"| {loop.loop} | {shown} |" in card
    assert f"{100 * result.unknown_share:.1f} % of its tokens" in card  # type: ignore[operator]
    assert "**visible** (by its settings)" in card
    assert str(run) not in card + (folder / "config.json").read_text()
    assert f"{folder}: dense/raw, {own.parameter_count():,} parameters, 2 loops\n" in printed
    for file in folder.iterdir():
        (line,) = [line for line in printed.splitlines() if line.split()[:1] == [file.name]]
        assert f"{file.stat().st_size / 1e3:,.1f} kB" in line and len(line.split()) > 3  # noqa: PT018
    assert "verdict     visible (by its settings): " in printed
    assert f'from_pretrained("{folder}", trust_remote_code=True)\n' in printed
    assert f'loopscope.load("{folder}")\n' in printed


def test_a_program_reads_what_was_exported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "export", run, tmp_path / "exported", "--loops=5", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["loops"], said["trained_loops"], said["pushed"]) == (5, 2, None)
    assert said["bytes"] == sum(path.stat().st_size for path in (tmp_path / "exported").iterdir())
    assert said["verdict"]["word"] == "visible"


def test_weights_that_are_not_finite_are_named_and_exported_by_force_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = loopscope.load(run)
    assert isinstance(model, LoopedTransformer)
    with torch.no_grad():
        model.layers[0].feed_forward.down.weight[3, :2] = float("nan")
    save_model(model, tmp_path / "damaged", {}, {})
    said = r"feed_forward.down.weight has 2 of [\d,]+ numbers that are not finite \(the first, nan, at \[3, 0\]\)"
    assert run_command(monkeypatch, "export", tmp_path / "damaged", tmp_path / "new") == 2
    error = capsys.readouterr().err
    assert re.search(
        rf"^loopscope: \S+damaged: layers.0.{said}\. Export another checkpoint, or add --force", error
    )
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()
    with pytest.warns(UserWarning, match=f"damaged: layers.0.{said}: the model has diverged, or is damaged"):
        loopscope.load(tmp_path / "damaged")
    assert run_command(monkeypatch, "export", tmp_path / "damaged", tmp_path / "new", "--force") == 0
    card = (tmp_path / "new" / "README.md").read_text()
    assert re.search(rf"\*\*Exported all the same\*\*: layers.0.{said}\.", card)
    with pytest.warns(UserWarning, match=said):
        loopscope.load(tmp_path / "new")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (57.0412, "57.04"),
        (153812.44, "153,812"),
        (1.23e30, "1.23e+30"),
        (math.nan, "none"),
        (math.inf, "infinite"),
    ],
)
def test_figures_of_a_card_are_rounded(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_what_cannot_be_exported_is_refused_with_what_to_do(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: object) -> str:
        assert run_command(monkeypatch, "export", *words) == 2
        return capsys.readouterr().err

    new = tmp_path / "new"
    result = run_from_json((run / "result.json").read_text())
    broken = tmp_path / "diverged"
    broken.mkdir()
    for part in run.iterdir():
        (broken / part.name).symlink_to(part)
    (broken / "result.json").unlink()
    said = refused(broken, new)
    assert "not finished" in said and "--resume" in said and "--force" in said  # noqa: PT018
    failure = Failure("the state of loop 2 is not finite", step=3, loop=2)
    (broken / "result.json").write_text(to_json(replace(result, status="diverged", failure=failure)))
    said = refused(broken, new)
    assert "the run diverged: the state of loop 2 is not finite. Add --force" in said
    assert run_command(monkeypatch, "export", broken, new, "--force") == 0
    assert "**Exported all the same**: the run diverged" in (new / "README.md").read_text()
    assert "exists and is not empty" in refused(run, new)
    assert "is inside" in refused(run, run / "checkpoints" / ".." / "exported")
    assert not (run / "exported").exists()
    assert "folder of transformers already" in refused(new, tmp_path / "other")
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.yaml").write_text("size: laptop\n")
    assert "is a study, and an export holds one run" in refused(study, tmp_path / "other")
    assert "loops is 0" in refused(run, tmp_path / "other", "--loops=0")
    assert "end-token is 'no such words'" in refused(run, tmp_path / "other", "--end-token=no such words")
    assert "give the model's name on the hub, owner/name" in refused(run, tmp_path / "other", "--push=a/b/c")
    assert "push names nothing" in refused(run, tmp_path / "other", "--private")
    assert "does not exist" in refused(tmp_path / "nothing", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def tokenizers() -> list[AbstractTokenizer]:
    words = WordTokenizer.train([TEXT * 3, "the end of it\n" * 5], 60)
    pieces = BPETokenizer.train([TEXT * 30, "Ünïcode 中文\n" * 20], 300)
    return [
        words,
        pieces,
        ByteTokenizer(),
        FileTokenizer(pieces.tokenizer.to_str()),
        SymbolTokenizer(["a", "b", "(", ")"]),
    ]


@pytest.mark.parametrize("own", tokenizers(), ids=lambda own: own.kind)
def test_a_fast_tokenizer_gives_the_same_ids_and_text(own: AbstractTokenizer, tmp_path: Path) -> None:
    made = fast_tokenizer(own, own.vocabulary_size + 1, None)
    made.tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = (
        ("a b ( )", ") a")
        if own.kind == "symbols"
        else (TEXT, "\u2028 \u1680\t<pad><|endoftext|>\u0130", "🙂 x")
    )
    for text in texts:
        ids = own.encode(text).tolist()
        assert again(text)["input_ids"] == ids
        assert again.decode(ids) == own.decode(ids)
    assert made.token_ids["eos_token_id"] == again.eos_token_id is not None
    assert again.pad_token is not None
    shorter = min(again(list(texts), padding=True)["attention_mask"], key=sum)
    assert shorter[0] == 0 < shorter[-1]  # padding is on the left
    assert (tmp_path / "tokenizer.json").is_file()


def test_a_tokenizer_without_an_end_token_asks_for_one() -> None:
    own = BPETokenizer.train([TEXT * 30], 300)
    rows = own.vocabulary_size
    with pytest.raises(ValueError, match=r"no token that ends a text.*--end-token '\.'.*--no-end-token"):
        fast_tokenizer(own, rows, None)
    assert fast_tokenizer(own, rows, None, end_token="\n").token_ids["eos_token_id"] == own.encode("\n")[0]
    assert fast_tokenizer(own, rows, None, endless=True).token_ids["eos_token_id"] is None


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as takes files: repositories are made, and commits kept."""

    kept: list[dict[str, object]]
    made: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/repos/create"):
            self.made.append(json.loads(body)["name"])
            answer: dict[str, object] = {
                "url": "https://huggingface.co/someone/looped",
                "name": "someone/looped",
                "id": "someone/looped",
            }
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            }
        elif "/commit/" not in self.path:  # the card's header is asked about
            answer = {"errors": [], "warnings": []}
        else:
            self.kept.extend(json.loads(line) for line in body.splitlines())
            answer = {
                "commitUrl": "https://huggingface.co/someone/looped/commit/1",
                "commitOid": "1" * 40,
                "hookOutput": "",
            }
        self._answer(answer)

    def do_GET(self) -> None:
        self._answer({"id": "someone/looped", "sha": "1" * 40, "siblings": []})

    def _answer(self, values: dict[str, object]) -> None:
        text = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None: ...


def test_an_export_goes_to_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "loopscope"}')
    (tmp_path / "README.md").write_text("---\nlibrary_name: transformers\n---\n")
    Hub.kept, Hub.made = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    import huggingface_hub.hf_api

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    real = huggingface_hub.hf_api.HfApi
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(
        huggingface_hub, "HfApi", lambda **words: real(endpoint=address, token="hf_standin", **words)
    )
    try:
        assert upload_folder(tmp_path, "someone/looped") == f"{address}/someone/looped"
    finally:
        server.shutdown()
        server.server_close()
    sent = {entry["value"]["path"] for entry in Hub.kept if entry["key"] == "file"}  # type: ignore[index]
    assert sent == {"config.json", "README.md"}
    assert Hub.made == ["looped"]
    with pytest.raises(
        ValueError, match=rf"someone/looped could not be put on the hub .*hf upload someone/looped {tmp_path}"
    ):
        upload_folder(tmp_path, "someone/looped")  # nobody is there any more
    with pytest.raises(ValueError, match="push is 'looped'; give the model's name on the hub, owner/name"):
        upload_folder(tmp_path, "looped")
