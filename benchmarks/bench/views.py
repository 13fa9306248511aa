"""Random views of images, the SimCLR recipe: batched, and one by one in other libraries."""

from __future__ import annotations

import itertools
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Contender, Run, clock_for, compare
from nearfar.modalities.image import named
from nearfar.modalities.image.samples import open_images

TORCHVISION, LIGHTLY, KORNIA, ALBUMENTATIONS = (
    "torchvision v2, per sample",
    "lightly",
    "kornia, batched",
    "albumentations",
)


def data_folder() -> Path:
    """The folder of real data sets: NEARFAR_DATA, or ../shared/data beside the repository."""
    return Path(os.environ.get("NEARFAR_DATA") or Path(__file__).parents[3] / "shared" / "data")


def small_images(n: int) -> tuple[Tensor, str]:
    """N x 3 x 32 x 32, uint8: CIFAR-10's test images where they are, else noise; and which."""
    path = data_folder() / "cifar10_test.npz"
    if not path.exists():
        return torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8), "noise"
    pixels = open_images(path).pixels(torch.arange(min(n, 10_000)))
    return pixels.repeat(-(-n // len(pixels)), 1, 1, 1)[:n].contiguous(), "CIFAR-10"


def photographs(folder: Path, n: int) -> list[Path]:
    """Paths of n real photographs, unpacked into `folder`; none where the data are not there."""
    path = data_folder() / "grocery_photos.tar"
    if not path.exists():
        return []
    with tarfile.open(path) as tar:
        images = [member for member in tar if member.name.endswith(".jpg")]
        chosen = images[:: max(1, len(images) // n)][:n]
        tar.extractall(folder, chosen, filter="data")
    return [folder / member.name for member in chosen]


def torchvision_view(size: int) -> Callable[[Tensor], Tensor]:
    """One view of one image, C x H x W uint8 -> C x s x s float32 in [0, 1]."""
    from torchvision.transforms import v2

    strength, blur = (0.5, []) if size < 64 else (1.0, [v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=0.5)])
    jitter = v2.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([jitter], p=0.8),
            v2.RandomGrayscale(0.2),
            *blur,
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


def lightly_views(size: int) -> Callable[[Any], list[Tensor]]:
    """Two views of one PIL image."""
    from lightly.transforms import SimCLRTransform

    small = size < 64
    return SimCLRTransform(
        input_size=size, cj_strength=0.5 if small else 1.0, gaussian_blur=0.0 if small else 0.5, normalize=None
    )


def albumentations_view(size: int) -> Callable[[np.ndarray], np.ndarray]:
    """One view of one image, H x W x C uint8, still uint8."""
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    strength, blur = (0.5, []) if size < 64 else (1.0, [A.GaussianBlur((23, 23), (0.1, 2.0), p=0.5)])
    low, high = 1 - 0.8 * strength, 1 + 0.8 * strength
    jitter = A.ColorJitter((low, high), (low, high), (low, high), (-0.2 * strength, 0.2 * strength), p=0.8)
    crop = A.RandomResizedCrop((size, size), scale=(0.08, 1.0))
    compose = A.Compose([crop, A.HorizontalFlip(), jitter, A.ToGray(p=0.2), *blur])
    return lambda image: compose(image=image)["image"]


def kornia_views(size: int) -> torch.nn.Module:
    """One view of each image of a batch, floats in [0, 1]."""
    import kornia.augmentation as K

    strength, blur = (0.5, []) if size < 64 else (1.0, [K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=0.5)])
    return torch.nn.Sequential(
        K.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength, p=0.8),
        K.RandomGrayscale(p=0.2),
        *blur,
    )


def to_tensor(images: list[np.ndarray]) -> Tensor:
    """Images of bytes, H x W x C, as floats, N x C x H x W."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255)


def small_contenders(pixels: Tensor) -> dict[str, Contender]:
    """Two views of each of N images that lie in memory as bytes, as two tensors of floats."""
    from PIL import Image

    def torchvision() -> Run:
        view = torchvision_view(32)
        return lambda: [torch.stack([view(image) for image in pixels]) for _ in range(2)]

    def lightly() -> Run:
        two = lightly_views(32)
        arrays = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        return lambda: [torch.stack(v) for v in zip(*(two(Image.fromarray(a)) for a in arrays), strict=True)]

    def kornia() -> Run:
        view = kornia_views(32)

        def run() -> None:
            with torch.no_grad():
                floats = pixels.float() / 255
                view(floats), view(floats)

        return run

    def albumentations() -> Run:
        view = albumentations_view(32)
        arrays = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        return lambda: [to_tensor([view(a) for a in arrays]) for _ in range(2)]

    def ours() -> Run:
        simclr = named.simclr(32)
        generator, aspect = torch.Generator().manual_seed(0), torch.ones(len(pixels))
        return lambda: simclr(pixels, aspect, simclr.draw(len(pixels), generator))

    return {
        TORCHVISION: torchvision,
        LIGHTLY: lightly,
        KORNIA: kornia,
        ALBUMENTATIONS: albumentations,
        OURS: ours,
    }


def photograph_contenders(paths: list[Path], folder: Path, threads: int) -> dict[str, Contender]:
    """Two views of 224 px of each photograph, from the encoded file: read, decode once, two tensors of floats."""

    def torchvision() -> Run:
        from torchvision.io import ImageReadMode, decode_jpeg, read_file

        view = torchvision_view(224)

        def run() -> None:
            images = [decode_jpeg(read_file(str(path)), ImageReadMode.RGB) for path in paths]
            [torch.stack([view(image) for image in images]) for _ in range(2)]

        return run

    def lightly() -> Run:
        from PIL import Image

        two = lightly_views(224)

        def run() -> None:
            made = [two(Image.open(path).convert("RGB")) for path in paths]
            [torch.stack(view) for view in zip(*made, strict=True)]

        return run

    def albumentations() -> Run:
        import cv2

        view = albumentations_view(224)

        def run() -> None:
            images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
            [to_tensor([view(image) for image in images]) for _ in range(2)]

        return run

    def ours() -> Run:
        simclr = named.simclr(224)
        listed = folder / "list.txt"
        listed.write_text("\n".join(path.relative_to(folder).as_posix() for path in paths) + "\n", encoding="utf-8")
        images = open_images(listed, size=224, memory=0, workers=threads)  # nothing is kept: each fetch decodes
        generator, every = torch.Generator().manual_seed(0), torch.arange(len(images))
        return lambda: simclr(*images.fetch(every), draws=simclr.draw(len(images), generator))

    return {TORCHVISION: torchvision, LIGHTLY: lightly, ALBUMENTATIONS: albumentations, OURS: ours}


class _Pairs(torch.utils.data.Dataset):
    """Images in memory, and lightly's two views of one."""

    def __init__(self, pixels: Tensor) -> None:
        self.arrays = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self.two = lightly_views(32)

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, i: int) -> list[Tensor]:
        from PIL import Image

        return self.two(Image.fromarray(self.arrays[i]))


