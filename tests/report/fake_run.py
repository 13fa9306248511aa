"""A run directory as a real run leaves it, from made-up numbers: shapes in colors, seven classes, no training.

python tests/report/fake_run.py FOLDER writes one, and its report, to look at.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from nearfar.data.tiles import Cells, Excerpts, Face, Thumbnails, Tiles
from nearfar.files import replace_json
from nearfar.report.samples import copy_sets, embedding_map, neighbor_grid, outliers
from nearfar.training.directory import write_config, write_skipped
from nearfar.training.journal import Journal

CLASSES = ["daisy", "dahlia", "iris", "lily of the valley", "poppy", "sunflower", "tulip"]
HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">"\'&`$body'


def images(n: int, side: int = 48, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n drawn flowers (uint8, n x 3 x side x side) and their classes (n)."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, len(CLASSES), n)
    hues = [
        (240, 240, 245),
        (190, 60, 120),
        (90, 90, 210),
        (235, 245, 225),
        (220, 50, 40),
        (245, 190, 30),
        (235, 120, 150),
    ]
    drawn = []
    for c in label:
        sky = tuple(int(v) for v in rng.integers(30, 110, 3))
        image = Image.new("RGB", (side, side), sky)
        pen = ImageDraw.Draw(image)
        x, y, r = rng.uniform(0.38, 0.62) * side, rng.uniform(0.38, 0.62) * side, rng.uniform(0.2, 0.34) * side
        hue = tuple(int(np.clip(v + rng.normal(0, 12), 0, 255)) for v in hues[c])
        turn = rng.uniform(0, 2 * math.pi)
        for k in range(c + 4):
            a = turn + 2 * math.pi * k / (c + 4)
            u, v = x + r * 0.75 * math.cos(a), y + r * 0.75 * math.sin(a)
            pen.ellipse((u - r / 2, v - r / 2, u + r / 2, v + r / 2), fill=hue)
        pen.ellipse((x - r / 3, y - r / 3, x + r / 3, y + r / 3), fill=(230, 180, 40) if c != 5 else (90, 50, 20))
        drawn.append(np.asarray(image))
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(label)


def features(label: Tensor, dim: int = 32, seed: int = 0) -> Tensor:
    """Embeddings that a fair encoder might give: a blob for each class, two of them near each other."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(len(CLASSES), dim, generator=generator)
    center[4] = center[6] + 0.5 * torch.randn(dim, generator=generator)
    return center[label] + 0.75 * torch.randn(len(label), dim, generator=generator)


