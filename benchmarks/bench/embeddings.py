"""Embedding a folder of images into shards, searching a million rows, and looking for near-duplicates."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, Run, clock_for, compare
from benchmarks.bench.views import small_images
from nearfar.embeddings import shards
from nearfar.embeddings.duplicates import near_duplicates
from nearfar.embeddings.search import nearest
from nearfar.run import fit, load

PLAIN = "bare loop"
BATCH = 256


def contenders(folder: Path, run: Path) -> dict[str, Contender]:
    """A folder of files, decoded and embedded by the encoder of a run."""

    def bare() -> Run:
        encoder, files = load(run).encoder, sorted((folder).glob("*.png"))

        @torch.no_grad()
        def embed() -> float:
            rows = []
            for start in range(0, len(files), BATCH):
                images = [np.asarray(Image.open(file).convert("RGB")) for file in files[start : start + BATCH]]
                rows.append(encoder(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255))
            return float(torch.cat(rows).mean())

        return embed

    def ours() -> Run:
        made = load(run)

        def embed() -> float:
            out = Path(tempfile.mkdtemp()) / "embeddings"
            shards.write(made, made.open(str(folder), labels="none"), out, data=str(folder), shard=5000)
            mean = float(torch.cat([pq_rows(file) for file in sorted(out.glob("*.parquet"))]).mean())
            shutil.rmtree(out.parent)
            return mean

        return embed

    return {PLAIN: bare, OURS: ours}


def pq_rows(file: Path) -> torch.Tensor:
    """The vectors of a shard."""
    import pyarrow.parquet as pq

    return torch.from_numpy(pq.read_table(file, columns=["vector"]).column(0).combine_chunks().values.to_numpy().copy())


def measure(setting: Setting) -> Found:
    """10,000 small images beside a bare loop; seconds of a query among a million rows, and of pairs of 200,000."""
    found, clock = Found(), clock_for(setting.threads)
    n = 500 if setting.quick else 10_000
    with tempfile.TemporaryDirectory() as name:
        folder, run = Path(name) / "images", Path(name) / "run"
        folder.mkdir()
        pixels, _ = small_images(n)
        for i, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
            Image.fromarray(image).save(folder / f"{i:05d}.png")
        few = pixels[:64].permute(0, 2, 3, 1).numpy()
        fit(few, out=run, encoder="conv4", epochs=1, batch=32, probe_every=0, say=lambda text: None)
        row = compare(
            "embed, values are means of the vectors",
            {"Images": n},
            contenders(folder, run),
            clock=clock,
            seconds=30,
            rate=(n, "images/s"),
        )
        found.add(row, "embed 32 px")
    for rows, what in (
        (10_000 if setting.quick else 1_000_000, "search"),
        (5000 if setting.quick else 200_000, "pairs"),
    ):
        unit = F.normalize(torch.randn(rows, 128, generator=torch.Generator().manual_seed(0)), dim=1)
        began = clock()
        if what == "search":
            for query in range(5):
                nearest(unit[query : query + 1], unit.split(50_000), 10)
            found.number("seconds a query, exact search of 1,000,000 x 128", (clock() - began) / 5)
        else:
            near_duplicates(unit, 0.95)
            found.number("seconds, near-duplicates of 200,000 x 128", clock() - began)
    return found
