"""Samples that are called otherwise, lie elsewhere, are decoded otherwise, or change while they are used."""

from __future__ import annotations

import contextlib
import random as chance
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from benchmarks.faults import Faults, command
from nearfar.data.digests import digests
from nearfar.errors import Lost
from nearfar.files import file_digest
from nearfar.modalities.image import store
from nearfar.modalities.image.samples import Images, open_images
from nearfar.modalities.table.samples import open_table
from nearfar.run import Run
from nearfar.training.again import as_before
from nearfar.training.record import write_samples

FLAGS = ("--encoder", "conv4", "--epochs", 3, "--batch", 8, "--views", "drawing")


def _photos(folder: Path, n: int = 24) -> Path:
    """n images of noise, 16 x 16."""
    folder.mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return folder


@contextlib.contextmanager
def _memory(free: int) -> Iterator[None]:
    """Within: so many bytes are free for images."""
    with patch.object(store, "free_memory", lambda: free):
        yield


@contextlib.contextmanager
def _at_step(step: int, act: Callable[[], object]) -> Iterator[None]:
    """Within: something happens once, when the numbers of a step are written."""
    module, pending = sys.modules["nearfar.training.log"], [act]
    write = module.Log.write

    def then(self: Any, now: int, numbers: dict[str, float]) -> None:
        if now == step and pending:
            pending.pop()()
        write(self, now, numbers)

    with patch.object(module, "DRAIN", 1), patch.object(module.Log, "write", then):
        yield


def _spoil(file: Path, random: chance.Random) -> str:
    """Let a file vanish, shrink, or hold other bytes."""
    how = random.choice(["vanish", "shrink", "empty", "flip", "replace"])
    content = bytearray(file.read_bytes())
    if how == "vanish":
        file.unlink()
    elif how == "replace":
        Image.fromarray(np.full((16, 16, 3), random.randrange(256), np.uint8)).save(file)
    else:
        if how == "flip":
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        keep = {"shrink": random.randrange(1, len(content)), "empty": 0}.get(how, len(content))
        file.write_bytes(content[:keep])
    return how


def same_samples(faults: Faults, folder: Path, random: chance.Random, many: int) -> None:
    """The same images under other names, elsewhere, decoded otherwise, at another size: known again"""
    first = digests(open_images(_photos(folder / "p")))
    for number in range(many):
        place, names = folder / f"{number}", [f"{random.randrange(10**6):06}-{i}.png" for i in range(24)]
        place.mkdir()
        for i, name in enumerate(names):
            shutil.copyfile(folder / "p" / f"{i:02}.png", place / name)
        data: Any = random.choice([place, folder / f"{number}.tar", [str(place / name) for name in names]])
        if isinstance(data, Path) and data.suffix == ".tar":
            with tarfile.open(data, "w") as tar:
                tar.add(place, "inside")
        how = {"memory": random.choice([None, 0]), "side": random.choice([None, 8, 24]), "workers": 2}
        known = digests(open_images(data, **how))
        faults.tell(sorted(known) == sorted(first), f"{data} opened with {how}: other digests")
        shutil.rmtree(place)


def rows_written_otherwise(faults: Faults, folder: Path, random: chance.Random, many: int) -> None:
    """Rows of a table whose columns are reordered, added to, or numbers written otherwise: known again"""
    cells: dict[str, list[Any]] = {
        "a": [random.random() for _ in range(40)],
        "b": list(range(0, 80, 2)),
        "c": list("xyzy" * 10),
    }
    first = open_table(cells)
    for _ in range(many):
        names = random.sample([*cells], 3)
        other: dict[str, list[Any]] = {
            name: list(map(float, cells[name])) if name == "b" else cells[name] for name in names
        }
        other |= {"more": list(range(40))} if random.random() < 0.5 else {}
        row, column = random.randrange(40), random.choice(names)
        changed = random.random() < 0.5
        if changed:
            other[column] = [*other[column]]
            other[column][row] = "w" if column == "c" else other[column][row] + 1e-9
        again = digests(open_table(other, columns=first.columns))
        different = [i for i in range(40) if again[i] != digests(first)[i]]
        faults.tell(different == [row] * changed, f"{names}, {column} of row {row} changed: {changed}: {different}")


def files_that_change(faults: Faults, folder: Path, random: chance.Random, many: int) -> None:
    """Files that vanish, shrink or change after they were opened: named, none of them used"""
    for number in range(many):
        root = _photos(folder / f"{number}", 6)
        images, which = open_images(root, memory=0), random.randrange(6)
        how = _spoil(root / f"{which:02}.png", random)
        try:
            images.pixels(torch.arange(6))
            found = None
        except Lost as lost:
            found = {k: name for k, (name, _) in lost.at.items()}
        faults.tell(found == {which: f"{which:02}.png"}, f"{how} of image {which}: {found}")
        shutil.rmtree(root)


def samples_of_a_resumed_run(faults: Faults, folder: Path, random: chance.Random, many: int) -> None:
    """A run resumed where samples are gone, changed, added or in another order: put right, or named"""
    images: Images = open_images(_photos(folder / "p", 20), max_bad=0.2)
    write_samples(folder, images, digests(images))
    written = {"samples.parquet": file_digest(folder / "samples.parquet")}
    saved = {"made": {"classes": images.classes}, "files": written}
    for _ in range(many):
        gone = sorted(random.sample(range(20), random.randrange(8)))
        left = [i for i in range(20) if i not in gone]
        mixed = random.random() < 0.3
        now = images.subset(random.sample(left, len(left)) if mixed else left)
        mixed &= now.names != [images.names[i] for i in left]
        said: list[str] = []
        try:
            samples, lost = as_before(now, saved, folder, "p", said.append)
            kept = torch.tensor(left)
            same = torch.equal(samples.fetch(kept)[0], images.fetch(kept)[0]) and sorted(lost) == gone
            well = same and len(gone) <= 4 and not mixed
        except ValueError as error:
            text = str(error)
            named = repr(images.names[gone[0]]) in text and "--max-bad" in text if len(gone) > 4 else False
            well = named or (mixed and "another order" in text)
        faults.tell(well, f"{gone} gone, another order: {mixed}: {said}")


def runs_whose_files_change(faults: Faults, folder: Path, random: chance.Random, many: int) -> None:
    """Training while files vanish, shrink or change, then resumed: ended well, or stopped with the flag and resumed"""
    for number in range(min(many, 6)):
        data, out = _photos(folder / f"{number}"), folder / f"run-{number}"
        spare = shutil.copytree(data, folder / f"spare-{number}")
        files = [data / f"{i:02}.png" for i in random.sample(range(24), random.choice([1, 2, 8]))]
        words = ("train", random.choice(["simclr", "moco"]), data, "--out", out, "--max-bad", 0.1, *FLAGS)
        with _memory(0):
            with _at_step(4, partial(_spoil_all, files, random)):
                said = command(words)
            shutil.rmtree(data)
            shutil.copytree(spare, data)
            again = command([*words, "--resume"])
        well = said.status == 0 if len(files) <= 2 else said.refused and "--max-bad" in said.text
        well &= any(file.name in said.text for file in files) and again.status == 0
        if well:
            with _memory(2**40):
                well = bool(Run(out).seen(Run(out).open(data)).all())
        faults.tell(well, f"{len(files)} files: {said.status} {said.text[-300:]!r}; then {again.text[-300:]!r}")


def _spoil_all(files: list[Path], random: chance.Random) -> None:
    for file in files:
        _spoil(file, random)
