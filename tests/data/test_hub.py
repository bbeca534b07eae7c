"""The hub is asked once whether it has a dataset: a wrong name fails at once, a busy hub is left to the loader."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from loopscope.data.config import DataConfig
from loopscope.data.corpora import build_corpus
from loopscope.data.corpora.huggingface import check_on_hub, dataset_named
from loopscope.jobs.text import looks_like_files


class _Hub(BaseHTTPRequestHandler):
    """Answers as the hub does where there is no such dataset; counts the questions."""

    asked: ClassVar[list[str]] = []
    status, code = 404, "RepoNotFound"

    def do_GET(self) -> None:
        if "/datasets/" in self.path:  # the hub's client has questions of its own
            self.asked.append(self.path)
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Hub]]:
    pytest.importorskip("datasets")
    _Hub.asked.clear()
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield _Hub
    server.shutdown()
    server.server_close()


def test_a_dataset_that_the_hub_has_not_is_asked_for_once(hub: type[_Hub]) -> None:
    with pytest.raises(ValueError, match=r"'owner/absent' is not on the hub.*Check the name"):
        list(build_corpus(DataConfig(corpus="owner/absent")).train())
    assert hub.asked == ["/api/datasets/owner/absent"]


def test_a_hub_that_answers_with_an_error_is_left_to_the_loader(
    hub: type[_Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "status", 500)
    monkeypatch.setattr(hub, "code", "")
    check_on_hub("owner/busy")
    assert hub.asked == ["/api/datasets/owner/busy"]


def test_a_hub_that_cannot_be_reached_is_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    paused: list[float] = []
    monkeypatch.setattr("time.sleep", paused.append)  # of all that retry
    with pytest.raises(ValueError, match="'owner/name' cannot be read: .*Connect.*the network"):
        list(build_corpus(DataConfig(corpus="owner/name")).train())
    assert paused == [1]


def test_a_hub_that_is_not_to_be_asked_is_not(hub: type[_Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_on_hub("owner/name")
    assert hub.asked == []


def test_no_name_of_a_dataset_is_refused_at_once(hub: type[_Hub]) -> None:
    with pytest.raises(ValueError, match="cannot be a dataset's name .Repo id must use"):
        list(build_corpus(DataConfig(corpus="two words")).train())
    assert hub.asked == []


@pytest.mark.parametrize(
    ("data", "files"),
    [
        ("wikitext", False),
        ("owner/name", False),
        ("owner/name-v1.5", False),
        ("text.txt", True),
        ("folder/text.txt", True),
        ("a/b/c", True),
        ("./name", True),
        ("texts/*", True),
        ("~/text", True),
    ],
)
def test_a_path_is_told_from_a_datasets_name(data: str, files: bool) -> None:
    assert looks_like_files(data) is files


def test_a_local_folder_is_not_asked_for(hub: type[_Hub], tmp_path: Path) -> None:
    check_on_hub(str(tmp_path))
    assert hub.asked == []


def test_a_revision_that_the_hub_has_not_is_told(hub: type[_Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "code", "RevisionNotFound")
    with pytest.raises(ValueError, match=r"'owner/data' has no revision 'v9' on the hub; give a branch"):
        list(build_corpus(DataConfig(corpus="owner/data:small@v9")).train())
    assert hub.asked == ["/api/datasets/owner/data/revision/v9"]


def test_configuration_and_revision_stand_in_the_name_or_beside_it(tmp_path: Path) -> None:
    spelled = DataConfig(corpus="owner/data:small@v1")
    beside = DataConfig(corpus="owner/data", dataset_config="small", dataset_revision="v1")
    assert dataset_named(spelled) == dataset_named(beside) == ("owner/data", "small", "v1")
    assert build_corpus(spelled).origin() == {"dataset": "owner/data", "config": "small", "revision": "v1"}
    assert dataset_named(DataConfig(corpus="owner/data@main")) == ("owner/data", None, "main")
    (tmp_path / "a:b@c").mkdir()
    assert dataset_named(DataConfig(corpus=str(tmp_path / "a:b@c"))) == (str(tmp_path / "a:b@c"), None, None)
    with pytest.raises(ValueError, match="dataset_revision is 'v2'; give it once"):
        build_corpus(DataConfig(corpus="owner/data@v1", dataset_revision="v2"))


def test_the_commit_that_is_read_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[dict[str, Any]] = []

    def load(name: str, config: str | None, **how: Any) -> list[dict[str, str]]:
        asked.append({"name": name, "config": config, **how})
        return [{"text": "a row"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr("loopscope.data.corpora.huggingface.check_on_hub", lambda name, revision: "c0ffee")
    corpus = build_corpus(DataConfig(corpus="owner/data@main"))
    assert list(corpus.train()) == ["a row"]
    assert asked == [
        {"name": "owner/data", "config": None, "split": "train", "streaming": True, "revision": "c0ffee"}
    ]
    assert corpus.origin() == {"dataset": "owner/data", "revision": "main", "commit": "c0ffee"}