def pair_contenders(pixels: Tensor, batch: int) -> dict[str, Contender]:
    """One epoch of view pairs, in batches, in random order."""

    def lightly() -> Run:
        loader = torch.utils.data.DataLoader(
            _Pairs(pixels), batch, shuffle=True, num_workers=4, persistent_workers=True, drop_last=True
        )
        return lambda: [None for _ in loader]

    def ours() -> Run:
        images, simclr = open_images(pixels.permute(0, 2, 3, 1).numpy()), named.simclr(32)
        generator = torch.Generator().manual_seed(0)

        def run() -> None:
            order = torch.randperm(len(images), generator=generator)
            for rows in itertools.takewhile(lambda part: len(part) == batch, order.split(batch)):
                simclr(*images.fetch(rows), draws=simclr.draw(batch, generator))

        return run

    return {f"{LIGHTLY}, DataLoader of 4 workers": lightly, OURS: ours}


def measure(setting: Setting) -> Found:
    """Views of 32 px from bytes and of 224 px from files on the given threads; on all threads, CIFAR as view pairs."""
    found = Found()
    clock = clock_for(setting.threads)
    torch.manual_seed(0)
    n = 32 if setting.quick else 512
    seconds = 0.5 if setting.quick else 25
    pixels, source = small_images(n)
    row = compare(
        f"SimCLR views, 32 px, from bytes ({source})",
        {"N": n},
        small_contenders(pixels),
        clock=clock,
        seconds=seconds,
        rate=(2 * n, "views/s"),
    )
    found.add(row, "views 32 px")
    with tempfile.TemporaryDirectory() as folder:
        n = 8 if setting.quick else 96
        paths = photographs(Path(folder), n)
        if paths:
            row = compare(
                "SimCLR views, 224 px, from JPEG files",
                {"N": n},
                photograph_contenders(paths, Path(folder), setting.threads),
                clock=clock,
                seconds=seconds,
                rate=(2 * n, "views/s"),
            )
            found.add(row, "views 224 px")
        else:
            print("No photographs: NEARFAR_DATA names the folder that holds grocery_photos.tar", flush=True)
    if setting.threads > 1:
        n, batch = (256, 64) if setting.quick else (10_240, 512)
        pixels, source = small_images(n)
        row = compare(
            f"view pairs from memory, 32 px ({source})",
            {"N": n, "Batch": batch},
            pair_contenders(pixels, batch),
            clock=clock,
            seconds=seconds,
            rate=(n, "pairs/s"),
        )
        found.add(row, "view pairs")
    return found
