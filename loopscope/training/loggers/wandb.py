"""Weights & Biases: online, or with `WANDB_MODE=offline` in the run's own folder, for `wandb sync` later.

It draws one chart per metric, with a line per run, and runs there are what people count: so the loops are metrics of
one run (`loops/scale_rms/loop_04`), and the chart with a line per loop is a chart of its own (`line_series`), drawn
anew at every evaluation from at most a few hundred points.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from loopscope.training.loggers.base import AbstractLogger, LoggedRun

START_SECONDS = 30.0
"""To reach its server in; after that the run goes on without."""
MOST_POINTS = 300
"""Of a line of the chart by loop: all of it is sent again whenever it is drawn."""


class WandbLogger(AbstractLogger):
    """Curves as history, texts in the summary, files as artifacts."""

    def __init__(self, run: LoggedRun) -> None:
        import wandb

        self.loops = list(run.loops)
        self.digits = len(str(max(self.loops)))
        self.lines: dict[str, dict[int, dict[int, float]]] = {}  # chart, step, loop
        for step, values in run.before or ():
            self._keep(step, values)
        settings = wandb.Settings(
            silent=True,
            console="off",  # what a run prints stays where it was printed
            save_code=False,
            init_timeout=START_SECONDS,
        )
        self.run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.identity,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.config),
            mode="offline" if _nowhere_to_send() else None,
            settings=settings,
        )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Hand over to its process."""
        self.run.log(dict(values), step=step)

    def by_loop(self, step: int, values: Mapping[str, Mapping[int, float]]) -> None:
        """Keep the points for the chart with a line per loop; an evaluation draws it."""
        row: dict[str, float] = {}
        self._keep(step, values)
        for name, line in values.items():
            row |= {f"{name}/loop_{loop:0{self.digits}}": value for loop, value in line.items()}
        if any(name.startswith("loops/validation") for name in values):
            self._draw(step)
        self.run.log(row, step=step)

    def text(self, title: str, text: str) -> None:
        """Keep a line of the summary."""
        self.run.summary[title] = text

    def file(self, path: Path) -> None:
        """Keep a version of an artifact named after the run and the file; the same content is kept once."""
        import wandb

        artifact = wandb.Artifact(f"{path.stem}-{self.run.id}", type=path.stem)
        artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    def close(self) -> None:
        """Wait until its process has everything."""
        self.run.finish()

    def _keep(self, step: int, values: Mapping[str, Mapping[int, float]]) -> None:
        for name, line in values.items():
            points = self.lines.setdefault(name, {})
            points[step] = dict(line)
            if len(points) > 2 * MOST_POINTS:
                self.lines[name] = dict(list(points.items())[::2])

    def _draw(self, step: int) -> None:
        """The charts with a line per loop, of the run so far."""
        import wandb

        for name, points in self.lines.items():
            whole = [at for at in points if all(loop in points[at] for loop in self.loops)]
            if len(whole) < 2:
                continue
            at = whole[:: -(-len(whole) // MOST_POINTS)]
            chart = wandb.plot.line_series(
                xs=at,
                ys=[[points[step][loop] for step in at] for loop in self.loops],
                keys=[f"loop {loop}" for loop in self.loops],
                title=f"{name.removeprefix('loops/')} by loop",
                xname="step",
            )
            self.run.log({f"by_loop/{name.removeprefix('loops/')}": chart}, step=step)


def _nowhere_to_send() -> bool:
    """Whether nobody is logged in and nobody said how: asking would stop a run that nobody watches."""
    import wandb

    return "WANDB_MODE" not in os.environ and wandb.api.api_key is None
