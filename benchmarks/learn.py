"""Does each method learn? A minute each on the packaged drawings: `make learn`, or `python -m benchmarks.learn moco`.

conv4, three passes over 13,180 drawings without their labels (with them where a method needs them); then 20-way 1-shot
accuracy on alphabets that were never seen, against the same network untrained. A method has learned if the gain is at
least 5 points and its 95 % interval over alphabets lies above 0. One result file per method, with a fingerprint of its
source.

Methods that take clips learn from drawings that cross a square, by the encoder and the views of `benchmarks.videos`,
and the classes of the episodes are their motions; TCN learns from two cameras of one scene, and is measured by how well
these agree on time in scenes that were never seen.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from benchmarks import grammar, moving
from benchmarks.bench.results import keep
from nearfar import across, methods
from nearfar.evaluation.intervals import Interval, bootstrap
from nearfar.evaluation.kshot import episodes
from nearfar.modalities.image.drawings import alphabets, drawings
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.image.settings import DRAWINGS
from nearfar.modalities.image.views import plain
from nearfar.ops.lab import lab_to_rgb
from nearfar.run import Run, load
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training import probe as probing

RESULTS = Path(__file__).parent / "results" / "learn"
LEAST = 5.0
DECLARED = {
    *("family", "title", "changes", "needs_pixels", "needs_frames", "needs_streams", "needs_writer", "one_size"),
    *("needs_maps", "needs_places", "takes_steps", "takes_turns", "generates", "locks", "fewest_views", "most_views"),
}
"""What a class of a method says of itself, by which nothing is computed."""
UNLEARNED = {
    "cpc": "gains less than 5 points: patches of a third of a drawing hold a stroke or two",
    "jigsaw": "loses: the order of four tiles of a drawing can be told from where strokes are cut, at any letter",
    "relativeposition": "loses, as jigsaw",
    "diet": "loses a little: in three passes a drawing's own row of the classifier is learned from three times",
    "pixpro": "loses: maps of drawings have 2 x 2 cells, and the encoder forgets what tells letters apart",
    "dpc": "gains nothing: of small clips what comes next is told by what stays, the video and a cell's place; its own "
    "loss falls far below chance",
}
"""Methods of which the committed result is that they have not learned from these drawings, and why."""


@dataclass(frozen=True)
class Learn:
    """Which methods."""

    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """Those whose result is missing or older than their file, if none is given."""
    everything: bool = False
    """All of them."""


def main(asked: Learn) -> int:
    """Check, and keep the results. 1 if a method has not learned."""
    names = asked.methods or [name for name in methods.names() if asked.everything or stale(name)]
    failed = 0
    for name in names:
        result = check(name)
        keep(RESULTS / f"{name}.json", result)
        failed += not result["learned"]
        print(
            f"{name:<10} untrained {result['untrained']:.1f}  trained {result['trained']:.1f}  gain {result['gain']}  "
            f"{result['seconds']:.0f} s  {'ok' if result['learned'] else 'HAS NOT LEARNED'}",
            flush=True,
        )
    if not names:
        print("Every method's result is newer than its file.")
    return int(failed > 0)


def check(name: str, *, epochs: int = 3, seed: int = 0, every: int = 1) -> dict[str, Any]:
    """Train one method on the drawings, and compare 1-shot accuracy with the untrained encoder; one that writes, on
    sentences."""
    if methods.load(name).needs_writer:
        return {"method": name, "source": source(name)} | grammar.check(name, seed=seed)
    if name == "tcn":
        return known(name, on_scenes(seed))
    if methods.load(name).needs_frames:
        return known(name, on_clips(name, seed))
    flags: dict[str, Any] = {"epochs": epochs, "seed": seed, "probe_every": 1000}
    colored, words = methods.load(name).needs_color, methods.load(name).needs_words
    if not (methods.load(name).needs_labels or words):
        flags["labels"] = "none"
    data: Any = inked(drawings("train"), chroma=40) if colored else DRAWINGS
    if every > 1:  # of the drawings only each third, or so
        data = drawings("train").subset(range(0, len(drawings("train")), every))
    told = "drawings, inked in a hue for each alphabet" if colored else "drawings"
    if words:
        data, told = captioned(drawings("train")), "drawings, and of each the words that name its character"
        flags |= {"pair": "image,text", "encoder": "image=conv4,text=bert-1x64", "views": "image=drawing", "lr": 2e-3}
    test = inked(drawings("test"), chroma=0) if colored else drawings("test")
    alphabet = numbered_alphabets(test)
    plan = plans.make(name, data, "pairs" if words else "drawings", flags)
    with trained(plan) as (run, seconds):
        run = load(run.path, tower="image") if words else run
        before, after = (
            episodes(probing.embed(encoder, plain(32), test), test.label, within=alphabet, seed=seed)
            for encoder in (run.untrained(), run.encoder)
        )
    pairs = zip(before["per_unit"].values(), after["per_unit"].values(), strict=True)
    gain = bootstrap([b - a for a, b in pairs], seed=seed)
    return known(
        name,
        {
            "untrained": round(before["accuracy"], 2),
            "trained": round(after["accuracy"], 2),
            "gain": gain,
            "seconds": seconds,
            "seed": seed,
            "flags": flags,
            "recipe": plan.recipe,
            "data": told,
            "protocol": after["protocol"],
        },
    )


def known(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a check."""
    gain = found["gain"]
    return {
        "method": name,
        "source": source(name),
        **found,
        "gain": f"{gain.mean:+.2f} (95 % interval {gain.low:+.2f} to {gain.high:+.2f})",
        "learned": gain.low > 0 and gain.mean >= LEAST,
        "seconds": round(found["seconds"], 1),
        "command": f"python -m benchmarks.learn {name}",
        "threads": torch.get_num_threads(),
    }


