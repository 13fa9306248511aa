"""What a run generates: images of its classes, a sheet with the nearest training images, and how near they come."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from nearfar import methods
from nearfar.batch import MISSING
from nearfar.data.digests import digests, fingerprint
from nearfar.data.samples import LEARNED, Samples
from nearfar.data.source import Views
from nearfar.errors import AlreadyThere, UserError, counted
from nearfar.evaluation.evaluate import evaluate_knn
from nearfar.evaluation.generated import frechet, precision_recall
from nearfar.evaluation.knn import neighbors
from nearfar.files import digest, read_json, replace, replace_json
from nearfar.nn.biggan import Generator
from nearfar.owner import writes
from nearfar.ranges import PositiveInt, Seed, checked
from nearfar.run import Run
from nearfar.training import probe as probing

LISTED = "generated.json"
"""Of the folder that images are written to: which files are ours, so that no others are ever replaced."""

ACROSS, CLASSES = 10, 8
"""Images in a row of the sheet, and classes on it."""

NEIGHBORS = 3
"""Of precision and recall."""


@dataclass(frozen=True)
class Judge:
    """What compares images: an encoder, and its name. rows: of samples that it has opened, N x D."""

    name: str
    open: Callable[..., Samples]
    rows: Callable[[Samples], Tensor]

    @staticmethod
    def of(run: Run) -> Judge:
        """The encoder of a run. Raises ValueError where it takes no images."""
        if not run.kind.pixels:
            raise UserError(f"--judge {str(run.path)!r} takes {run.kind.noun}, and compares no images")
        plain = run.kind.plain(run.encoder)
        return Judge(run.path.name, run.open, lambda samples: probing.embed(run.encoder, plain, samples))

    @staticmethod
    def off_the_shelf(run: Run, network: str, weights: str) -> Judge:
        """A network of timm with weights from a file, for images as `run` opens them."""
        run.kind.off_the_shelf(network, weights, None)  # or an error, before anything is decoded
        held: list[tuple[nn.Module, Views]] = []

        def rows(samples: Samples) -> Tensor:
            held[:] = held or [run.kind.off_the_shelf(network, weights, samples)]
            return probing.passed(*held[0], samples)

        return Judge(f"{network} with {Path(weights).name}", run.open, rows)


@dataclass(frozen=True)
class Made:
    """Images that were generated: N x C x S x S, uint8, and the class of each, N, of those of the run."""

    pixels: Tensor
    label: Tensor
    classes: list[str]

    def of(self, label: int) -> Tensor:
        return self.pixels[self.label == label]

    @property
    def arrays(self) -> Any:
        """As data that a run opens: N x S x S x C, NumPy."""
        return self.pixels.permute(0, 2, 3, 1).numpy()


def insist_generates(run: Run) -> None:
    """Raise ValueError for a run of a method that makes nothing."""
    run.insist_trusted(run.config["method"])
    if not methods.load(run.config["method"]).generates:
        raise UserError(
            f"{str(run.path)!r} was trained with {run.config['method']!r}, which generates nothing: train contragan"
        )


def chosen(run: Run, names: Sequence[str]) -> list[int]:
    """The numbers of the classes of these names, all of them for none. Raises ValueError for one that is not known."""
    classes = _classes(run)
    if names and not classes:
        raise UserError(f"--class {names[0]!r}: {str(run.path)!r} was trained without classes; leave it out")
    for name in names:
        if name not in classes:
            near = get_close_matches(name, classes, 3)
            meant = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(classes[:20])}"
            raise UserError(f"--class {name!r} is none of the {counted(len(classes), 'classes')} of the run: {meant}")
    return [classes.index(name) for name in names] if names else list(range(max(1, len(classes))))


def is_there(run: Run, data: Any) -> bool:
    """Whether data can be opened; those of a run may be gone, or have been in memory."""
    try:
        run.insist_there(data, None, "")
    except (UserError, OSError):
        return False
    return True


@checked
def generate(run: Run, names: Sequence[str] = (), *, count: PositiveInt = 16, seed: Seed = 0) -> Made:
    """Images by a run's generator, so many of each class; all classes where none are named.

    The noise follows from the seed, so that the same call makes the same images.
    Raises ValueError for a run that generates nothing, and for classes that it does not know.
    """
    insist_generates(run)
    label, generator = torch.tensor(chosen(run, names)).repeat_interleave(count), _ready(run)
    z, _ = generator.draw(len(label), torch.Generator().manual_seed(seed))
    parts = [_made(generator, *part) for part in zip(z.split(100), label.split(100), strict=True)]
    return Made(torch.cat(parts), label, _classes(run) or [""])


def _classes(run: Run) -> list[str]:
    """The classes of which it makes images; none, where they have none."""
    return [] if _generator(run).classes is None else run.made["classes"]


def _generator(run: Run) -> Generator:
    return cast(Generator, run.method.get_submodule("slow"))


@lru_cache(maxsize=1)
def _ready(run: Run) -> Generator:
    """The generator, which has taken its statistics, always by the same noise."""
    generator = _generator(run)
    generator.measure(torch.Generator().manual_seed(0))
    return generator


@torch.no_grad()
def _made(generator: Generator, z: Tensor, label: Tensor) -> Tensor:
    return _bytes(generator(z, label))


def _bytes(images: Tensor) -> Tensor:
    return images.mul(255).round().byte()


def sheet(
    run: Run, made: Made, judge: Judge | None = None, data: Samples | None = None, *, seed: int = 0
) -> Image.Image:
    """A picture of what was made: rows of each class, the nearest of the training images under each, and what lies
    between two images and between two classes.

    judge: by which images are nearest; the run's own encoder by default.  data: to look among, of which those that the
    run was trained on are taken; None leaves that out.
    """
    judge = judge or Judge.of(run)
    if data is not None:
        data = data.subset(run.seen(data).nonzero()[:, 0])
        data = data if len(data) else None
    bank = None if data is None else judge.rows(data)
    rows: list[tuple[str, Tensor]] = []
    classes = made.label.unique().tolist()
    for number in classes[:CLASSES]:
        shown = made.of(number)[:ACROSS]
        rows.append((f"generated: {made.classes[number]}" if made.classes[number] else "generated", shown))
        if bank is not None and data is not None:
            own = judge.rows(judge.open(shown.permute(0, 2, 3, 1).numpy(), labels="none"))
            _, index = neighbors(own, bank, 1)
            rows.append((f"nearest of {len(data):,} training images, in {judge.name}", _pixels(run, data, index[:, 0])))
    rows += _between(_ready(run), made, classes, seed)
    return run.kind.rows(rows)


def _pixels(run: Run, data: Samples, index: Tensor) -> Tensor:
    """Images as the run's encoder sees them."""
    (view,) = run.kind.plain(run.encoder)(*data.fetch(index))
    return _bytes(view)


