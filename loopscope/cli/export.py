"""`loopscope export`: a run as a model of transformers. Heavy imports are inside: `--help` never waits for torch."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from loopscope.cli.arguments import parse
from loopscope.cli.values import DEEPEST, check_counts, depths_of


@dataclass(frozen=True)
class Export:
    """Write a run as a folder that transformers loads, where Loopscope is installed and where it is not.

    In it: weights, config, the code of the model (its layers are ours, word for word), tokenizer, and a card made from
    the run. Logits are the run's own, bit for bit in fp32. loopscope.load reads it back.

    Example:
        loopscope export runs/raw models/raw
        loopscope export runs/raw models/deeper --loops 8 --end-token '.'
        loopscope export last.pt models/published
    """

    path: tyro.conf.Positional[Path]
    """Run folder, model folder or published last.pt."""
    directory: tyro.conf.Positional[Path]
    """New folder."""
    loops: int | None = None
    """Depth that runs where no other is asked for, also past the trained one; the trained depth by default."""
    end_token: str | None = None
    """The token that ends a text; the tokenizer's own, or one in a free row, by default."""
    no_end_token: bool = False
    """No token ends a text."""
    force: bool = False
    """Export a run that diverged, failed or is not finished, from its newest checkpoint; and weights not finite."""
    onnx: str | None = None
    """Depths of which an ONNX file is written too, in its folder onnx: 1,2,4. Needs: pip install 'loopscope[onnx]'."""
    push: str | None = None
    """Put it on the hub too, as owner/name. Needs a login: hf auth login."""
    private: bool = False
    """With push: nobody else sees it."""
    json: bool = False
    """One JSON object with what was written, and nothing else."""


def export(arguments: Sequence[str]) -> None:
    """`loopscope export`."""
    command = parse(Export, "export", arguments)
    check_counts(command, "loops", most=DEEPEST)
    if command.private and command.push is None:
        raise ValueError(
            "private says who sees what is pushed, and push names nothing; add --push owner/name"
        )
    depths = () if command.onnx is None else depths_of(command.onnx, "onnx")
    from loopscope.cli.export_print import print_export
    from loopscope.jobs import (
        ExportSettings,
        add_onnx,
        check_hub_name,
        check_onnx,
        export_run,
        push_export,
        summarise_export,
    )

    if depths:
        check_onnx()
    if command.push is not None:
        check_hub_name(command.push)
    settings = ExportSettings(command.loops, command.end_token, command.no_end_token, command.force)
    export_run(command.path, command.directory, settings)
    files = add_onnx(command.directory, depths)
    summary = summarise_export(command.directory)
    if not command.json:
        print_export(summary)
        for file in files:
            print(
                f"held        {file.path.name}: logits within {file.difference:.1e} of the model's in onnxruntime"
            )
    pushed = None if command.push is None else push_export(command.directory, command.push, command.private)
    if command.json:
        onnx = {f"{file.path.parent.name}/{file.path.name}": file.difference for file in files}
        print(
            json.dumps({**asdict(summary), "bytes": summary.bytes, "onnx_difference": onnx, "pushed": pushed})
        )
    elif pushed is not None:
        print(f"pushed      {pushed}")
