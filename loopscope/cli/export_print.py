"""An export on a terminal: its files, what its scale does, and how it is loaded."""

from typing import TYPE_CHECKING

from loopscope.cli.labelled_lines import print_labelled

if TYPE_CHECKING:
    from loopscope.jobs import ExportSummary


def print_export(summary: "ExportSummary") -> None:
    """The folder, its files with sizes, the verdict, and the lines that load it."""
    deeper = "" if summary.loops == summary.trained_loops else f", trained with {summary.trained_loops}"
    print(
        f"{summary.folder}: {summary.name}, {summary.parameters:,} parameters, {summary.loops} loops{deeper}"
    )
    wide = max(len(file.name) for file in summary.files)
    for file in summary.files:
        print(f"  {file.name:{wide}}  {_size(file.bytes):>9}  {file.holds}".rstrip())
    print(f"  {'in all':{wide}}  {_size(summary.bytes):>9}")
    lines = []
    if summary.verdict is not None:
        how = "measured on these weights" if summary.verdict["measured"] else "by its settings"
        lines.append(("verdict", f"{summary.verdict['word']} ({how}): {summary.verdict['why'].rstrip('.')}."))
    print_labelled(lines)
    # Not wrapped: they are copied.
    print(f'load        AutoModelForCausalLM.from_pretrained("{summary.folder}", trust_remote_code=True)')
    print(f'            loopscope.load("{summary.folder}")')


def _size(count: int) -> str:
    return f"{count / 1e6:,.2f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
