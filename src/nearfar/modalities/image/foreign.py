"""Views of one's own: transforms of torchvision, albumentations and kornia as they are, and functions on one image.

Such transforms take their chance from generators of the whole process. So each is called for one sample at a time, when
these generators have been set by the draws of that sample and view: what comes out depends on the seed, the step and
the sample's place in the global batch, and on nothing else. Afterward the generators are as they were.
"""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.modalities.image.samples import Images
from nearfar.modalities.image.views import Views

TRIED = 8
"""Samples on which views of one's own are tried before training."""

SLACK = 1e-4
"""By how much rounding may take numbers out of [0, 1]."""

FORMS = {
    "bytes": "one image at a time, as bytes C x H x W",
    "picture": "one image at a time, as an image of Pillow",
    "array": "one image at a time, as an array H x W x C of bytes",
    "named": "one image at a time, as an array H x W x C of bytes called image",
    "batch": "a batch of one image at a time, N x C x H x W in [0, 1]",
}
"""In which a transform may want an image, in words."""

OF_LIBRARY = {"torchvision": ("bytes", "picture"), "albumentations": ("named",), "kornia": ("batch",)}
"""The forms that transforms of a library want."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """A seed for each view of each sample: N x V, int64, on the CPU."""

    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, rows: slice) -> Seeds:
        return Seeds(self.numbers[rows])


class Side(NamedTuple):
    """What is known of a view: its side in pixels."""

    size: int


class Refused(UserError):
    """What a transform gave is no view."""


class TransformedViews:
    """V views of each image, each made by a transform of the user's own.

    transforms: one for each view.  single: whether these are one transform, and how many views it makes is open: two
    calls are two views, and where one call gives several, these are the views.  name: what the user called them.
    Known once `try_out` was called: views, of each its `size`; found, what it found, in plain types; notes, sentences.
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]], name: str, *, single: bool = False) -> None:
        self.transforms, self.name, self.single = list(transforms), name, single
        self.forms: list[str] = []
        self.at_once = 0  # views that a single call gives, where it gives several
        self.views: list[Side] = []
        self.found: dict[str, Any] = {}
        self.notes: list[str] = []

    def __len__(self) -> int:
        return self.at_once or len(self.transforms)

    def draw(self, n: int, generator: torch.Generator) -> Seeds:
        """Seeds for n images from a CPU generator. The first rows do not depend on n."""
        return Seeds(torch.randint(2**62, (n, len(self)), generator=generator))

    @torch.no_grad()
    def __call__(self, pixels: Tensor, aspect: Tensor, draws: Seeds) -> list[Tensor]:
        """V views, N x C x size x size, float32 in [0, 1], on the device of the pixels.

        pixels: N x C x S x S, uint8, squashed squares, which transforms see in their true shape, the longer side S.
        aspect: N.  Raises ValueError where a transform gives anything else than an image of those channels.
        """
        images = [_in_shape(x, float(a)) for x, a in zip(pixels.cpu(), aspect.cpu(), strict=True)]
        seeds = draws.numbers.tolist()
        made: list[list[Tensor]] = [[] for _ in range(len(self))]
        with _generators_kept():
            for image, own in zip(images, seeds, strict=True):
                for v, (transform, form) in enumerate(zip(self.transforms, self.forms, strict=True)):
                    _seed(own[v], transform)
                    out = _called(transform, form, image)
                    parts = out if self.at_once else [out]
                    if self.at_once and (not isinstance(out, list | tuple) or len(out) != self.at_once):
                        raise Refused(f"{self._said(v)} gave {_described(out)}, and at first {self.at_once} views")
                    for k, part in enumerate(parts):
                        made[v + k].append(self._view(part, v, len(image)))
        for v, views in enumerate(made):
            if len(sides := {view.shape[-1] for view in views}) > 1:
                raise Refused(
                    f"{self._said(v)} gave images of {' and '.join(map(str, sorted(sides)))} px: all images of a view "
                    f"must have one side; end it with a crop or a resize to it"
                )
        return [torch.stack(views).to(pixels.device) for views in made]

    def _said(self, v: int) -> str:
        several = f", transform {v + 1}" if len({id(t) for t in self.transforms}) > 1 else ""
        return f"--views {self.name}{several}"

    def _view(self, out: Any, v: int, channels: int) -> Tensor:
        """What a transform gave, as a view: C x side x side. Raises Refused where it is none."""
        x = _as_tensor(out)
        if x is None:
            raise Refused(
                f"{self._said(v)} gave {_described(out)}: an image is wanted, as a tensor, an array or Pillow's"
            )
        if x.dim() != 3 or x.shape[0] != channels or x.shape[1] != x.shape[2] or not x.numel():
            raise Refused(
                f"{self._said(v)} gave {_described(out)}: a square image of {channels} channels is wanted, as the data "
                "have; end it with a crop or a resize to a square, and turn gray into as many equal channels"
            )
        if x.dtype == torch.uint8:
            return x.float() / 255
        if not x.isfinite().all():
            raise Refused(f"{self._said(v)} gave {_described(out)}, with NaN or infinite numbers among them")
        if x.min() < -SLACK or x.max() > 1 + SLACK:
            raise Refused(
                f"{self._said(v)} gave {_described(out)} from {float(x.min()):.3g} to {float(x.max()):.3g}: bytes, or "
                "numbers from 0 to 1 are wanted. Leave normalization out: it is a layer of the encoder; and scale "
                "bytes that were made floats"
            )
        return x.float().clamp(0, 1)

    def try_out(self, pixels: Tensor, aspect: Tensor, size: int) -> None:
        """Find out how the transforms are to be called, what they give, and whether that follows from the seeds.

        pixels, aspect: of some images, as views take them.  size: of the plain view, by which the encoder is measured.
        Raises ValueError where a transform takes no form of an image, or gives no view.
        """
        image = _in_shape(pixels[0].cpu(), float(aspect[0]))
        with _generators_kept():
            found = [self._form(v, image) for v in range(len(self.transforms))]
        self.forms = [form for form, _ in found]
        at_once = [count for _, count in found if count]
        if at_once and not self.single:
            raise Refused(
                f"--views {self.name}: a transform gave {at_once[0]} images at once; give it alone, without others "
                "beside it and without --view-count"
            )
        if at_once:
            self.at_once, self.transforms, self.forms = at_once[0], self.transforms[:1], self.forms[:1]
        draws = self.draw(len(pixels), torch.Generator().manual_seed(0))
        made = self(pixels, aspect, draws)
        again = self(pixels, aspect, draws)
        apart = self(pixels[1:], aspect[1:], draws.rows(slice(1, None))) if len(pixels) > 1 else []
        exact = all(map(torch.equal, made, again)) and all(
            torch.equal(x[1:], y) for x, y in zip(made, apart, strict=len(pixels) > 1)
        )
        self.views = [Side(view.shape[-1]) for view in made]
        libraries = list(dict.fromkeys(_library(t) or "your own" for t in self.transforms))
        forms = list(dict.fromkeys(self.forms))
        self.found = {
            "from": libraries,
            "called with": forms,
            "views": len(self),
            "sides": [view.size for view in self.views],
            "exact": exact,
            "transforms": [re.sub(r" at 0x[0-9a-f]+", "", repr(transform)) for transform in self.transforms],
        }
        self.notes = [
            f"The views {self.name} ({', '.join(libraries)}) are called with {'; '.join(FORMS[f] for f in forms)}, and "
            f"give {len(self)} views of {', '.join(str(s) for s in dict.fromkeys(self.found['sides']))} px."
        ]
        if not exact:
            self.notes.append(
                f"Warning: the views {self.name} gave other images when they were called again with the same seeds. A "
                "run with them cannot be repeated bit for bit, neither from its seed nor by --resume, nor on another "
                "number of processes. They must draw from random, numpy.random or torch alone, without generators of "
                "their own, and keep nothing from call to call."
            )
        if len(made) > 1 and made[0].shape == made[1].shape and torch.equal(made[0], made[1]):
            self.notes.append(
                f"Warning: the first two views of {self.name} are the same in all of {len(pixels)} images: nothing in "
                "them is random, so that there is nothing to learn from their likeness."
            )
        if max(view.size for view in self.views) != size:
            self.notes.append(
                f"The views {self.name} have {max(view.size for view in self.views)} px, while the encoder is measured "
                f"at {size} px: --size {max(view.size for view in self.views)} makes them alike."
            )

    def _form(self, v: int, image: Tensor) -> tuple[str, int]:
        """The first form that a transform takes, and how many views it gives at once, 0 for one alone."""
        transform, why = self.transforms[v], []
        library = _library(transform)
        forms = OF_LIBRARY.get(library, ("bytes", "picture", "array", "batch"))
        refused: Refused | None = None
        for form in forms:
            if form == "picture" and len(image) not in (1, 3):
                continue
            try:
                _seed(0, transform)
                out = _called(transform, form, image)
            except Exception as error:  # whatever a stranger's transform raises at what it does not take
                why.append(f"{FORMS[form]}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
                continue
            several = isinstance(out, list | tuple)
            try:
                for part in out if several else [out]:
                    self._view(part, v, len(image))
                return form, len(out) if several else 0
            except Refused as error:
                refused = refused or error
                if library:  # which says what it does not take; what it gave is what it makes
                    break
        if refused is not None:
            raise refused
        raise Refused(f"{self._said(v)} takes an image in no form that was tried. Called with {'; '.join(why)}")


def own_views(given: Any, size: int, count: int, name: str) -> Any:
    """Views of the user's own, not tried yet.

    given: `Views`, or anything with `draw` and a length; a transform; a list of transforms, one for each view; or a
    function of the side of the views in pixels that gives one of these.
    count: views of each image; 0 for as many as there are in the list, or two of a single transform.
    Raises ValueError for anything else.
    """
    make: Callable[[int], Any] = given
    try:
        made = make(size) if inspect.isroutine(given) or inspect.isclass(given) else given
    except ModuleNotFoundError as error:
        raise Refused(
            f"--views {name} needs {error.name!r}, which is not installed: pip install {error.name}"
        ) from error
    if isinstance(made, Views):
        return made.repeated(count) if count else made
    if hasattr(made, "draw") and hasattr(made, "__len__") and callable(made):
        return made
    listed = isinstance(made, list | tuple)
    several: list[Any] = list(made) if listed else [made] * (count or 2)
    if not several or not all(map(callable, several)):
        raise Refused(
            f"--views {name} gave {_described(made)}: a transform, or a list of transforms is wanted, one for each "
            "view, or views of nearfar"
        )
    if count:
        several = [several[v % len(several)] for v in range(count)]
    return TransformedViews(several, name, single=not listed and not count)


def tried(views: Any, samples: Images, size: int, name: str) -> Any:
    """The views, once they were tried on some samples.

    Raises ValueError where what they give is of another form, number or range than it must be.
    """
    some = torch.linspace(0, len(samples) - 1, min(TRIED, len(samples))).long().unique()
    pixels, aspect = samples.fetch(some)
    if isinstance(views, TransformedViews):
        views.try_out(pixels, aspect, size)
        return views
    made = views(pixels, aspect, draws=views.draw(len(some), torch.Generator().manual_seed(0)))
    if not isinstance(made, list | tuple) or len(made) != len(views):
        raise Refused(f"--views {name} gave {_described(made)}: a list of {len(views)} views is wanted")
    for v, view in enumerate(made):
        right = isinstance(view, Tensor) and view.is_floating_point() and view.dim() == 4
        if not right or view.shape[:2] != (len(some), samples.channels):
            raise Refused(
                f"--views {name} gave {_described(view)} as view {v + 1} of {len(some)} images: floats of "
                f"{len(some)} x {samples.channels} x side x side are wanted"
            )
        if not view.isfinite().all() or view.min() < -SLACK or view.max() > 1 + SLACK:
            raise Refused(
                f"--views {name} gave {_described(view)} from {float(view.min()):.3g} to {float(view.max()):.3g}: "
                "numbers from 0 to 1 are wanted; normalization is a layer of the encoder"
            )
    return views if hasattr(views, "views") else _Sized(views, [Side(view.shape[-1]) for view in made])


class _Sized:
    """Views by the protocol, of each of which the side is known. All else is theirs."""

    def __init__(self, of: Any, views: list[Side]) -> None:
        self.of, self.views = of, views

    def __len__(self) -> int:
        return len(self.of)

    def __call__(self, *inputs: Any, draws: Any = None) -> list[Tensor]:
        return self.of(*inputs, draws=draws)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


def _library(transform: Any) -> str:
    """The library that a transform is of, by its class or those above it; "" for none of these."""
    modules = [kind.__module__.partition(".")[0] for kind in type(transform).__mro__]
    return next((name for name in OF_LIBRARY if name in modules), "")


def _seed(seed: int, transform: Any) -> None:
    """Set all generators that a transform may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the one that strangers draw from)
    torch.default_generator.manual_seed(seed)
    if hasattr(transform, "set_random_seed"):  # of albumentations, which has generators of its own
        transform.set_random_seed(seed % 2**32)


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Within, generators may be set: afterward they are as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (as above)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002 (as above)
        torch.set_rng_state(before[2])


def _in_shape(x: Tensor, aspect: float) -> Tensor:
    """A squashed square in its true shape, the longer side as it is stored: C x S x S -> C x H x W, uint8."""
    side = x.shape[-1]
    height, width = max(1, round(side / max(aspect, 1.0))), max(1, round(side * min(aspect, 1.0)))
    if (height, width) == (side, side):
        return x.clone()
    resized = F.interpolate(x[None].float(), (height, width), mode="bilinear", antialias=True)[0]
    return resized.round().clamp(0, 255).byte()


def _called(transform: Any, form: str, image: Tensor) -> Any:
    """What a transform gives for an image, C x H x W of bytes, in a form of `FORMS`."""
    if form == "batch":
        return transform(image[None].float() / 255)
    if form == "bytes":
        return transform(image.clone())
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if form == "picture":
        return transform(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array))
    return transform(image=array)["image"] if form == "named" else transform(array)


def _as_tensor(out: Any) -> Tensor | None:
    """What a transform gave as bytes or floats, C x H x W where it is an image; None where it is none."""
    if isinstance(out, Image.Image):
        out = np.array(out)
    if isinstance(out, np.ndarray):
        if out.ndim == 2:
            out = out[:, :, None]
        if out.ndim != 3 or out.dtype not in (np.uint8, np.float32, np.float64):
            return None
        return torch.from_numpy(np.ascontiguousarray(out.transpose(2, 0, 1)))
    if isinstance(out, Tensor) and (out.dtype == torch.uint8 or out.is_floating_point()):
        out = out.detach().as_subclass(Tensor).cpu()
        return out[0] if out.dim() == 4 and len(out) == 1 else out
    return None


def _described(out: Any) -> str:
    """What came back, in words."""
    if isinstance(out, Tensor | np.ndarray):
        shape = " x ".join(map(str, out.shape)) or "no"
        return f"a {type(out).__name__} of {str(out.dtype).removeprefix('torch.')}, {shape} numbers"
    if isinstance(out, Image.Image):
        return f"an image of Pillow, {out.mode}, {out.width} x {out.height} px"
    if isinstance(out, list | tuple):
        return f"a {type(out).__name__} of {len(out)}"
    return f"a {type(out).__name__}" if out is not None else "None"
