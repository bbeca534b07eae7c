"""How folders are loaded: type, devices, memory, the hub's cache; and audits where copies of all weights do not fit."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import loopscope
from loopscope.audit import FORMATS
from loopscope.audit.audit_report import judge
from loopscope.interop.huggingface import loading
from loopscope.interop.huggingface.loading import Loading, weight_bytes
from loopscope.results import to_json
from tests.interop.foreign.families import fixtures as families
from tests.interop.huggingface.tensor_memory import LiveBytes
from tests.interop.huggingface.test_pretrained import IDS, byte_tokenizer, dory, hrm


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    loading.load_with()


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """A folder in bfloat16."""
    torch.manual_seed(0)
    hrm().bfloat16().eval().save_pretrained(tmp_path / "hrm")
    return tmp_path / "hrm"


def types(model: Any) -> set[torch.dtype]:
    return {parameter.dtype for parameter in model.parameters()}


def test_the_stored_type_is_kept_or_another_one_asked_for(narrow: Path) -> None:
    assert types(loopscope.load(narrow)) == {torch.bfloat16}
    assert types(loopscope.load(narrow, dtype="float32")) == {torch.float32}


def test_weights_are_counted_as_they_are_loaded(narrow: Path) -> None:
    (file,) = narrow.glob("*.safetensors")
    numbers = sum(parameter.numel() for parameter in loopscope.load(narrow).parameters())
    stored = weight_bytes([file], "auto")
    assert stored >= 2 * numbers
    assert weight_bytes([file], "bfloat16") == stored
    assert weight_bytes([file], "float32") == 2 * stored


def test_what_does_not_fit_says_what_would(narrow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopscope.interop.huggingface.pretrained.free_bytes", lambda: 1000)
    with pytest.raises(
        ValueError, match="GiB are free; load it in half precision .--dtype bfloat16., let --device"
    ):
        loopscope.load(narrow, dtype="float32")
    with pytest.raises(ValueError, match="GiB are free; let --device-map auto place it"):
        loopscope.load(narrow)


def test_parts_are_placed_by_accelerate(narrow: Path) -> None:
    pytest.importorskip("accelerate")
    model = loopscope.load(narrow, device_map='{"": "cpu"}')
    plain = loopscope.load(narrow)
    with torch.no_grad():
        assert torch.equal(model(IDS), plain(IDS))


def test_parts_that_are_left_off_the_devices_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `auto` leaves those that no device has room for."""
    pytest.importorskip("accelerate")
    dory().eval().save_pretrained(tmp_path / "dory")
    monkeypatch.setattr(Loading, "placement", lambda self: {"": "disk"})
    with pytest.raises(
        ValueError,
        match=r"device-map auto left \d+ weights off the devices \(disk\).*on the CPU it needs about 0.0 GiB",
    ):
        loopscope.load(tmp_path / "dory", device_map="auto")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"device_map": "everywhere"}, "device-map is 'everywhere'; give auto"),
        ({"device_map": "[]"}, "device-map is '\\[\\]'; give auto"),
        (
            {"device_map": '{"": "disk"}'},
            "parts on the disk cannot be read .* name devices, or leave device-map out",
        ),
    ],
)
def test_what_is_no_way_to_load_is_refused(narrow: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loopscope.load(narrow, **how)


def test_a_map_needs_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="accelerate, which is not installed: pip install 'loopscope.hf.'"):
        Loading(device_map="auto")


def test_options_that_contradict_or_mean_nothing_are_refused(
    narrow: Path, tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", "depth", narrow, "--device", "cuda", "--device-map", "auto") == 2
    assert "both say where the model goes; give one" in capsys.readouterr().err
    (tmp_path / "own").mkdir()
    assert call("audit", tmp_path / "own", "--dtype", "float32") == 2
    assert "say how folders of transformers are loaded" in capsys.readouterr().err


@pytest.mark.parametrize("make", [hrm, dory])
def test_audits_are_the_same_where_copies_of_the_weights_do_not_fit(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = loopscope.adapt(make().bfloat16().eval())
    ids = IDS[:1]

    formats = list(FORMATS)
    plain = loopscope.audit(model, ids[:, :-1], ids[:, 1:], rounding=formats)
    monkeypatch.setattr("loopscope.wide_weights.free_bytes", lambda: 1000)
    found = loopscope.audit(model, ids[:, :-1], ids[:, 1:], rounding=formats)
    for tried, known in zip(
        found.rounding, plain.rounding, strict=True
    ):  # weight by weight, and of copies of all
        assert tried.format == known.format
        assert [row.state for row in tried.loops] == pytest.approx(
            [row.state for row in known.loops], rel=1e-3
        )
        assert all(row.state > 0 for row in tried.loops)
    assert to_json(replace(found, dynamics=(), rounding=())) == to_json(
        replace(plain, dynamics=(), rounding=())
    )
    for one, other in zip(found.dynamics, plain.dynamics, strict=True):  # by differences, not by derivatives
        assert one.spectral_radius == pytest.approx(other.spectral_radius, rel=1e-2)
    assert types(model) == {torch.bfloat16}


def in_cache(cache: Path, name: str) -> Path:
    """A folder of the hub's cache, as the hub lays it out."""
    commit = "a" * 40
    repo = cache / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    return repo / "snapshots" / commit


def test_a_name_on_the_hub_is_opened_from_its_cache(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = in_cache(tmp_path / "cache", "owner/small-hrm")
    hrm().eval().save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    before = sorted(folder.iterdir())
    assert loopscope.load("owner/small-hrm").loops == hrm().config.H_cycles
    assert call("generate", "owner/small-hrm", "--prompt", "def", "--new-tokens", 2) == 0
    assert sorted(folder.iterdir()) == before
    capsys.readouterr()
    assert call("audit", "owner/other") == 2
    said = capsys.readouterr().err
    assert "owner/other does not exist" in said
    assert "hf download owner/other --local-dir FOLDER, and give FOLDER" in said
    (tmp_path / "owner" / "small-hrm").mkdir(parents=True)
    with pytest.raises(ValueError, match="owner/small-hrm holds no model"):  # a folder of that name wins
        loopscope.load("owner/small-hrm")


def test_a_bf16_model_is_audited_in_less_memory_than_an_fp32_load_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights, and what lives beside them while it is judged: by bytes of tensors, the same on every machine."""
    torch.manual_seed(0)
    large = families.hrm(vocab_size=300, hidden_size=128, intermediate_size=512)  # beside nine tokens' states
    large.bfloat16().eval().save_pretrained(tmp_path)
    most, judged = {}, {}
    for way, free in (("at use", 1), ("copies", None), ("fp32 load", None)):
        monkeypatch.setattr("loopscope.wide_weights.free_bytes", lambda free=free: free)
        if way != "copies":  # of the same stored weights
            model = loopscope.load(tmp_path, dtype="float32" if way == "fp32 load" else "auto")
        weights = {each.data_ptr(): each.nbytes for each in model.parameters()}
        with LiveBytes() as live:
            loops = judge(model, IDS[:1, :-1], IDS[:1, 1:]).loops
        most[way] = sum(weights.values()) + live.most
        judged[way] = [(each.status, each.direct, each.carry) for each in loops]
    assert judged["at use"] == judged["copies"] == judged["fp32 load"]
    numbers = large.num_parameters()
    assert most["fp32 load"] - most["at use"] > 1.5 * numbers  # two bytes each, less one weight that is wide
    assert most["copies"] - most["at use"] > 3.5 * numbers  # four each
