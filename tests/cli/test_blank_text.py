"""A generated text of which nothing can be seen is told, so that it does not look as if nothing happened."""

from typing import Any

import pytest


class Made(list[str]):
    """A text as `stream_text` gives it, with what is known of it in the end."""

    calibrated, news, loops, depth, seconds, ended = "", (1, 2), (4, 4), 4, 1.0, "length"

    @property
    def text(self) -> str:
        return "".join(self)


@pytest.mark.parametrize(("text", "noted"), [("\n\n \n", True), ("\nyes\n", False)])
def test_blanks_alone_are_told(
    call: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, noted: bool
) -> None:
    monkeypatch.setattr("loopscope.jobs.stream_text", lambda *_, **__: Made([text]), raising=False)
    assert call("generate", "a", "--prompt", "b") == 0
    assert ("blanks and line breaks alone" in capsys.readouterr().err) == noted
