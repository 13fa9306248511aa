"""What a run tells other programs while it trains: TensorBoard, Weights & Biases, MLflow, Trackio, a function.

The journal, `metrics.jsonl`, stays the truth: a line is in it before anyone is told of it. Every program writes to this
machine alone, in its offline form; nothing is sent. One that fails is left out from then on, which is said once.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from nearfar.errors import NotInstalled, UserError
from nearfar.files import digest, name_text
from nearfar.settings import meant
from nearfar.training.directory import read_config, read_environment

Callback = Callable[[int, dict[str, Any]], object]
"""Called with the step and the numbers of each line of the journal."""
PROJECT = "nearfar"
"""What the project, or experiment, of a program is called in which runs are kept."""


class Logger(Protocol):
    """One program.  write: the numbers, finite ones, after so many steps."""

    def write(self, step: int, numbers: dict[str, float]) -> None: ...

    def close(self, *, finished: bool) -> None: ...


class About:
    """What a program is told of a run.

    key: by which it knows the run again, when that goes on: the same for a directory of a run, whatever it is called.
    start: the step from which training goes on; later ones, which were told before, come again.
    """

    def __init__(self, out: Path, start: int) -> None:
        config, began = read_config(out), read_environment(out).get("started")
        self.out, self.start, self.name = out, start, name_text(out.resolve().name)
        self.key = digest(f"{began} {config['method']} {config['made']['fingerprint']}".encode())
        self.config = {name: config[name] for name in ("method", "data", "kind", "recipe")}
        self.config |= config["settings"] | config["arguments"]


class TensorBoard:
    """Event files in RUN/tensorboard; `tensorboard --logdir runs` shows those of all runs."""

    def __init__(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = about.out / "tensorboard"
        again = folder.is_dir()
        # What was told of later steps before is hidden: those steps are made, and told, once more.
        self.writer = SummaryWriter(str(folder), purge_step=about.start + 1 if again else None)
        if not again:
            rows = [f"| {name} | {value} |" for name, value in about.config.items()]
            self.writer.add_text("settings", "\n".join(["| setting | value |", "| --- | --- |", *rows]))

    def write(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self, *, finished: bool) -> None:
        self.writer.close()


class WandB:
    """An offline run in RUN/wandb, which `wandb sync` sends, if you want it to. Parts of one run share an id.

    Steps are a number among the others, as wandb takes steps that come again for mistakes.
    """

    def __init__(self, about: About) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which is sent in the offline form too
        wandb = importlib.import_module("wandb")
        self.run = wandb.init(
            project=PROJECT,
            name=about.name,
            id=about.key,
            config=about.config,
            dir=str(about.out),
            mode="offline",
            resume="allow",
            settings={"silent": True, "console": "off"},
        )
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self.run.log({"step": step, **numbers})

    def close(self, *, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run in a store of files, RUN/mlruns; `mlflow ui --backend-store-uri RUN/mlruns` shows it."""

    def __init__(self, about: About) -> None:
        # Stores of files are spoken of as old there, and want a word that they are meant; they need no database.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = importlib.import_module("mlflow")
        self.client = mlflow.MlflowClient(tracking_uri=(about.out / "mlruns").resolve().as_uri())
        found = self.client.get_experiment_by_name(PROJECT)
        experiment = self.client.create_experiment(PROJECT) if found is None else found.experiment_id
        known = self.client.search_runs([experiment], f"tags.nearfar = '{about.key}'")
        if known:
            self.id = known[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
        else:
            made = self.client.create_run(experiment, tags={"nearfar": about.key}, run_name=about.name)
            self.id = made.info.run_id
            for name, value in about.config.items():
                self.client.log_param(self.id, name, str(value)[:500])

    def write(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.client.log_metric(self.id, name, value, step=step)

    def close(self, *, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


class Trackio:
    """A run in Trackio's own folder of the user's (`TRACKIO_DIR`); `trackio show` shows it."""

    def __init__(self, about: About) -> None:
        trackio = importlib.import_module("trackio")
        with _unset("TRACKIO_SPACE_ID", "TRACKIO_DATASET_ID", "TRACKIO_SERVER_URL"):  # by which it would be sent
            name = f"{about.name}-{about.key[:6]}"  # runs of several folders lie side by side there
            self.run = trackio.init(project=PROJECT, name=name, config=about.config, resume="allow", embed=False)

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self.run.log(numbers, step=step)

    def close(self, *, finished: bool) -> None:
        self.run.finish()


LOGGERS: dict[str, Callable[[About], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""By the name that --log takes, which is that of the package too."""


def asked_for(log: str | Sequence[str]) -> list[str]:
    """The programs that are named, each once.

    Raises ValueError for a name that is none of theirs, NotInstalled where its package is missing.
    """
    given = [word.strip() for word in log.split(",")] if isinstance(log, str) else list(log)
    names = list(dict.fromkeys(name for name in given if name))
    for name in names:
        if name not in LOGGERS:
            raise UserError(f"--log {name!r} is none of {', '.join(LOGGERS)}{meant(name, LOGGERS)}")
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder of that name, as wandb makes one, is no package
            raise NotInstalled(
                f"--log {name}: the package {name} is not installed: pip install {name}. Without --log all numbers are "
                "in the run's metrics.jsonl too"
            )
    return names


class Telling:
    """What is called with the step and the numbers of each line of the journal.

    callback: a function of the user's own, whose errors are the user's, and end training.
    finished: whether the run came to its end, which programs are told when all is done.
    """

    def __init__(self, programs: dict[str, Logger], callback: Callback | None, say: Callable[[str], None]) -> None:
        self.programs, self.callback, self.say, self.finished = programs, callback, say, False

    def __call__(self, step: int, numbers: dict[str, Any]) -> None:
        finite = {name: float(value) for name, value in numbers.items() if _is_finite(value)}
        for name, program in list(self.programs.items()):
            self._attempt(name, lambda program=program: program.write(step, finite))
        if self.callback is not None:
            self.callback(step, dict(numbers))

    def close(self) -> None:
        for name, program in list(self.programs.items()):
            self._attempt(name, lambda program=program: program.close(finished=self.finished))

    def _attempt(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever a program raises
            del self.programs[name]
            self.say(
                f"Warning, --log {name} failed ({type(error).__name__}: {_short(error)}) and is told nothing more. "
                "Training goes on; metrics.jsonl has all numbers."
            )


@contextmanager
def telling(
    names: Sequence[str], callback: Callback | None, out: Path, start: int, say: Callable[[str], None]
) -> Iterator[Telling]:
    """Within: what is to be told of each line of the journal.  names: as `asked_for` gives them.

    start: the step from which training goes on.
    Raises UserError, before training, where a program cannot begin.
    """
    told = Telling({}, callback, say)
    try:
        for name in names:
            try:
                told.programs[name] = LOGGERS[name](About(out, start))
            except Exception as error:
                raise UserError(
                    f"--log {name} cannot begin ({type(error).__name__}: {_short(error)}): mend that, or leave it out"
                ) from error
        yield told
    finally:
        told.close()


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


@contextmanager
def _unset(*names: str) -> Iterator[None]:
    """Within: variables of the environment are not there."""
    kept: Mapping[str, str] = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
