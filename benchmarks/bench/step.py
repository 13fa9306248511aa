"""Whole training steps against loops written by hand, and what the loop itself costs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench import plain
from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, Run, clock_for, compare
from benchmarks.bench.views import small_images, torchvision_view
from nearfar import optim
from nearfar.batch import MISSING, Batch
from nearfar.methods.simclr import SimCLR
from nearfar.modalities.image import named
from nearfar.modalities.image.encoder import image_encoder
from nearfar.modalities.image.samples import open_images
from nearfar.training.journal import Journal
from nearfar.training.loop import fit
from nearfar.training.options import Loop

BY_HAND, GIVEN = "loop by hand", "same network, views given"
BARE, EQUAL = "bare loop by hand", "loop by hand with schedule, norm, log"


def simclr_contenders(pixels: Tensor, batch: int, folder: Path) -> dict[str, Contender]:
    """An epoch of SimCLR with a ResNet-18 for small images, SGD, temperature 0.5."""

    def by_hand() -> Run:
        net = torchvision.models.resnet18(num_classes=512)
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
        net.fc = nn.Sequential(
            nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 128, bias=False)
        )
        optimizer = torch.optim.SGD(net.parameters(), 0.06, momentum=0.9, weight_decay=5e-4)
        view = torchvision_view(32)

        def run() -> None:
            for rows in torch.randperm(len(pixels)).split(batch):
                x = torch.stack([view(image) for _ in range(2) for image in pixels[rows]])
                z1, z2 = F.normalize(net((x - 0.5) / 0.25), dim=1).chunk(2)
                loss = plain.nt_xent(z1, z2, 0.5)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return run

    def given() -> Run:
        method = _simclr()
        optimizer = _sgd(method)
        steps = len(pixels) // batch
        ready = [Batch(list(torch.rand(2, batch, 3, 32, 32)), *[torch.arange(batch)] * 3) for _ in range(steps)]

        def run() -> None:
            for step in ready:
                loss = method(step).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return run

    def ours() -> Run:
        method, data = _simclr(), open_images(pixels.permute(0, 2, 3, 1).numpy())
        optimizer = _sgd(method)
        loop = _loop(batch, folder / "metrics.jsonl")
        return lambda: fit(method, data, named.simclr(32), optimizer, loop)

    return {BY_HAND: by_hand, GIVEN: given, OURS: ours}


def _simclr() -> SimCLR:
    return SimCLR(image_encoder("resnet18", size=32), temperature=0.5)


def _sgd(module: nn.Module) -> torch.optim.Optimizer:
    return optim.sgd(optim.parameter_groups(module, 5e-4), 0.06)


def _loop(batch: int, journal: Path) -> Loop:
    return Loop(
        epochs=1,
        batch=batch,
        schedule=lambda step, steps: optim.warmup_cosine(step, steps=steps, warmup=0),
        journal=Journal(journal),
        quiet=True,
    )


class _Rows:
    """Rows of numbers in memory, as training data."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.label = self.group = self.attribute = torch.full((len(x),), MISSING)

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, index: Tensor) -> tuple[Tensor]:
        return (self.x[index],)


class _Two:
    """Two views that cost next to nothing, so that the loop is what is measured."""

    def __len__(self) -> int:
        return 2

    def draw(self, n: int, generator: torch.Generator) -> _Two:
        return self

    def rows(self, rows: slice) -> _Two:
        return self

    def __call__(self, *inputs: Any, draws: Any) -> list[Tensor]:
        return [inputs[0], -inputs[0]]


class _Tiny(nn.Sequential):
    dim = 64

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))


def tiny_contenders(steps: int, batch: int, folder: Path) -> dict[str, Contender]:
    """Some steps of SimCLR with a network of two layers, so small that a loop's own work shows."""
    x = torch.randn(steps * batch, 64)
    missing = torch.full((batch,), MISSING)

    def bare() -> Run:
        method = SimCLR(_Tiny())
        optimizer = _sgd(method)

        def run() -> None:
            for rows in torch.randperm(len(x)).split(batch):
                part = x[rows]
                loss = method(Batch([part, -part], rows, missing, missing)).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return run

    def equal() -> Run:
        method = SimCLR(_Tiny())
        optimizer = _sgd(method)

        def run() -> None:
            lines = []
            for step, rows in enumerate(torch.randperm(len(x)).split(batch)):
                part = x[rows]
                loss = method(Batch([part, -part], rows, missing, missing)).loss
                optimizer.zero_grad()
                loss.backward()
                norm = torch.nn.utils.get_total_norm([p.grad for p in method.parameters() if p.grad is not None])
                optim.scale_rates(optimizer, optim.warmup_cosine(step, steps=steps, warmup=0))
                optimizer.step()
                lines.append(json.dumps({"step": step, "loss": loss.item(), "norm": norm.item()}))
            (folder / "by_hand.jsonl").write_text("\n".join(lines), encoding="utf-8")

        return run

    def ours() -> Run:
        method, data = SimCLR(_Tiny()), _Rows(x)
        optimizer = _sgd(method)
        loop = _loop(batch, folder / "tiny.jsonl")
        return lambda: fit(method, data, _Two(), optimizer, loop)

    return {BARE: bare, EQUAL: equal, OURS: ours}


def measure(setting: Setting) -> Found:
    """A SimCLR step on small images, the share of its input, and the loop's own cost."""
    found = Found()
    clock = clock_for(setting.threads)
    torch.manual_seed(0)
    batch, steps = (8, 1) if setting.quick else (64, 3)
    pixels, source = small_images(batch * steps)
    with tempfile.TemporaryDirectory() as name:
        row = compare(
            f"SimCLR, ResNet-18, 32 px ({source}), {steps} steps",
            {"Batch": batch},
            simclr_contenders(pixels, batch, Path(name)),
            clock=clock,
            seconds=1 if setting.quick else 120,
            rate=(batch * steps, "pairs/s"),
        )
        found.add(row, "SimCLR step")
        images, simclr = open_images(pixels.permute(0, 2, 3, 1).numpy()), named.simclr(32)
        generator, rows = torch.Generator().manual_seed(0), torch.arange(batch)
        alone = compare(
            "its input alone, 1 step",
            {"Batch": batch},
            {OURS: lambda: lambda: simclr(*images.fetch(rows), draws=simclr.draw(batch, generator))},
            clock=clock,
            seconds=1,
        )
        found.rows.append(alone)
        found.number(
            "share of the input in a step, %", 100 * steps * alone.seconds[OURS].median / row.seconds[OURS].median
        )
        batch, steps = 64, 20 if setting.quick else 1000
        row = compare(
            f"the loop alone, tiny model, {steps} steps",
            {"Batch": batch},
            tiny_contenders(steps, batch, Path(name)),
            clock=clock,
            seconds=0.5 if setting.quick else 20,
            reference=BARE,
            rate=(steps, "steps/s"),
        )
        found.add(row, "loop")
        found.number(f"loop: {OURS} / {EQUAL}", row.ratio[OURS].median / row.ratio[EQUAL].median)
    return found
