"""Numbers that cannot be: in arguments, in the state of a run, in the weights of an encoder, in the journal."""

from __future__ import annotations

import json
import math
import shutil
import typing
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import nearfar
from benchmarks.faults import Faults, command
from nearfar import methods, modalities, ranges
from nearfar.errors import Diverged
from nearfar.evaluation.alarms import alarms
from nearfar.export.encoder import export_encoder
from nearfar.method import Encoder
from nearfar.training import checkpoints
from nearfar.training import plan as plans
from nearfar.training.loop import fit
from nearfar.training.optimization import make_optimizer
from nearfar.training.options import Loop

TINY = ("--encoder", "conv4", "--epochs", "2", "--batch", "16", "--views", "drawing")


def _outside(random: Random, hint: Any) -> Any:
    """A value beyond the range of a type, or None where it is hard to say one."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "nonsense"
    if origin is typing.Annotated and inner[0] in (int, float):
        part = inner[1]
        far = random.choice([1e-3, 1.0, 1e9]) if inner[0] is float else random.choice([1, 2, 10**6])
        low = None if part.ge is None else part.ge - far
        high = None if part.le is None else part.le + far
        ends = (low, part.gt, high, part.lt)
        return random.choice([math.nan, math.inf, *[end for end in ends if end is not None]])
    return None


def arguments_out_of_range(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """Arguments of all methods, and settings, out of their ranges"""
    kinds = [modalities.entry(kind).Settings for kind in modalities.names()]
    own = {name: {f: p.annotation for f, p in methods.flags(methods.load(name)).items()} for name in methods.names()}
    run = typing.get_type_hints(kinds[0], include_extras=True)
    injected = 0
    while injected < many:
        name = random.choice(list(own))
        flag, hint = random.choice([*own[name].items(), *run.items()])
        if (value := _outside(random, hint)) is None:
            continue
        injected += 1
        shown = ranges.flag(flag)
        if injected % 4 == 0:
            said = command(["train", name, "drawings", f"{shown}={value}", "--out", folder / "run"])
            well = said.refused and shown in said.text and not (folder / "run").exists()
            faults.tell(well, f"train {name} {shown} {value}: {said.status} {said.text[-150:]}")
            continue
        try:
            plans.make(name, "drawings", None, {flag: value})
            faults.tell(False, f"{name} {flag}={value!r} is taken")
        except ValueError as error:
            faults.tell(shown in str(error), f"{name} {flag}={value!r}: {error}")


class _Rows:
    """Samples of six numbers."""

    def __init__(self, n: int = 32) -> None:
        self.input, self.label = torch.randn(n, 6, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 4
        self.group = self.attribute = torch.full((n,), -1)

    def __len__(self) -> int:
        return len(self.input)

    def fetch(self, index: Tensor) -> tuple[Tensor]:
        return (self.input[index],)


class _Noise:
    def __len__(self) -> int:
        return 2

    def draw(self, n: int, generator: torch.Generator) -> Any:
        noise = 0.3 * torch.randn(2, n, 6, generator=generator)
        return type("Draws", (), {"rows": lambda self, which: noise[:, which]})()

    def __call__(self, x: Tensor, draws: Tensor) -> list[Tensor]:
        return [x + noise for noise in draws]


class _Net(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.dim = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU()), 8

    def forward(self, view: Tensor) -> Tensor:
        return self.net(view)


def numbers_in_state(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """NaN and inf in a parameter, a buffer or the optimizer, in mid-run: none is saved"""
    settings = nearfar.Settings(optimizer="adamw", lr=0.01, batch=8)
    for number in range(many):
        torch.manual_seed(number)
        method = methods.load("moco")(_Net(), dim=4, queue=8, splits=1)
        rate = make_optimizer(method, settings, 8)
        places = [v for v in method.state_dict().values() if v.is_floating_point()]
        pick, value, when = random.random(), random.choice([math.nan, math.inf, -math.inf]), random.randrange(8)

        def watch(step: int, steps: int, numbers: Any, at: Any = (pick, value, when)) -> None:
            if step == at[2] // 4 * 4 + 4:
                held = [v for s in rate.state.values() for v in s.values() if v.dim()]  # noqa: B023
                every = [*places, *held]  # noqa: B023
                every[int(at[0] * len(every))].flatten()[0] = at[1]

        kept = checkpoints.Checkpoints(folder / str(number))
        loop = Loop(epochs=3, batch=8, checkpoints=kept, watch=watch, say=lambda text: None)
        try:
            fit(method, _Rows(), _Noise(), rate, loop)
            ended = "it trained on"
        except Diverged as error:
            ended = "" if "finite" in str(error) or "became nan" in str(error) else str(error)
        sound = all(v.isfinite().all() for path in kept.all() for v in checkpoints.read(path)["method"].values())
        faults.tell(not ended and sound, f"{value} in place {pick:.3f}: {ended or 'saved'}")


def dead_encoders(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """Weights that give one row for all, or none that is finite: no command uses them"""
    images = np.random.default_rng(0).integers(0, 256, (32, 16, 16), dtype=np.uint8)
    np.savez(folder / "data.npz", images=images, labels=np.arange(32) % 4)
    command(["train", "simclr", folder / "data.npz", *TINY, "--out", folder / "run"])
    sound = folder / "run" / "encoder.safetensors"
    for number in range(many):
        bad = shutil.copytree(folder / "run", folder / f"bad{number}")
        run = nearfar.load(bad)
        factor = random.choice([0.0, 1e30, math.inf, math.nan])
        weights = {k: v * factor if v.is_floating_point() else v for k, v in load_file(sound).items()}
        run.encoder.network().load_state_dict(weights)
        try:
            export_encoder(run.encoder, bad)
        except ValueError:  # what is not finite is not even written
            faults.tell(True, "")
            continue
        words = random.choice(["embed", "evaluate", "export", "finetune", "label-plan", "train"])
        data = folder / "data.npz"
        call: list[Any] = [words, bad, *([] if words == "export" else [data])]
        call += ["--out", folder / f"out{number}"] if words in ("finetune", "label-plan") else []
        call += ["--labels", "none"] if words == "label-plan" else []
        if words == "train":
            call = ["train", "simclr", data, *TINY, "--from-run", bad, "--out", folder / f"out{number}"]
        said = command(call)
        left = (folder / f"out{number}").exists() or (bad / "embeddings.npz").exists()
        faults.tell(said.refused and not left, f"{words} of weights * {factor}: {said.status} {said.text[-150:]}")


def numbers_in_journal(faults: Faults, folder: Path, random: Random, many: int) -> None:
    """Numbers of the journal that are null, NaN or infinite"""
    data = folder / "data.npz"
    np.savez(data, images=np.random.default_rng(0).integers(0, 256, (32, 16, 16), dtype=np.uint8))
    command(["train", "simclr", data, *TINY, "--out", folder / "run"])
    path = folder / "run" / "metrics.jsonl"
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    for number in range(many):
        spoiled = [dict(line) for line in lines]
        for _ in range(random.randint(1, 6)):
            line = random.choice(spoiled)
            name = random.choice(list(line))
            if name != "step":
                line[name] = random.choice([None, math.nan, math.inf])
        path.write_text("".join(json.dumps(line) + "\n" for line in spoiled), encoding="utf-8")
        try:
            alarms(spoiled)
            said = command(["report", folder / "run"]) if number % 10 == 0 else None
            faults.tell(said is None or said.status == 0, f"report: {said and said.text[-150:]}")
        except Exception as error:
            faults.tell(False, f"{type(error).__name__}: {error} of {spoiled}")
