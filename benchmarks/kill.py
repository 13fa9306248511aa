"""kill -9 in the middle of training, again and again, then `--resume`: `python -m benchmarks.kill --kills 10`.

Every trial is a run of its own that is killed and then resumed, and its final weights must be those of a run that
nobody killed, bit for bit. The kills fall at random moments, before the first checkpoint, and while one is written
(told by its temporary file).
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from benchmarks.bench.results import environment
from nearfar.modalities.image.drawings import drawings
from nearfar.training.checkpoints import Checkpoints, read

RESULTS = Path(__file__).parent / "results" / "kill.json"
Moment = Literal["at random", "before the first checkpoint", "while one is written"]
MOMENTS: tuple[Moment, ...] = ("at random", "while one is written", "before the first checkpoint")


@dataclass(frozen=True, kw_only=True)
class Kill:
    """How often, and what."""

    kills: int = 10
    """Trials: one kill each."""
    seed: int = 0
    """Of the moments."""
    samples: int = 640
    """Drawings to train on."""
    epochs: int = 8
    """Epochs of ten steps."""


@dataclass(slots=True)
class Killed:
    """One kill. seconds: after the start of the process. step: of the newest whole checkpoint then, None before any.
    half: whether a half-written file stayed behind. ended: whether the run was over before the kill."""

    moment: Moment
    seconds: float
    step: int | None
    half: bool
    ended: bool


class Runs:
    """Runs of one configuration in `folder`."""

    def __init__(self, folder: Path, *, samples: int, epochs: int, threads: int) -> None:
        self.folder = folder
        data = drawings("train").subset(range(samples))
        pixels = data.pixels(torch.arange(samples))[:, 0].numpy()  # N x 32 x 32
        np.savez(folder / "drawings.npz", images=pixels, labels=data.label.numpy())
        self.steps = epochs * (samples // 64)
        self.flags = ["--encoder", "conv4", "--epochs", str(epochs), "--batch", "64"]
        self.environment = child_environment(folder) | {"OMP_NUM_THREADS": str(threads)}

    def command(self, name: str, *, resume: bool = False) -> list[str]:
        out = ["--out", str(self.folder / name), *(["--resume"] if resume else [])]
        return ["nearfar", "train", "simclr", str(self.folder / "drawings.npz"), *self.flags, *out]

    def start(self, name: str, *, resume: bool = False) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", *self.command(name, resume=resume)]
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(argv, stdout=log, stderr=log, env=self.environment)

    def finish(self, name: str, *, resume: bool = False) -> float:
        """Run to the end; how many seconds that took. Raises RuntimeError with what the run said if it fails."""
        began = time.perf_counter()
        if self.start(name, resume=resume).wait() != 0:
            raise RuntimeError((self.folder / f"{name}.log").read_text(errors="replace"))
        return time.perf_counter() - began

    def kill(self, name: str, moment: Moment, chance: random.Random, typical: float) -> Killed:
        """Start or resume a run, kill it at the moment, and say what was there. `typical`: seconds of a whole run."""
        saved = self.folder / name / "checkpoints"
        after = chance.uniform(0, typical)
        skip = chance.randrange(4)
        written: set[str] = set()
        # As in a first start: whether there is a run to go on with is for --resume to find out.
        process, began = self.start(name, resume=True), time.perf_counter()
        while process.poll() is None:
            now = time.perf_counter() - began
            match moment:
                case "at random":
                    due = now >= after
                case "before the first checkpoint":
                    # From the first moment to just before the run is set up; then at the latest when it is.
                    due = now >= after / 2 or (self.folder / name / "config.yaml").exists()
                case "while one is written":
                    written |= {path.name for path in saved.glob(".*.tmp")}
                    due = len(written) > skip and any(saved.glob(".*.tmp"))
            if due:
                break
            time.sleep(0.0005)
        seconds = time.perf_counter() - began
        ended = process.poll() is not None
        process.kill()
        process.wait()
        steps = [int(path.stem.split("-")[1]) for path in Checkpoints(saved).all()]
        return Killed(moment, round(seconds, 2), max(steps, default=None), any(saved.glob(".*.tmp")), ended)

    def equal(self, name: str, other: str) -> bool:
        """Whether two runs ended with the same weights, optimizer state and exported encoder, bit for bit."""
        last = [read(Checkpoints(self.folder / run / "checkpoints").path(self.steps)) for run in (name, other)]
        files = [(self.folder / run / "encoder.safetensors").read_bytes() for run in (name, other)]
        return same(*last) and files[0] == files[1]


def child_environment(folder: Path) -> dict[str, str]:
    """This process's, but compiled modules are kept at least in `folder`: without them a start takes half a minute."""
    kept = dict(os.environ)
    if kept.pop("PYTHONDONTWRITEBYTECODE", None):
        kept["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    return kept


def same(a: object, b: object) -> bool:
    """Equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def main() -> int:
    asked = tyro.cli(Kill, description=__doc__)
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), samples=asked.samples, epochs=asked.epochs, threads=torch.get_num_threads())
        typical = runs.finish("whole")
        print(f"A whole run takes {typical:.1f} s. Killed:\n")
        heads = ("", "moment", "after", "newest checkpoint", "half a file left", "equal in the end")
        print("{:>3}  {:<28}{:>8}  {:>18}  {:>16}  {}".format(*heads))
        rows = []
        for number in range(asked.kills):
            while True:
                killed = runs.kill(f"run-{number}", MOMENTS[number % len(MOMENTS)], chance, typical)
                if not killed.ended:
                    break
                typical = min(typical, killed.seconds)  # the first run was slower: that was no kill, so once more
                shutil.rmtree(runs.folder / f"run-{number}")
            runs.finish(f"run-{number}", resume=True)
            equal = runs.equal(f"run-{number}", "whole")
            rows.append(asdict(killed) | {"equal": equal})
            step = "none" if killed.step is None else f"step {killed.step} of {runs.steps}"
            half = "yes" if killed.half else "no"
            print(
                f"{number + 1:>3}  {killed.moment:<28}{killed.seconds:>6.1f} s  {step:>18}  {half:>16}  {equal}",
                flush=True,
            )
        config = {"flags": shlex.join(runs.flags), "steps": runs.steps, "samples": asked.samples}
    good = sum(row["equal"] for row in rows)
    print(f"\n{good} of {len(rows)} went on and ended with the weights of the run that nobody killed.")
    result = {
        "title": "kill -9, then --resume",
        "command": f"python -m benchmarks.kill --kills {asked.kills} --seed {asked.seed} --samples {asked.samples} "
        f"--epochs {asked.epochs}",
        "config": config,
        "seeds": [asked.seed],
        "date": time.strftime("%Y-%m-%d"),
        "machine": environment(),
        "whole_run_seconds": round(typical, 1),
        "equal": good,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"Written to {RESULTS}")
    return 0 if good == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
