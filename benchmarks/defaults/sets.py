"""The data sets of images on which defaults are chosen: small, of many natures, each with its own split and labels.

All are cut from the files of `../shared/data` (its README names the sources) but for the digits, which scikit-learn
brings. Nothing random but what follows from a fixed seed. Sets of one source are left out together.
"""

from __future__ import annotations

import csv
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nearfar.modalities.image.samples import Images, open_images

DATA = Path(os.environ.get("NEARFAR_DATA", Path(__file__).parents[3] / "shared" / "data"))
TESTED = 2000
"""Test samples of a set, at most: the first of those drawn by seed."""
TWINS = ("00205", "00229", "00233", "00249")
"""Test pictures of blood that show the field of a training picture."""


@dataclass(frozen=True)
class Set:
    """A data set with labels.

    train, test: the images, with their labels.  group, tested: of the training and of the test images, which belong
    together, such as crops of one picture: never on both sides where something is chosen on training rows, and drawn
    together in intervals.
    """

    train: Images
    test: Images
    group: Tensor
    tested: Tensor


@dataclass(frozen=True)
class Source:
    """Where a set comes from: the file, what `nearfar doctor` takes its images for, and what makes the set."""

    file: str
    nature: str
    make: Callable[[], Set]
    about: str


def names(natures: Sequence[str] = ()) -> list[str]:
    """All sets, or those of some natures."""
    return [name for name, source in SETS.items() if not natures or source.nature in natures]


@cache
def load(name: str) -> Set:
    """A set by its name."""
    return SETS[name].make()


def missing(name: str) -> bool:
    """Whether the file of a set is not there."""
    return SETS[name].file != "scikit-learn" and not (DATA / SETS[name].file).exists()


def _images(pixels: np.ndarray, label: Sequence[Any] | np.ndarray, classes: Sequence[str]) -> Images:
    """pixels: N x H x W, or N x H x W x C, uint8.  label: N, numbers of classes."""
    images = open_images(pixels)
    images.label, images.classes = torch.as_tensor(np.asarray(label, np.int64)), list(classes)
    return images


def _set(
    pixels: np.ndarray,
    label: np.ndarray,
    classes: Sequence[str],
    train: np.ndarray,
    test: np.ndarray,
    group: np.ndarray | None = None,
    *,
    most: int = 5000,
    seed: int = 0,
) -> Set:
    """The rows of masks `train` and `test`, at most so many of each, drawn by seed."""
    draw = np.random.default_rng(seed)
    learned, tested = (draw.permutation(np.flatnonzero(rows)) for rows in (train, test))
    learned, tested = learned[:most], tested[:TESTED]
    group = np.arange(len(pixels)) if group is None else np.unique(group, return_inverse=True)[1]
    train_part, test_part = (_images(pixels[rows], label[rows], classes) for rows in (learned, tested))
    return Set(train_part, test_part, torch.from_numpy(group[learned]), torch.from_numpy(group[tested]))


def _shrunk(picture: Image.Image, size: int) -> np.ndarray:
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0))


