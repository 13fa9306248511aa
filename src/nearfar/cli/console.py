"""What the terminal shows while a run goes on."""

from __future__ import annotations

import os
from types import TracebackType

from rich.console import Console as Rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nearfar.errors import printable


class Console:
    """A progress bar with the latest numbers, and sentences above it. Silent on all processes but the first."""

    def __init__(self) -> None:
        self.leads = int(os.environ.get("RANK", "0")) == 0
        self.rich = Rich(quiet=not self.leads, highlight=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.rich,
        )
        self.task = None
        self.knn: float | None = None
        self.shown = ""

    def __enter__(self) -> Console:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        self.progress.print(printable(text, keep="\n\t"), markup=False)

    def watch(self, step: int, steps: int, numbers: dict[str, float]) -> None:
        if self.task is None:
            self.task = self.progress.add_task("training", total=steps, numbers="")
        self.knn = numbers.get("knn", self.knn)
        if "loss" in numbers:
            self.shown = f"loss {numbers['loss']:.3f}  {numbers['samples_per_second']:,.0f} samples/s"
        shown = self.shown + (f"  kNN {self.knn:.1f} %" if self.knn is not None else "")
        self.progress.update(self.task, completed=step, numbers=shown)