CLIPS: dict[str, Any] = {
    "encoder": "slow18x8",
    "size": 16,
    "clip_frames": 8,
    "stride": 1,
    "views": "motion",
    "batch": 64,
    "epochs": 5,
    "optimizer": "adamw",
    "lr": 8e-3,
    "weight_decay": 1e-2,
    "warmup": 1,
    "labels": "none",
    "probe_every": 1000,
}
OF_CLIPS: dict[str, dict[str, Any]] = {
    "cvrl": {"hidden": 256, "epochs": 10},
    "arrowoftime": {"epochs": 6, "views": "tcn", "view_count": 1},
    "dpc": {
        "blocks": 3,
        "steps": 1,
        "width": 64,
        "clip_frames": 12,
        "epochs": 8,
        "view_count": 1,
        "frame_colors": True,
    },
    "framesorting": {
        "parts": 3,
        "reversible": False,
        "clip_frames": 16,
        "batch": 32,
        "lr": 1.6e-2,
        "views": "tcn",
        "view_count": 1,
    },
}
"""Flags of methods on clips, besides CLIPS."""
WORLDS: dict[str, tuple[str, dict[str, Any]]] = {
    "arrowoftime": ("that move right or down", {"ways": ("right", "down")}),
    "framesorting": ("that get faster by 0.3 px a frame", {"faster": 0.3}),
}
"""How, in words and in flags, `moving.render` makes the clips for methods whose question has no answer where things
move evenly and all ways: the arrow of time, as what moves so looks the same backward; and the order of parts, which
look alike."""


def drawn_clips(part: Literal["train", "test"], every: int, seed: int, **world: Any) -> moving.Clips:
    """1,024 clips of some of the packaged drawings.  world: what else `moving.render` takes."""
    all_of = drawings(part)
    some = all_of.subset(range(0, len(all_of), every))
    pictures = moving.inked(some.pixels(torch.arange(len(some))), 9)
    return moving.render(pictures, 1024, side=20, seed=seed, **world)


def on_clips(name: str, seed: int) -> dict[str, Any]:
    """Train on clips of drawings that move; then how well a linear classifier tells the motion of clips of drawings of
    alphabets that were never seen."""
    flags = CLIPS | OF_CLIPS.get(name, {}) | {"seed": seed}
    words, world = WORLDS.get(name, ("that move", {}))
    known, test = drawn_clips("train", 12, seed), drawn_clips("test", 4, seed + 1)
    train = drawn_clips("train", 12, seed, **world)
    with trained(plans.make(name, train.videos, "clips:default", flags)) as (run, seconds):
        table = run.evaluate((known.videos, known.motion), test=(test.videos, test.motion), seed=seed)
    accuracy = [row["values"]["linear (%)"]["value"] for row in table["rows"][-2:]]
    gain = table["gains"]["untrained encoder"]["linear (%)"]
    return {
        "untrained": round(accuracy[0], 2),
        "trained": round(accuracy[1], 2),
        "gain": Interval(gain["value"], gain["low"], gain["high"]),
        "seconds": seconds,
        "seed": seed,
        "flags": flags,
        "recipe": "clips:default",
        "data": f"drawings {words}",
        "over": "clips",
        "what": f"Accuracy of a linear classifier of 8 motions, on clips of drawings of alphabets never seen, of "
        f"{flags['encoder']} after {flags['epochs']} passes over 1,024 clips of drawings {words}, of "
        f"{flags['clip_frames']} frames at {flags['size']} px, without labels",
        "protocol": table["protocol"]["linear"],
    }


def without_paths(protocol: dict[str, Any]) -> dict[str, Any]:
    """A protocol without the data, which were made for the check alone."""
    return {key: value for key, value in protocol.items() if key not in ("data", "labels", "test", "test_labels")}


