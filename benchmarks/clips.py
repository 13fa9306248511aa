"""Does writing captions of a support set help to find clips? `python -m benchmarks.clips`, on emoji that move.

A clip is an emoji of 12 px that moves over 8 gray frames of 32 px, in one of 8 directions and at one of 3 speeds; its
caption says so, as in "lobster moves up and left quickly". The frames are the channels of an image. Of 48 emoji all
1,152 combinations are rendered, once each. A quarter, 288, is trained on, and the other 864 are the test, so that each
emoji and each motion is known, and what is asked for is a combination that never was. Measured is how well a side finds
the other among the 864. All systems make the same steps of the same recipe. `--pilot` tests on a fifth of the training
part instead.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

from benchmarks.bench.results import keep
from nearfar.evaluation.cross import chance, median_rank, ranks
from nearfar.evaluation.intervals import over_seeds
from nearfar.modalities import kind as kinds
from nearfar.run import load
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "clips"
DATA = Path(os.environ.get("NEARFAR_DATA", "../shared/data")) / "emoji.npz"
SIDE, EMOJI, FRAMES, SHAPES = 32, 12, 8, 48
STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
DIRECTIONS = {
    **STEPS,
    **{f"{a} and {b}": (STEPS[a][0], STEPS[b][1]) for a, b in product(("up", "down"), ("left", "right"))},
}
SPEEDS = {"slowly": 1, "steadily": 2, "quickly": 3}
"""Pixels a frame, along each axis."""

MODES = ("cross", "hybrid", "full", "identity")
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("clip", {}),
    **{mode: ("supportset", {"mode": mode, "discrimination": "infonce"}) for mode in MODES},
    "cross, triplet": ("supportset", {"mode": "cross"}),
}
SETTINGS: dict[str, Any] = {
    "pair": "image,text",
    "encoder": "image=conv4,text=bert-1x64",
    "sides": ("text.length=16", "text.encoder_dropout=0"),
    "space": 128,
    "epochs": 24,
    "batch": 64,
    "warmup": 2,
    "lr": 4e-3,
    "labels": "none",
}


@dataclass(frozen=True)
class Clips:
    """Which systems, and how."""

    systems: tyro.conf.Positional[tuple[str, ...]] = tuple(SYSTEMS)
    seeds: int = 3
    pilot: bool = False
    """Look at a held-out fifth of the training part, not at the test part, and keep nothing."""
    flags: str = "{}"
    """Settings and arguments of a pilot other than those here, as JSON."""


def main(asked: Clips) -> int:
    if asked.flags != "{}" and not asked.pilot:
        raise ValueError("--flags is for a --pilot: what is reported has the settings of this file")
    made = clips(DATA)
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(asked.seeds):
        for system in asked.systems:
            path = RESULTS / f"{system.replace(', ', '-')}-seed{seed}.json"
            if asked.pilot or not path.exists():
                found = measured(system, *parts(*made, pilot=asked.pilot), seed, json.loads(asked.flags))
                if not asked.pilot:
                    keep(path, found)
            else:
                found = json.loads(path.read_text(encoding="utf-8"))
            for name in (system, "untrained", "chance"):
                if name == system or system == asked.systems[0]:
                    rows.setdefault(name, []).append(found["results"][name])
            print(f"{system} seed {seed}, {found['seconds']} s: {found['results'][system]}", flush=True)
    columns = list(rows[asked.systems[0]][0])
    print("\n| | " + " | ".join(columns) + " |\n|" + "---|" * (1 + len(columns)))
    for name, runs in rows.items():
        cells = [f"{over_seeds(seen):.1f}" if len(seen := [run[key] for run in runs]) > 1 else "" for key in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")
    return 0


def clips(data: Path) -> tuple[np.ndarray, list[str], np.ndarray]:
    """All combinations as images whose channels are frames, N x 32 x 32 x 8, uint8; captions; which are the test."""
    held = dict(np.load(data))
    rng, bases = np.random.default_rng(0), dict[str, int]()
    for i in np.flatnonzero((held["skin_tone"] == "") & (held["split"] == "train")):
        if ":" not in held["name"][i] and len(held["name"][i].split()) <= 2:
            bases.setdefault(str(held["base"][i]), int(i))
    chosen = rng.choice(sorted(bases.values()), SHAPES, replace=False)
    pixels, captions = [], []
    for i in chosen:
        png = held["png"][held["offsets"][i] : held["offsets"][i + 1]].tobytes()
        small = Image.open(io.BytesIO(png)).convert("RGBA").resize((EMOJI, EMOJI), Image.Resampling.BOX)
        white = Image.new("RGBA", small.size, "white")
        shape = np.asarray(Image.alpha_composite(white, small).convert("L"))
        for (direction, step), (speed, length) in product(DIRECTIONS.items(), SPEEDS.items()):
            middle = (SIDE - EMOJI) / 2 + rng.integers(-3, 4, 2)
            way = np.arange(FRAMES) - (FRAMES - 1) / 2
            places = np.round(middle + length * way[:, None] * np.array(step)).astype(int)
            pixels.append(np.stack([_frame(shape, *place) for place in places], 2))
            captions.append(f"{held['name'][i]} moves {direction} {speed}")
    return np.stack(pixels), captions, rng.permutation(len(captions)) >= len(captions) // 4


def _frame(shape: np.ndarray, top: int, left: int) -> np.ndarray:
    """A white frame with a shape on it, of which what lies outside is not seen."""
    frame = np.full((3 * SIDE, 3 * SIDE), 255, np.uint8)
    frame[SIDE + top : SIDE + top + EMOJI, SIDE + left : SIDE + left + EMOJI] = shape
    return frame[SIDE : 2 * SIDE, SIDE : 2 * SIDE]


def parts(pixels: np.ndarray, captions: list[str], test: np.ndarray, *, pilot: bool) -> tuple[Any, Any]:
    """The pairs to learn from and those to test: the test part, or for a pilot a fifth of the training part."""
    learn, rest = np.flatnonzero(~test), np.flatnonzero(test)
    if pilot:
        order = np.random.default_rng(1).permutation(learn)
        learn, rest = order[len(order) // 5 :], order[: len(order) // 5]
    one, two = ((pixels[rows], [captions[i] for i in rows]) for rows in (learn, rest))
    return one, two


def measured(system: str, learn: Any, rest: Any, seed: int, flags: dict[str, Any]) -> dict[str, Any]:
    """Train one system, and measure it and its towers untrained."""
    method, own = SYSTEMS[system]
    with tempfile.TemporaryDirectory() as name:
        plan = plans.make(method, learn, "pairs", SETTINGS | own | {"seed": seed, "probe_every": 1000} | flags)
        if not training.train(plan, Path(name) / "run", say=lambda text: None):
            raise KeyboardInterrupt("stopped before the end: nothing was measured")
        run = load(Path(name) / "run")
        test: Any = run.open(rest)
        encoders: dict[str, Any] = {"untrained": run.untrained(), system: run.encoder}
        seconds = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))["seconds"]
    results: dict[str, dict[str, float]] = {}
    for what, encoder in encoders.items():
        rows = {
            side: probing.passed(tower, kinds.of(tower.spec["kind"]).plain(tower), test.sides[side])
            for side, tower in ((side, encoder.tower(side)) for side in ("image", "text"))
        }
        results[what] = {}
        for one, other in permutations(rows):
            pairs, _ = test.across(one, other)
            rank, to = ranks(rows[one], rows[other], pairs), f"{'clip' if one == 'image' else 'text'} to "
            to += "text" if one == "image" else "clip"
            results[what] |= {f"{to} R@{k}": round(100 * float((rank < k).float().mean()), 2) for k in (1, 5)}
            results[what][f"{to} median rank"] = median_rank(rank)
            random = chance(pairs, len(rows[other]), (1, 5))
            results.setdefault("chance", {}).update({f"{to} R@{k}": round(random[k], 2) for k in (1, 5)})
            results["chance"][f"{to} median rank"] = (len(rows[other]) + 1) / 2
    return {
        "results": results,
        "trained": len(learn[1]),
        "tested": len(rest[1]),
        "seconds": round(seconds, 1),
        "seed": seed,
        "settings": run.config["settings"],
        "arguments": run.config["arguments"],
        "command": f"python -m benchmarks.clips {json.dumps(system) if ' ' in system else system}",
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Clips, args=sys.argv[1:])))
