"""From a run to a folder of transformers: model, tokenizer and card; and to the hub, where asked for."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscope.config.nested import read_yaml
from loopscope.data.config import DataConfig
from loopscope.interop.huggingface.export.exported_folder import check_export, check_exportable, write_export
from loopscope.interop.huggingface.hub import check_hub_name as check_hub_name
from loopscope.interop.huggingface.hub import upload_folder
from loopscope.interop.huggingface.pretrained import is_transformers_folder
from loopscope.jobs.export_tokenizer import fast_tokenizer
from loopscope.jobs.folder import check_outside, read_result
from loopscope.jobs.model_card import CardFacts, measured_verdict, model_card
from loopscope.jobs.opened import OpenedModel, open_model
from loopscope.model.config import ModelConfig
from loopscope.numerics import not_finite
from loopscope.plan.static_audit import audit_config
from loopscope.results import RunResult, load_audits
from loopscope.results.checkpoints import model_folder
from loopscope.results.layout import (
    AUDIT,
    CARD,
    CONFIG,
    is_study,
    newest_checkpoint,
    step_in_name,
    trained_runs,
)
from loopscope.results.whole_folder import check_new_folder

EXAMPLES = 4
"""Runs of a study that a refusal names."""


@dataclass(frozen=True)
class ExportSettings:
    """What of an export is the user's to say.

    Attributes:
        loops: how many loops run where no other number is asked for; None: the trained depth.
        end_token: the token that ends a text, by its name or its text; None: the tokenizer's own, or a free row.
        endless: no token ends a text.
        force: export a run that diverged, failed or is not finished, from its newest checkpoint, and weights that are
            not finite.
    """

    loops: int | None = None
    end_token: str | None = None
    endless: bool = False
    force: bool = False


def export_run(path: str | Path, directory: str | Path, settings: ExportSettings | None = None) -> Path:
    """Write a run (or a model folder, or a published last.pt) as a folder that transformers loads; return the folder.

    Args:
        directory: new, or empty; not inside `path`.

    Raises:
        ValueError: a study, a run that diverged or is not finished, weights that are not finite, a model that no
            export holds, no end token, a folder that is not empty; says what to do.
    """
    path, directory, chosen = Path(path), Path(directory), settings or ExportSettings()
    if chosen.endless and chosen.end_token is not None:
        raise ValueError(
            f"end-token is {chosen.end_token!r}, and --no-end-token asks for none; leave one out"
        )
    check_new_folder(directory)
    check_outside(directory, path)
    _refuse_study(path)
    if is_transformers_folder(path):
        raise ValueError(f"{path} is a folder of transformers already; there is nothing to export")
    result = read_result(path) if (path / CONFIG).is_file() else None
    forced = _unfinished(path, result)
    if forced is not None and not chosen.force:
        raise ValueError(f"{path}: {forced[0]}. {forced[1]}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not finite")  # of weights: refused below
        opened = open_model(path)
    model = check_exportable(opened.model)
    if (unfit := not_finite(model.named_parameters())) is not None:
        if not chosen.force:
            raise ValueError(
                f"{path}: {unfit}. Export another checkpoint, or add --force to export it all the same"
            )
        forced = (unfit if forced is None else f"{forced[0]}, and {unfit}", "")
    tokens: Any = None
    if opened.tokenizer is not None:
        tokens = fast_tokenizer(
            opened.tokenizer, model.config.vocabulary, model.positions_limit, chosen.end_token, chosen.endless
        )
    loops = model.config.loops if chosen.loops is None else chosen.loops
    end = None if tokens is None else tokens.tokenizer.eos_token
    said = _verdict(path)
    facts = CardFacts(
        name=opened.name,
        model=_shown_settings(model.config),
        loops=loops,
        data={} if opened.data is None else _shown_data(opened.data),
        verdict=said[0],
        measured=said[1],
        end=end,
        forced=None if forced is None else forced[0],
        folder=directory.name,
    )
    more: dict[str, Any] = {CARD: model_card(facts, result)}
    if tokens is not None:
        more["tokenizer"] = tokens.tokenizer
    return write_export(
        model,
        directory,
        loops,
        _trained(opened, result, said),
        None if tokens is None else tokens.token_ids,
        more,
    )


def push_export(directory: str | Path, name: str, private: bool = False) -> str:
    """Put an exported folder on the hub under `owner/name`, which is made where it is not there; return its address.

    Raises:
        ValueError: the folder is no export, or the hub refuses it: says why.
    """
    check_export(directory)
    return upload_folder(directory, name, private)


def _refuse_study(path: Path) -> None:
    if not is_study(path):
        return
    runs: list[Path] = []
    with suppress(ValueError):
        runs = trained_runs(path)
    named = ", ".join(str(run) for run in runs[:EXAMPLES])
    raise ValueError(
        f"{path} is a study, and an export holds one run; name it: {named or 'none has a checkpoint yet'}"
    )


def _unfinished(path: Path, result: RunResult | None) -> tuple[str, str] | None:
    """Return why a run is no finished one, and what to do; None for a finished run, and for what is no run."""
    checkpoint = newest_checkpoint(path)
    if checkpoint is None and result is None:
        return None  # a model folder, or nothing: who opens it says
    if checkpoint is None:
        raise ValueError(f"{path} has no checkpoint, so there is nothing to export; train it again")
    step = step_in_name(checkpoint)
    how = f"Add --force to export its newest checkpoint (step {step:,}) all the same"
    if result is None:
        return (
            f"the run is not finished: it has no result, and its newest checkpoint is of step {step:,}",
            f"Go on with loopscope train --resume --out {path}, or: {how[0].lower()}{how[1:]}",
        )
    if result.status == "completed":
        return None
    why = "" if result.failure is None else f": {result.failure.message.rstrip('.')}"
    return f"the run {result.status}{why}", how


def _verdict(path: Path) -> tuple[tuple[str, str] | None, bool]:
    """Return the verdict on a run and whether it was measured: by its audit, else by what its config says."""
    if (path / AUDIT).is_file():
        with suppress(ValueError):
            return measured_verdict(load_audits(path / AUDIT)), True
    with suppress(ValueError):
        from loopscope.config.run_config import kept_config

        config = kept_config(read_yaml(model_folder(path) / CONFIG), str(path))
        found = audit_config(config)
        return (found.verdict, found.why), False
    return None, False


def _trained(
    opened: OpenedModel, result: RunResult | None, said: tuple[tuple[str, str] | None, bool]
) -> dict[str, Any]:
    """What config.json keeps of the run: enough for an audit of the export to ask what was trained on."""
    from loopscope import __version__

    kept: dict[str, Any] = {"loopscope": __version__, "name": opened.name}
    if opened.objective is not None:
        kept["objective"] = opened.objective.model_dump(mode="json")
    if opened.tokenizer is not None:
        kept["tokenizer"] = {"kind": opened.tokenizer.kind, "hash": opened.tokenizer.hash}
    if result is not None:
        kept |= {"condition": result.condition, "seed": result.seed, "steps": result.steps}
        kept["status"] = result.status
    if said[0] is not None:
        kept["verdict"] = {"word": said[0][0], "why": said[0][1], "measured": said[1]}
    return kept


def _shown_settings(config: ModelConfig) -> Mapping[str, Any]:
    carry = ", ".join(config.carry) or "none"
    shown = {
        **{"dim": config.dim, "layers": config.layers, "loops": config.loops, "heads": config.heads},
        **{"prelude": config.prelude, "coda": config.coda, "readout": config.readout.kind, "carry": carry},
        **{
            "injection": config.injection.kind,
            "positions": config.positions,
            "vocabulary": config.vocabulary,
        },
        **{"trained length": config.sequence, "head tied to the embedding": "yes" if config.tied else "no"},
    }
    return {name: value for name, value in shown.items() if value not in (0, "none") or name == "carry"}


def _shown_data(data: DataConfig) -> Mapping[str, Any]:
    """What was trained on, without paths of the machine that did."""
    names = {"dataset": data.dataset_config, "files": ", ".join(Path(file).name for file in data.files)}
    return {
        "corpus": data.corpus,
        **{name: value for name, value in names.items() if value},
        "tokenizer": data.tokenizer.kind,
    }