def _read(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def _members(tar: str) -> Callable[[str], bytes]:
    """What reads a member of a tar by its name."""
    archive = tarfile.open(DATA / tar)  # noqa: SIM115 (read as long as the process lives)

    def member(name: str) -> bytes:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()

    return member


def _cifar(most: int) -> Set:
    def part(name: str, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        z = dict(np.load(DATA / f"cifar10_{name}.npz"))
        jpeg, offsets = z["jpeg"], z["offsets"]
        pixels = [np.asarray(_read(jpeg[offsets[i] : offsets[i + 1]].tobytes())) for i in range(count)]
        return np.stack(pixels), z["labels"][:count], [str(c) for c in z["names"]]

    (x, y, classes), (z, w, _) = part("train", most), part("test", TESTED)
    return Set(_images(x, y, classes), _images(z, w, classes), torch.arange(most), torch.arange(TESTED))


def _groceries(size: int = 32, label: str = "coarse") -> Set:
    member = _members("grocery_photos.tar")
    rows = list(csv.DictReader(member("grocery_photos/labels.csv").decode().splitlines()))
    pixels = np.stack([_shrunk(_square(_read(member("grocery_photos/" + r["path"]))), size) for r in rows])
    train = np.array([r["path"].startswith("train") for r in rows])
    names = np.array([r[f"{label}_name"] for r in rows])
    classes, y = np.unique(names, return_inverse=True)
    return _set(pixels, y, classes.tolist(), train, ~train)


def _square(picture: Image.Image) -> Image.Image:
    """The middle of a picture, in color."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.convert("RGB").crop((left, top, left + side, top + side))


def _omniglot(part: str) -> Set:
    """evaluation: 659 characters, seven drawings of each to learn from and five to test by, of other drawers.
    background: the alphabet of 4,840 drawings, those by six of twenty drawers to test by."""
    z = dict(np.load(DATA / "omniglot.npz"))
    pixels, drawer = z[f"{part}_x32"], z[f"{part}_writer"]
    pixels = (pixels * np.uint8(255 // int(pixels.max()))).astype(np.uint8)
    names = z[f"{part}_names"]
    if part == "evaluation":
        character = z["evaluation_identity"]
        data = _set(pixels, character, names.tolist(), drawer < 7, drawer >= 15)
        return replace(data, tested=data.test.label)  # drawings of one character are not independent
    alphabet = np.array([str(names[i]).split("/")[0] for i in z[f"{part}_identity"]])
    classes, y = np.unique(alphabet, return_inverse=True)
    # Two drawings of one character are near copies where the alphabet is the label.
    return _set(pixels, y, classes.tolist(), drawer < 14, drawer >= 14, z[f"{part}_identity"])


def _emoji(form: str) -> Set:
    """color: as they are, on white. shape: what is not transparent. Of skin tones the neutral one alone."""
    z = dict(np.load(DATA / "emoji.npz"))
    png, offsets = z["png"], z["offsets"]
    kept = np.flatnonzero(z["skin_tone"] == "")
    pictures = [_read(png[offsets[i] : offsets[i + 1]].tobytes()).convert("RGBA") for i in kept]
    if form == "shape":
        pixels = np.stack([_shrunk(picture.getchannel("A"), 32) for picture in pictures])
    else:
        white = Image.new("RGBA", (64, 64), "white")
        pixels = np.stack([_shrunk(Image.alpha_composite(white, p).convert("RGB"), 32) for p in pictures])
    train = z["split"][kept] == "train"
    return _set(pixels, z["group"][kept], z["group_names"].tolist(), train, ~train, z["base"][kept])


def _spoken(held: str) -> Set:
    """Log-mel pictures of spoken digits, 32 bands x 32 times. take: the first five of fifty takes are tested; speaker:
    all of two speakers of six."""
    z = dict(np.load(DATA / "fsdd_spoken_digits.npz"))
    audio, offsets = z["audio"], z["offsets"]
    pixels = np.stack([_log_mel(audio[a:b].astype(np.float32)) for a, b in pairwise(offsets)])
    speaker = np.unique(z["speaker"], return_inverse=True)[1]
    test = z["take"] < 5 if held == "take" else speaker >= 4
    return _set(pixels, z["digit"], [str(d) for d in range(10)], ~test, test)


def _log_mel(wave: np.ndarray, bands: int = 32, size: int = 32, rate: int = 8000) -> np.ndarray:
    """A recording as bands x size, the lowest band at the bottom: 80 dB from black to white."""
    window, hop = 256, 128
    wave = np.pad(wave, (0, max(0, window - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames)) ** 2  # T x 129
    mel = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2)
    edge = 700 * (10 ** (mel / 2595) - 1) * window / rate  # in bins
    bin_ = np.arange(window // 2 + 1)[:, None]
    rise, fall = (bin_ - edge[:-2]) / (edge[1:-1] - edge[:-2]), (edge[2:] - bin_) / (edge[2:] - edge[1:-1])
    level = 10 * np.log10(power @ np.clip(np.minimum(rise, fall), 0, None) + 1e-3)  # T x bands
    scaled = np.clip((level - level.max() + 80) / 80, 0, 1).T[::-1] * 255
    return np.asarray(Image.fromarray(scaled.astype(np.uint8)).resize((size, bands), Image.Resampling.BILINEAR))


def _digits() -> Set:
    """Handwritten digits of 8 x 8 pixels, enlarged to 32; the last third is tested, by other writers for the most."""
    from sklearn.datasets import load_digits

    x, y = (np.asarray(part) for part in load_digits(return_X_y=True))
    small = (x.reshape(-1, 8, 8) * 15.9).astype(np.uint8)
    pixels = np.stack([np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BILINEAR)) for i in small])
    train = np.arange(len(y)) < 1198
    return _set(pixels, y, [str(d) for d in range(10)], train, ~train)


def _nuclei(size: int = 32) -> Set:
    """Crops of pictures of cells: of which kind of microscope, and whether a nucleus is in the middle."""
    member = _members("nuclei.tar")
    rows = list(csv.DictReader(member("nuclei/index.csv").decode().splitlines()))
    draw, pixels, label, train, group = np.random.default_rng(0), [], [], [], []
    for number, row in enumerate(rows):
        picture = np.asarray(_read(member("nuclei/" + row["path"])).convert("RGB"))
        mask = np.asarray(_read(member("nuclei/" + row["mask"])))
        picture = (picture / np.float32(max(picture.max(), 1)) * 255).astype(np.uint8)  # many are dark
        half = size // 2
        wide = np.pad(picture, ((half, half), (half, half), (0, 0)), mode="reflect")
        nuclei = draw.permutation(int(mask.max()))[:14] + 1
        places = [tuple(np.argwhere(mask == k).mean(0).round().astype(int)) for k in nuclei]
        apart = [tuple(draw.integers(0, mask.shape)) for _ in range(60)]
        free = [(y, x) for y, x in apart if not mask[max(0, y - 5) : y + 6, max(0, x - 5) : x + 6].any()][:14]
        kind = row["kind"] if row["kind"] in ("fluorescence", "grey_brightfield") else "histology"
        for what, spots in (("nucleus", places), ("none", free)):
            for y, x in spots:
                pixels.append(wide[y : y + size, x : x + size])
                label.append(f"{kind}, {what}")
                train.append(row["split"] == "train")
                group.append(number)
    classes, y = np.unique(label, return_inverse=True)
    train = np.array(train)
    return _set(np.stack(pixels), y, classes.tolist(), train, ~train, np.array(group))


def _blood(size: int = 32, window: int = 96) -> Set:
    """Windows of one scale about cells of stained blood: red, white, platelets, at most 900 and 200 of a kind."""
    member = _members("bccd.tar")
    rows = list(csv.DictReader(member("bccd/boxes.csv").decode().splitlines()))
    rows = [r for r in rows if r["split"] in ("train", "test") and not any(twin in r["path"] for twin in TWINS)]
    draw = np.random.default_rng(0)
    kept, count = [], {}
    for i in draw.permutation(len(rows)):
        key = rows[i]["split"], rows[i]["label"]
        if count.get(key, 0) < (900 if key[0] == "train" else 200):
            kept.append(i)
            count[key] = count.get(key, 0) + 1
    pictures: dict[str, Image.Image] = {}
    pixels = []
    for i in kept:
        row = rows[i]
        if row["path"] not in pictures:
            picture = np.asarray(_read(member("bccd/" + row["path"])).convert("RGB"))
            pad = window // 2
            wide = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
            pictures[row["path"]] = Image.fromarray(wide)
        x = (int(row["xmin"]) + int(row["xmax"])) // 2
        y = (int(row["ymin"]) + int(row["ymax"])) // 2
        pixels.append(_shrunk(pictures[row["path"]].crop((x, y, x + window, y + window)), size))
    chosen = [rows[i] for i in kept]
    classes, label = np.unique([r["label"] for r in chosen], return_inverse=True)
    train = np.array([r["split"] == "train" for r in chosen])
    return _set(np.stack(pixels), label, classes.tolist(), train, ~train, np.array([r["path"] for r in chosen]))


SETS = {
    "cifar-1k": Source("cifar10_train.npz", "photo", lambda: _cifar(1000), "1,000 small photographs"),
    "cifar-5k": Source("cifar10_train.npz", "photo", lambda: _cifar(5000), "5,000 small photographs"),
    "cifar-20k": Source("cifar10_train.npz", "photo", lambda: _cifar(20_000), "20,000 small photographs"),
    "groceries": Source("grocery_photos.tar", "colorful", _groceries, "43 coarse classes"),
    "characters": Source("omniglot.npz", "drawing", lambda: _omniglot("evaluation"), "659 characters, other drawers"),
    "alphabets": Source("omniglot.npz", "drawing", lambda: _omniglot("background"), "8 alphabets, other drawers"),
    "digits": Source("scikit-learn", "sign", _digits, "8 x 8 px, enlarged"),
    "emoji": Source("emoji.npz", "colorful", lambda: _emoji("color"), "10 groups, in color"),
    "emoji-shape": Source("emoji.npz", "gray_photo", lambda: _emoji("shape"), "10 groups, outlines"),
    "nuclei": Source("nuclei.tar", "turned", _nuclei, "crops, nucleus or none in 3 kinds of microscope"),
    "blood": Source("bccd.tar", "turned", _blood, "red and white cells, platelets"),
    "spoken": Source("fsdd_spoken_digits.npz", "spectrogram", lambda: _spoken("take"), "digits, other takes"),
    "spoken-speaker": Source("fsdd_spoken_digits.npz", "spectrogram", lambda: _spoken("speaker"), "other speakers"),
}