def on_scenes(seed: int) -> dict[str, Any]:
    """Train on two cameras of 24 scenes; how well these agree on time, in 12 others."""
    from benchmarks.videos import TCN  # which takes `source` from here

    flags = TCN | {"seed": seed}
    folder = Path(tempfile.mkdtemp())
    try:
        scenes = moving.two_cameras(36, seed=seed)
        data = str(moving.write_cameras(folder / "scenes", scenes, ["train"] * 24 + ["test"] * 12))
        with trained(plans.make("tcn", data, "clips:default", flags, kind="video")) as (run, seconds):
            table = across.align(run, data, seed=seed)
    finally:
        shutil.rmtree(folder)
    made = {row["name"]: row["values"]["aligned (%)"]["value"] for row in table["rows"]}
    gain = table["gains"]["untrained encoder"]["aligned (%)"]
    return {
        "untrained": round(made["untrained encoder"], 2),
        "trained": round(made["trained encoder"], 2),
        "gain": Interval(gain["value"], gain["low"], gain["high"]),
        "seconds": seconds,
        "seed": seed,
        "flags": flags,
        "recipe": "clips:default",
        "data": "two cameras of rendered scenes",
        "over": "scenes",
        "what": "100 less the alignment error of two cameras, in 12 scenes never seen, of conv4 with a spatial "
        f"soft-argmax after {flags['epochs']} passes over 24 scenes",
        "protocol": without_paths(table["protocol"]),
    }


@contextmanager
def trained(plan: plans.Plan) -> Iterator[tuple[Run, float]]:
    """A plan carried out, in a directory that is gone afterward, and the seconds it took."""
    folder = Path(tempfile.mkdtemp())
    try:
        began = time.perf_counter()
        if not training.train(plan, folder / "run", say=lambda text: None):
            raise KeyboardInterrupt("stopped before the end: nothing was measured")
        yield load(folder / "run"), time.perf_counter() - began
    finally:
        shutil.rmtree(folder)


def inked(images: Images, *, chroma: float) -> Images:
    """The drawings in color, for methods that learn from it: ink of one lightness, in a hue for each alphabet.

    So color tells of what is drawn, as that of grass and skin does in photographs. Without chroma the ink is gray.
    """
    alphabet = numbered_alphabets(images)
    angle = 2 * math.pi * alphabet / (alphabet.max() + 1)
    lab = torch.stack([torch.full_like(angle, 70), chroma * angle.cos(), chroma * angle.sin()], 1)  # N x 3
    rgb = lab_to_rgb(lab[..., None, None]).clamp(0, 1)  # N x 3 x 1 x 1
    pixels = (images.pixels(torch.arange(len(images))) * rgb).round().byte()  # N x 3 x S x S
    made = open_images(pixels.permute(0, 2, 3, 1).numpy())
    made.label, made.classes, made.names, made.split = images.label, images.classes, images.names, images.split
    return made


def captioned(images: Images) -> tuple[Any, list[str]]:
    """The drawings, and of each in words what character of which alphabet it is, for methods of images and captions."""
    named = [images.classes[i].replace("/", " ").replace("character", "character ") for i in images.label.tolist()]
    return images.pixels(torch.arange(len(images)))[:, 0].numpy(), named


def numbered_alphabets(images: Images) -> torch.Tensor:
    """The alphabet of each drawing, from 0: N."""
    names = sorted(set(alphabets(images)))
    return torch.tensor([names.index(a) for a in alphabets(images)])


def source(name: str) -> str:
    """A fingerprint of what a method's file does: of its code, without the words about it."""
    return fingerprint((Path(methods.__file__).parent / f"{name}.py").read_text(encoding="utf-8"))


def fingerprint(text: str) -> str:
    """Of the code of a file that a model learns by, whatever is said about it.

    Comments, docstrings, title, family and numbers of views are left out; so are imports, types, and `chance` and
    `pushes_at`, which only tell of the loss.
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not _words(part)]
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef):
            node.returns = None
    return hashlib.blake2b(ast.dump(tree).encode(), digest_size=8).hexdigest()


def _words(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        parts = [part for t in node.targets for part in (t.elts if isinstance(t, ast.Tuple) else [t])]
        return {ast.unparse(part).removeprefix("self.") for part in parts} <= DECLARED
    if isinstance(node, ast.FunctionDef):
        return node.name in ("chance", "pushes_at")
    return isinstance(node, ast.Import | ast.ImportFrom) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def stale(name: str) -> bool:
    """Whether a method has no result, or one of another version of its file."""
    path = RESULTS / f"{name}.json"
    return not path.exists() or json.loads(path.read_text())["source"] != source(name)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Learn, args=sys.argv[1:])))
