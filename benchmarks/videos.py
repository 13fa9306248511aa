"""What do methods on clips learn of motion? `python -m benchmarks.videos`, or with names of ROWS: emoji that move.

1,024 clips to train on and 1,024 to test, of emoji whose bases are in one part alone, which cross a square of 20 px in
one of four directions at one of two speeds (`benchmarks.moving`). The same small encoder for all, 160 steps (more of
smaller batches), and the last epoch: a linear classifier tells the motion (8) and what group the emoji is of (10),
and the nearest training clips are looked at, beside raw pixels and the untrained encoder. Of DPC also how often what
comes next is found. Settings were chosen on drawings of the training part (`benchmarks.learn`), not on these results.
One file a run, so that a stopped series goes on.

`python -m benchmarks.videos --alignment` instead trains TCN on two cameras of one scene, and measures by how much of a
video the nearest frame of the other camera is off, in videos that were not trained on.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks import moving
from benchmarks.bench.results import keep
from benchmarks.compare import DATA, trained
from benchmarks.learn import source
from nearfar import across
from nearfar.errors import counted
from nearfar.evaluation.evaluate import evaluate
from nearfar.evaluation.intervals import PERCENT, over_seeds
from nearfar.evaluation.linear import RIDGE_STRENGTHS, ridge
from nearfar.run import Run
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "videos"
CLIPS, EPOCHS = 1024, 10
SHARED: dict[str, Any] = {
    "encoder": "slow18x8",
    "size": 16,
    "clip_frames": 8,
    "stride": 1,
    "views": "motion",
    "probe_every": 0,
    "batch": 64,
    "optimizer": "adamw",
    "lr": 8e-3,
    "weight_decay": 1e-2,
    "warmup": 1,
    "labels": "none",
}
FUTURE: dict[str, Any] = {
    "blocks": 3,
    "steps": 1,
    "width": 64,
    "clip_frames": 12,
    "view_count": 1,
    "frame_colors": True,
}
"""Of DPC: blocks of 4 frames, in which motion can be seen, and colors of each frame, as the paper has them."""
ORDER: dict[str, Any] = {
    "parts": 3,
    "reversible": False,
    "clip_frames": 16,
    "views": "tcn",
    "view_count": 1,
    "batch": 32,
    "lr": 1.6e-2,
    "epochs": 5,
}
"""Of frame sorting: parts of 5 frames, in which motion can be seen."""
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "cvrl": ("cvrl", {"hidden": 256}),
    "cvrl, draws per frame": ("cvrl", {"hidden": 256, "consistent": False}),
    "cvrl, one frame": ("cvrl", {"hidden": 256, "clip_frames": 1}),
    "framesorting": ("framesorting", ORDER),
    "framesorting, of what gets faster": ("framesorting", ORDER),
    "speed": ("speed", {"view_count": 1}),
    "dpc": ("dpc", FUTURE),
}
"""Names of rows, their methods and flags."""
FASTER = {"framesorting, of what gets faster": 0.3}
"""Rows that are trained on clips in which speed grows by so many px a frame; all are measured on the same clips."""
SCENES, MOMENTS = 48, 32
TCN: dict[str, Any] = {
    "encoder": "conv4",
    "pooling": "softargmax",
    "size": 32,
    "clip_frames": 16,
    "stride": 1,
    "views": "tcn",
    "batch": 8,
    "optimizer": "adam",
    "lr": 3.2e-2,
    "weight_decay": 1e-6,
    "warmup": 0,
    "hidden": 128,
    "probe_every": 0,
    "epochs": 60,
}
FORMS: dict[str, dict[str, Any]] = {
    "two cameras, triplets": {},
    "two cameras, N-pairs": {"loss": "npairs"},
    "one camera": {"near": 1, "far": 2},
}
"""Forms of TCN, and their flags."""


@dataclass(frozen=True)
class Videos:
    """Which rows, and how many runs of each."""

    rows: tyro.conf.Positional[tuple[str, ...]] = ()
    """All of ROWS, if none is given."""
    seeds: int = 3
    """Runs of each."""
    alignment: bool = False
    """TCN on two cameras."""
    table: bool = False
    """Run nothing, and show what there is."""


def main(asked: Videos) -> None:
    """Run what is missing, then print the table."""
    rows = asked.rows or tuple(FORMS if asked.alignment else ROWS)
    for seed in range(0 if asked.table else asked.seeds):
        for row in rows:
            if not (where := path(row, seed)).exists():
                keep(where, (aligned if asked.alignment else one)(row, seed))
                print(where.stem, json.loads(where.read_text())["results"], flush=True)
    print(alignments(rows) if asked.alignment else table(rows))


def path(row: str, seed: int) -> Path:
    return RESULTS / f"{row.replace(', ', '-').replace(' ', '-')}-seed{seed}.json"


def write_clips(where: Path, seed: int, faster: float = 0.0) -> Path:
    """The clips of both parts, with motion and group of each."""
    pictures, groups = moving.emoji(DATA / "emoji.npz", side=9)
    made = {
        split: moving.render(pictures[split], CLIPS, side=20, seed=2 * seed + number, faster=faster)
        for number, split in enumerate(("train", "test"))
    }
    np.savez(
        where,
        videos=np.concatenate([clips.videos for clips in made.values()]),
        labels=np.array([word for clips in made.values() for word in clips.motion]),
        shape=np.concatenate([groups[split][clips.picture] for split, clips in made.items()]).astype(str),
        split=np.repeat(["train", "test"], CLIPS),
    )
    return where


def one(row: str, seed: int) -> dict[str, Any]:
    """A run of ROWS, measured."""
    method, flags = ROWS[row]
    flags = SHARED | {"epochs": EPOCHS, "seed": seed} | flags
    folder = Path(tempfile.mkdtemp())
    try:
        data = str(write_clips(folder / "emoji.npz", seed))
        seen = str(write_clips(folder / "faster.npz", seed, FASTER[row])) if row in FASTER else data
        with trained(plans.make(method, seen, "clips:default", flags)) as (run, took):
            results = {what: measured(run, data, what, seed, raw=row == "cvrl") for what in ("label", "shape")}
            if method == "dpc":
                found = across.future(run, data, seed=seed)
                cells = [(row["name"], row["values"]) for row in found["rows"]]
                results["future"] = {name: {key: cell["value"] for key, cell in own.items()} for name, own in cells}
    finally:
        shutil.rmtree(folder)
    known = {"row": row, "method": method, "source": source(method), "seed": seed, "results": results, **took}
    command = f"python -m benchmarks.videos {row!r}"
    return known | {"flags": flags, "clips": CLIPS, "command": command, "threads": torch.get_num_threads()}


def measured(run: Run, data: str, what: str, seed: int, *, raw: bool) -> dict[str, dict[str, float]]:
    """Linear and kNN accuracy and recall of a column of the clips, untrained and trained; of raw pixels too."""
    samples = run.open(data, label_column=what)
    plain, parts = run.kind.plain(run.encoder), [samples.of_split(part).nonzero()[:, 0] for part in ("train", "test")]
    rows = run.kind.baselines([samples], run.encoder) if raw else {}
    for name, encoder in (("untrained encoder", run.untrained()), ("trained encoder", run.encoder)):
        rows[name] = probing.embed(encoder, plain, samples)
    made = {}
    for name, own in rows.items():
        found = evaluate(
            own,
            samples.label,
            [(parts[0], parts[1])],
            seen_in_training=False,
            solver=ridge,
            strengths=RIDGE_STRENGTHS,
            retrieval=True,
            seed=seed,
        )
        measures = {"linear": "linear", "kNN": "knn", "recall@1": "recall_1", "recall@5": "recall_5"}
        made[name] = {title: found[key]["accuracy"] for title, key in measures.items()}
    return made


def aligned(row: str, seed: int) -> dict[str, Any]:
    """A form of TCN, measured on scenes that were not trained on."""
    flags = TCN | {"seed": seed} | FORMS[row]
    folder = Path(tempfile.mkdtemp())
    try:
        scenes = moving.two_cameras(SCENES, frames=MOMENTS, seed=seed)
        split = ["train" if scene < 2 * SCENES // 3 else "test" for scene in range(SCENES)]
        data = str(moving.write_cameras(folder / "scenes", scenes, split))
        with trained(plans.make("tcn", data, "clips:default", flags, kind="video")) as (run, took):
            rows = across.align(run, data, seed=seed)["rows"]
            results = {row["name"]: row["values"]["aligned (%)"]["value"] for row in rows}
    finally:
        shutil.rmtree(folder)
    known = {"row": row, "method": "tcn", "source": source("tcn"), "seed": seed, "results": results, **took}
    command = f"python -m benchmarks.videos --alignment {row!r}"
    return known | {"flags": flags, "scenes": SCENES, "command": command, "threads": torch.get_num_threads()}


def alignments(rows: tuple[str, ...]) -> str:
    """The alignment errors as a Markdown table, with 95 % t-intervals over seeds."""
    lines = ["| row | seeds | alignment error, % of the length |", "|---|---|---|"]
    for row in rows:
        found = [json.loads(p.read_text())["results"] for s in range(9) if (p := path(row, s)).exists()]
        for name in (found[0] if row == rows[0] else ["trained encoder"]) if found else []:
            errors = [100 - results[name] for results in found]
            title = row if name == "trained encoder" else name
            lines.append(f"| {title} | {len(found)} | {_over(errors)} |")
    return "\n".join(lines)


def _over(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    of = over_seeds(values, bounds=PERCENT)
    return f"{of.mean:.1f} ({of.low:.1f} to {of.high:.1f})"


def table(rows: tuple[str, ...]) -> str:
    """The results as a Markdown table, with 95 % t-intervals over seeds."""
    columns = [("label", "linear"), ("label", "kNN"), ("label", "recall@1"), ("label", "recall@5"), ("shape", "linear")]
    named = [f"{'motion' if what == 'label' else what}, {measure} %" for what, measure in columns]
    lines = [f"| row | seeds | {' | '.join(named)} |", f"|{'---|' * (2 + len(columns))}"]
    for row in rows:
        found = [json.loads(p.read_text())["results"] for s in range(9) if (p := path(row, s)).exists()]
        frames = ROWS[row][1].get("clip_frames", SHARED["clip_frames"])
        for name in found[0]["label"] if found else ():
            cells = [_over([results[what][name][measure] for results in found]) for what, measure in columns]
            title = row if name == "trained encoder" else f"{name}, {counted(frames, 'frames')}"
            lines.append(f"| {title} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(dict.fromkeys(lines))  # rows of as many frames have one untrained network


if __name__ == "__main__":
    main(tyro.cli(Videos))