def measured(label: Tensor, columns: int = 16, evil: str = "", seed: int = 0) -> Cells:
    """Measured flowers: numbers, some unknown, then words; all but two of the columns are shown."""
    rng = np.random.default_rng(seed)
    words = ["meadow", "a shady wood by the river", "garden", "roadside"]
    cells = [
        [
            *("" if rng.random() < 0.1 else f"{2 * c + rng.integers(0, 5)}" for _ in range(columns // 2)),
            *(words[rng.integers(0, 4)] + evil for _ in range(columns - 2 - columns // 2)),
        ]
        for c in label.tolist()
    ]
    names = [f"petal_{c}_length_mm" if c < columns // 2 else f"habitat_{c}" for c in range(columns - 2)]
    return Cells(columns=[name + evil for name in names], numbers=columns // 2, cells=cells.__getitem__, hidden=2)


def described(label: Tensor, evil: str = "", seed: int = 0) -> Excerpts:
    """Flowers in words, some of them more than a page shows."""
    rng = np.random.default_rng(seed)
    words = ["white petals", "a hairy stem", "found near water", "scented at night", "leaves like hearts"]
    texts = [", ".join(rng.choice(words, rng.integers(1, 30))) + evil for _ in label]
    return Excerpts(text=texts.__getitem__)


def face(kind: str, pixels: Tensor, label: Tensor, evil: str) -> Face:
    if kind == "thumbnails":
        return Thumbnails(pixels=pixels.__getitem__)
    return measured(label, evil=evil) if kind == "cells" else described(label, evil)


def write(
    folder: Path,
    *,
    n: int = 600,
    labels: bool = True,
    hostile: bool = False,
    kind: str = "thumbnails",
    seed: int = 0,
) -> Path:
    """A finished run in `folder`; with `hostile`, every name in it tries to break out of the page.

    kind: the name of the face that samples have.
    """
    rng = np.random.default_rng(seed)
    (folder / "results").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    for name in ("step-1000", "step-2000", "last"):
        (folder / "checkpoints" / name).touch()
    evil = HOSTILE if hostile else ""
    replace_json(
        folder / "environment.json",
        {
            "started": "2026-11-20T21:14:05+00:00",
            "seconds": 3127.4,
            "paper": "He et al. 2020, arXiv 1911.05722" + evil,
            "nearfar": "0.1.0",
            "torch": "2.15.0",
            "device": "NVIDIA RTX 4090" + evil,
            "processes": 1,
            "timings": {"opening the data": 14.2, "training": 2871.0, "measuring": 196.0, "report" + evil: 4.1},
            "notes": [
                "The encoder's first layer was changed for small images (3 x 3, no pooling).",
                "12 pairs of images are the same file under two names." + evil,
            ],
        },
    )
    journal, steps = Journal(folder / "metrics.jsonl"), 1400
    for step in range(0, steps, 2):
        t = step / steps
        journal.write(
            {
                "step": step,
                "epoch": 100 * t,
                "loss": 8.32 - 6.0 * (1 - math.exp(-4 * t)) * min(1, t * 12) + 0.12 * rng.normal(),
                "chance": math.log(4097),
                "lr": 0.06 * min(1, t * 10) * (0.5 + 0.5 * math.cos(math.pi * t)),
                "gradient_norm": 1.4 * math.exp(-1.5 * t) + 0.25 * abs(rng.normal()),
                "accuracy": min(100.0, 90 * (1 - math.exp(-5 * t)) + 2 * rng.normal()),
                "samples_per_second": 1280 + 60 * rng.normal() - (500 if step % 280 == 0 else 0),
            }
        )
        if labels and step % 140 == 0:
            knn = 44 + 37 * (1 - math.exp(-3.2 * t)) + rng.normal()
            journal.write({"step": step, "epoch": 100 * t, "knn": knn, "knn_samples": 367})
    with journal.path.open("a") as file:
        file.write('{"step": 14')  # cut off in the middle of a line, as by a crash
    write_skipped(folder, [(f"photos/{i:04}{evil}.jpg", "truncated file") for i in range(3)])

    pixels, label = images(n, seed=seed)
    contact_sheet(pixels[:6], rng).save(folder / "views.png", compress_level=1)
    write_config(
        folder,
        {
            "method": {"name": "moco" + evil, "dim": 128, "queue": 4096, "momentum": 0.99, "temperature": 0.2},
            "encoder": {"name": "resnet18" + evil},
            "data": "photographs/flowers" + evil,
            "samples": 3670,
            "epochs": 100,
            "batch": 256,
            "views": {"name": "moco_v2", "size": 96, "crop": [0.2, 1.0]},
            "seed": 0,
            evil or "note": evil,
        },
    )
    embedded = features(label, seed=seed)
    group = torch.full((n,), -1)
    for g, rows in enumerate([[3, 8], [4, 5, 11, 12, 20, 21, 22, 23], [30, 31, 32], [1, 2]]):
        group[rows], label[rows] = g, int(label[rows[0]])
        pixels[rows], embedded[rows] = pixels[rows[0]].clone(), embedded[rows[0]] + 0.1 * features(label[rows], seed=g)
        if g % 2:  # copies whose labels contradict each other
            label[rows[0]] = (label[rows[0]] + 1) % len(CLASSES)
    label = label if labels else torch.full_like(label, -1)
    tiles = Tiles(
        face=face(kind, pixels, label, evil),
        names=[f"{'photos' if kind == 'thumbnails' else kind}/{i:04}{evil}.jpg" for i in range(n)],
        label=label,
        classes=[name + evil for name in CLASSES],
        noun="flower" + evil,
        plural="flowers" + evil,
        copies="Flowers count as copies in any light." + evil,
    )
    replace_json(folder / "results/map.json", drawn_map(embedded, tiles))
    replace_json(folder / "results/neighbors.json", neighbor_grid(embedded, tiles, seed=seed))
    replace_json(folder / "results/copies.json", copy_sets(embedded, group, tiles))
    replace_json(folder / "results/outliers.json", outliers(embedded, tiles))
    if labels:
        replace_json(folder / "results/demo.json", table(evil))
    return folder


RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unlabeled": {"labels": False},
    "hostile": {"hostile": True},
    "cells": {"kind": "cells"},
    "hostile cells": {"kind": "cells", "hostile": True},
    "excerpts": {"kind": "excerpts"},
    "hostile excerpts": {"kind": "excerpts", "hostile": True},
}
"""The runs that tests look at, by name: the arguments of `write`."""
PLACES: dict[bytes, dict[str, Any]] = {}


def drawn_map(embedded: Tensor, tiles: Tiles) -> dict[str, Any]:
    """The map of these embeddings. Where the points lie is found once for all runs that differ in their tiles alone."""
    key = embedded.numpy().tobytes()
    if key not in PLACES:
        n = len(embedded)
        blank = Tiles(face=Excerpts(text=str), names=[""] * n, label=torch.full((n,), -1), classes=[])
        PLACES[key] = embedding_map(embedded, blank, limit=n)
    every = torch.arange(len(embedded))
    return {
        **{name: value for name, value in PLACES[key].items() if name != "excerpts"},
        **tiles.head(),
        **tiles.face.every(every, 40),
        "name": list(tiles.names),
        "label": [tiles.class_name(i) for i in every.tolist()],
    }


def contact_sheet(pixels: Tensor, rng: np.random.Generator, views: int = 8, side: int = 96) -> Image.Image:
    """A row for each image, with as many random cuts of it as `views`."""
    sheet = Image.new("RGB", (views * side, len(pixels) * side))
    for i, image in enumerate(pixels):
        whole = Image.fromarray(image.permute(1, 2, 0).numpy())
        for k in range(views):
            size = rng.uniform(0.5, 1) * whole.width
            x, y = rng.uniform(0, whole.width - size, 2)
            sheet.paste(whole.resize((side, side), box=(x, y, x + size, y + size)), (k * side, i * side))
    return sheet


def table(evil: str = "") -> dict[str, Any]:
    """A comparison with numbers for single classes."""

    def row(name: str, main: bool, knn: float, linear: float, ndcg: float) -> dict[str, Any]:
        values = {
            "kNN accuracy (%)": {"value": knn, "low": knn - 2.4, "high": knn + 2.3},
            "10 labels a class (%)": {"value": linear, "low": linear - 3.1, "high": linear + 3.0},
            "mean average precision": {"value": ndcg, "low": ndcg - 0.021, "high": ndcg + 0.02},
        }
        return {"name": name + evil, "values": values} | ({"main": True} if main else {})

    classes = [(name, 70 + 13 * i, 95.2 - 6.3 * i) for i, name in enumerate(CLASSES)]
    return {
        "title": "Does it help?" + evil,
        "note": "The same images, the same few labels, three ways to describe an image." + evil,
        "columns": ["kNN accuracy (%)", "10 labels a class (%)", "mean average precision"],
        "rows": [
            row("raw pixels", False, 38.4, 31.0, 0.214),
            row("untrained encoder", False, 43.9, 35.2, 0.262),
            row("trained (moco)", True, 80.7, 76.3, 0.641),
        ],
        "per_class": {
            "columns": ["samples", "kNN accuracy (%)"],
            "rows": [
                {
                    "name": name + evil,
                    "values": {
                        "samples": {"value": count},
                        "kNN accuracy (%)": {"value": value, "low": value - 7, "high": min(100, value + 6)},
                    },
                }
                for name, count, value in classes
            ],
        },
        "confusion": {
            "by": "nearest neighbors" + evil,
            "classes": [name + evil for name in CLASSES],
            "counts": [
                [c, answer, n] for c, (_, count, value) in enumerate(classes) for answer, n in confused(c, count, value)
            ],
        },
        "protocol": {
            "version": 1,
            "k": 20,
            "temperature": 0.07,
            "test share": 0.2,
            "interval": "bootstrap, 1000 draws",
        },
    }


def confused(c: int, count: int, right: float) -> list[tuple[int, int]]:
    """What the samples of class c were taken for: itself, and mostly one other."""
    hits = round(count * right / 100)
    most = (count - hits) * 2 // 3
    answers = [(c, hits), ((c + 2) % len(CLASSES), most), ((c + 3) % len(CLASSES), count - hits - most)]
    return [(answer, n) for answer, n in answers if n]


if __name__ == "__main__":
    from nearfar.report.page import report

    print(report(write(Path(sys.argv[1]))))