def _between(generator: Generator, made: Made, classes: list[int], seed: int) -> Iterator[tuple[str, Tensor]]:
    """Rows of images from one noise to another, and from one class to another."""
    part = torch.linspace(0, 1, ACROSS)[:, None]
    z, _ = generator.draw(2, torch.Generator().manual_seed(seed))
    # Of sums with these weights noise has the variance that the generator knows.
    across = (part * math.pi / 2).cos() * z[:1] + (part * math.pi / 2).sin() * z[1:]
    for number in classes[:2]:
        name = made.classes[number] and f": {made.classes[number]}"
        yield f"from one image to another{name}", _made(generator, across, torch.full((ACROSS,), number))
    for one, other in pairwise(classes[:3]):
        label = torch.zeros(ACROSS, len(made.classes))
        label[:, one], label[:, other] = 1 - part[:, 0], part[:, 0]
        images = _made(generator, z[:1].expand(ACROSS, -1), label)
        yield f"from {made.classes[one]} to {made.classes[other]}, of one noise", images


def insist_room(folder: Path, *, force: bool) -> None:
    """Raise FileExistsError where images would be written over others, ValueError where they cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise AlreadyThere(f"--out {str(folder)!r} is a file, and a directory is wanted: name another")
    there = [folder / "images", folder / "sheet.png", folder / LISTED]
    if not force and (taken := [path for path in there if path.exists()]):
        raise AlreadyThere(f"{str(taken[0])!r} is there already: name another --out, or replace it by --force")
    if force and (folder / "images").exists() and not (folder / LISTED).exists():
        raise AlreadyThere(
            f"{str(folder / 'images')!r} holds files that no `nearfar generate` wrote: name another --out"
        )


def write(run: Run, made: Made, drawn: Image.Image, folder: Path) -> None:
    """Write images/CLASS/NUMBER.png, which can be opened as data with `--labels folders`, and sheet.png.

    Images of an earlier call, which generated.json lists, are removed first.
    """
    if (folder / LISTED).exists():
        for name in read_json(folder / LISTED, "name another --out")["files"]:
            (folder / name).unlink(missing_ok=True)
    folders = _folder_names(made.classes)
    files: list[str] = []
    for number in made.label.unique().tolist():
        for i, pixels in enumerate(made.of(number)):
            files.append("/".join(part for part in ("images", folders[number], f"{i:05d}.png") if part))
            picture = run.kind.picture(pixels)
            replace(folder / files[-1], lambda path, picture=picture: picture.save(path, format="PNG"))
    replace(folder / "sheet.png", lambda path: drawn.save(path, format="PNG"))
    replace_json(folder / LISTED, {"run": str(run.path), "files": files})


def _folder_names(classes: Sequence[str]) -> list[str]:
    """A name for a folder for each class: no two alike, whatever a file system thinks of capitals."""
    names: list[str] = []
    for number, name in enumerate(classes):
        plain = re.sub(r"[^\w.-]+", "_", name).strip(".")[:80]
        taken = {other.lower() for other in names}
        names.append(f"{plain}-{number}" if name and (not plain or plain.lower() in taken) else plain)
    return names


@writes
@checked
def quality(
    run: Run,
    made: Made,
    data: Any,
    judge: Judge,
    *,
    labels: Any = None,
    label_column: str = "",
    seed: Seed = 0,
    origin: Any = None,
) -> dict[str, Any]:
    """How near the images of a run come to real ones in an encoder that is named, beside other real images.

    data: real images. Those of the split test, or a third at random, stand for perfect images; the others are what
    both are compared with, and, where they have labels, what names the class of an image by nearest neighbors.
    origin: where the images are from, if they are open already.
    Writes results/generated-DATA-DIGEST.json and returns what it holds: of other data, another judge or other images in
    a file of its own.
    """
    samples = judge.open(data, labels=labels, label_column=label_column)
    generator = torch.Generator().manual_seed(seed)
    test = samples.of_split("test")
    if not (test.any() and samples.of_split(*LEARNED).any()):
        test = torch.rand(len(samples), generator=generator).argsort() < len(samples) // 3
    rows, ours = judge.rows(samples), judge.rows(judge.open(made.arrays, labels="none"))
    real, other = rows[~test], rows[test]
    n = min(len(other), len(ours))
    # As many of each, as the distance goes by their number.
    ours_at, other_at = (torch.randperm(len(one), generator=generator)[:n] for one in (ours, other))
    (precision, recall), (_, best) = (
        precision_recall(real, ours[ours_at], k=NEIGHBORS),
        precision_recall(real, other[other_at], k=NEIGHBORS),
    )
    fid = f"FID in {judge.name}"
    values: dict[str, Any] = {
        fid: {"value": frechet(real, ours[ours_at])},
        f"{fid}, of other real images": {"value": frechet(real, other[other_at])},
        "precision (%)": {"value": 100 * precision},
        "recall (%)": {"value": 100 * recall},
        "recall (%), of other real images": {"value": 100 * best},
    }
    label = samples.label
    if made.classes != [""] and (label[~test] != MISSING).any():
        of = torch.tensor(
            [samples.classes.index(name) if name in samples.classes else MISSING for name in made.classes]
        )
        for name, some, known in (
            ("class accuracy (%)", ours[ours_at], of[made.label][ours_at]),
            ("class accuracy (%), of other real images", other[other_at], label[test][other_at]),
        ):
            if not (known != MISSING).any():
                continue
            every, marked = torch.cat([real, some]), torch.cat([label[~test], known])
            labeled = (marked != MISSING).nonzero()[:, 0]
            split = labeled[labeled < len(real)], labeled[labeled >= len(real)]
            found = evaluate_knn(every, marked, [split], seed=seed)
            values[name] = {"value": found["accuracy"], "low": found["low"], "high": found["high"]}
    table = {
        "title": f"Generated images, as {judge.name} sees them",
        "note": (
            f"{n:,} generated images and as many other real ones, against {len(real):,} real images. Distances in "
            "another encoder, or of other counts, are other numbers. Precision: generated images that lie among real "
            "ones; recall: real images that lie among generated ones. Class accuracy: images that nearest real "
            "neighbors take for what they were made as."
        ),
        "columns": list(values),
        "rows": [{"name": "generated images", "main": True, "values": values}],
        "protocol": {"version": 1, "judge": judge.name, "images": n, "real": len(real), "k": NEIGHBORS, "seed": seed},
    }
    table["seen"] = {"samples": int((known := run.seen(samples)).sum()), "of": len(samples)}
    contents = [fingerprint(digests(samples), samples), judge.name, digest(made.pixels.numpy().tobytes()), str(seed)]
    return run.kept(table, "generated", data if origin is None else origin, contents, known)
