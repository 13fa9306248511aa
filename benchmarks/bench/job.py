"""A whole small job, from files to a trained encoder with probes, as a process of its own: ours, and lightly's parts.

    python -m benchmarks.bench.job WHO SEED FOLDER

trains conv4 by SimCLR on 5,000 images of CIFAR-10, 3 epochs in batches of 256, AdamW with a cosine, kNN on held-out
training images after each epoch. lightly: its transform in a DataLoader, its loss, its kNN, in a plain loop, with our
networks and their first weights.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.bench.results import Found, Setting
from benchmarks.bench.start import children
from benchmarks.bench.timing import OURS, Row, Spread
from benchmarks.bench.views import data_folder, lightly_views
from nearfar.machine import memory_kept
from nearfar.modalities.image.samples import open_images

EPOCHS, BATCH, RATE, DECAY, TEMPERATURE = 3, 256, 1e-3, 0.01, 0.2
LIGHTLY, KEPT = "lightly's parts, plain loop", "lightly's parts, plain loop, memory kept"
IMAGES, SEEDS, HELD = 5000, 3, 10


def train_ours(seed: int, folder: Path) -> nn.Module:
    from nearfar.run import load
    from nearfar.training import job, plan

    flags = {"encoder": "conv4", "epochs": EPOCHS, "batch": BATCH, "optimizer": "adamw", "lr": RATE, "warmup": 0.0}
    flags |= {"weight_decay": DECAY, "views": "simclr", "seed": seed, "probe_every": 1, "temperature": TEMPERATURE}
    made = plan.make("simclr", str(folder / "images.npz"), "small_images", flags)
    job.train(made, folder / "run", say=lambda text: None)
    return load(folder / "run").encoder


def train_lightly(seed: int, folder: Path) -> nn.Module:
    from lightly.loss import NTXentLoss
    from lightly.utils.benchmarking import knn_predict
    from PIL import Image

    from nearfar.methods.simclr import SimCLR
    from nearfar.modalities.image.encoder import image_encoder

    torch.manual_seed(seed)
    method = SimCLR(image_encoder("conv4", size=32))
    held = np.load(folder / "images.npz")
    arrays, label, two = held["images"], torch.from_numpy(held["labels"]), lightly_views(32)
    pairs: Any = _Pairs([Image.fromarray(array) for array in arrays], two)
    loader = torch.utils.data.DataLoader(pairs, BATCH, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(method.parameters(), RATE, weight_decay=DECAY)
    steps = EPOCHS * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: (1 + math.cos(math.pi * n / steps)) / 2)
    loss = NTXentLoss(TEMPERATURE)
    pixels, classes = torch.from_numpy(arrays).permute(0, 3, 1, 2), int(label.max()) + 1
    query = torch.arange(0, len(label), HELD)
    bank = torch.tensor([i for i in range(len(label)) if i % HELD])
    for _ in range(EPOCHS):
        for x1, x2 in loader:
            z1, z2 = method.projector(method.encoder(torch.cat([x1, x2]))).chunk(2)
            value = loss(z1, z2)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
        rows = nn.functional.normalize(embedded(method.encoder, pixels), dim=1)
        knn_predict(rows[query], rows[bank].T.contiguous(), label[bank], classes, 20, 0.1)
        method.train()
    return method.encoder


class _Pairs(torch.utils.data.Dataset):
    def __init__(self, images: list[Any], two: Any) -> None:
        self.images, self.two = images, two

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> list[Tensor]:
        return self.two(self.images[i])


@torch.no_grad()
def embedded(encoder: nn.Module, pixels: Tensor) -> Tensor:
    """N x 3 x 32 x 32, uint8 -> N x dim."""
    encoder.eval()
    return torch.cat([encoder(part.float() / 255) for part in pixels.split(256)])


def main(who: str, seed: int, folder: Path) -> None:
    """Train, and keep what the encoder makes of the test images and of those to learn from."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with memory_kept() if who == KEPT else contextlib.nullcontext():
        encoder = (train_ours if who == OURS else train_lightly)(seed, folder)
    torch.save(encoder, folder / "encoder.pt")


def accuracy(encoder: nn.Module, learn: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """kNN on test images, in %."""
    from nearfar.evaluation.knn import knn

    rows = [embedded(encoder, pixels) for pixels, _ in (learn, test)]
    return knn(rows[0], learn[1], rows[1], test[1], k=20)["accuracy"]


def measure(setting: Setting) -> Found:
    """CPU seconds of the whole process, out of the box and with the memory kept on both sides, and test accuracy."""
    found = Found()
    n, seeds = (512, 1) if setting.quick else (IMAGES, SEEDS)
    sets = {}
    for name, count in (("train", n), ("test", n if setting.quick else 2000)):
        images = open_images(data_folder() / f"cifar10_{name}.npz")
        some = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count].sort().values
        sets[name] = images.pixels(some), images.label[some]
    seconds: dict[str, list[float]] = {LIGHTLY: [], KEPT: [], OURS: []}
    right: dict[str, list[float]] = {who: [] for who in seconds}
    for seed in range(seeds):
        for who in seconds:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                pixels, label = sets["train"]
                np.savez(folder / "images.npz", images=pixels.permute(0, 2, 3, 1).numpy(), labels=label.numpy())
                began = children()
                words = [sys.executable, "-m", "benchmarks.bench.job", who, str(seed), name]
                subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
                seconds[who].append(children() - began)
                right[who].append(accuracy(torch.load(folder / "encoder.pt", weights_only=False), *sets.values()))
            print(f"    seed {seed}: {who} {seconds[who][-1]:.1f} s, {right[who][-1]:.1f} %", flush=True)
    ratio = {who: [a / b for a, b in zip(of, seconds[OURS], strict=True)] for who, of in seconds.items()}
    row = Row(
        "whole job, SimCLR, conv4, CPU seconds of the process, values are kNN test accuracies in %",
        {"Images": n, "Epochs": EPOCHS, "Batch": BATCH},
        {who: Spread.of(of) for who, of in seconds.items()},
        {who: Spread.of(of) for who, of in ratio.items()},
        seeds,
        value={who: sum(of) / len(of) for who, of in right.items()},
    )
    print(row.text(), flush=True)
    found.add(row, "job")
    mean = row.value
    found.number("job: test accuracy above lightly's parts, points", mean[OURS] - mean[LIGHTLY])
    return found


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
