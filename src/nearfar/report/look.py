"""What a run has learned, to be looked at: the content of results/look.json, section by section, and its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.samples import Samples
from nearfar.data.tiles import Tiles, data_uri
from nearfar.errors import UserError, counted
from nearfar.looking.features import pca_colors
from nearfar.looking.kernels import first_kernels, grid, kernel_tiles, strongest
from nearfar.method import Encoder, Method
from nearfar.modalities.kind import Kind, plain_view
from nearfar.ops.explanation import at_rest
from nearfar.report.gallery import Gallery, neighbor_gallery
from nearfar.report.html import write
from nearfar.report.numbers import protocol
from nearfar.report.samples import spread

SIDE = 128
"""Of a picture, in pixels."""
SHOWN = 6
"""Samples that are looked at one by one."""
HEADS = 6
"""Heads of attention that are shown."""
KERNELS = 64
"""Filters that are shown, at most."""
CPU = torch.device("cpu")


@dataclass(kw_only=True)
class Seen:
    """A run and some samples, as the sections take them.

    encoder, untrained: in eval mode, on the CPU.  features: N x dim, of the samples.  method: that made the encoder;
    where there is none, why not.  settings, made: of the run.
    """

    kind: Kind
    encoder: Encoder
    untrained: Encoder
    samples: Samples
    features: Tensor
    method: Method | str
    settings: Any
    made: Mapping[str, Any]
    seed: int

    @cached_property
    def tiles(self) -> Tiles:
        return self.kind.tiles(self.samples)

    @cached_property
    def few(self) -> Tensor:
        """Positions of some samples, spread over the classes."""
        return spread(self.samples.label, SHOWN, self.seed)

    @cached_property
    def view(self) -> Any:
        """The plain view of these."""
        return plain_view(self.kind.plain(self.encoder), self.samples, self.few, CPU)

    @cached_property
    def pictures(self) -> Tensor:
        """What it looks like: n x 3 x SIDE x SIDE, in [0, 1]."""
        shown = self.kind.pictures(self.view)
        return F.interpolate(shown, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)

    @cached_property
    def contrasted(self) -> tuple[Tensor, str]:
        """What the method contrasts, of all samples, N x D, and what that is, in words."""
        return self.projected(self.features)

    def projected(self, features: Tensor) -> tuple[Tensor, str]:
        head = getattr(self.method, "projector", None)
        if isinstance(self.method, str) or not isinstance(head, torch.nn.Module):
            return features, "the representation"
        with torch.no_grad():
            return torch.cat([head(rows).float() for rows in features.split(1024)]), "the embedding behind the head"

    def name(self, i: int) -> str:
        return self.samples.names[int(i)]


def kernels(seen: Seen) -> dict[str, Any]:
    """The first layer's filters beside those before training."""
    rows = []
    pairs = zip(first_kernels(seen.encoder), first_kernels(seen.untrained), strict=True)
    for number, (weight, before) in enumerate(pairs, 1):
        n, channels, height, width = weight.shape
        chosen = strongest(weight, KERNELS if channels <= 3 else max(1, KERNELS // channels))
        what = f"{n} filters of {channels} x {height} x {width}" + (
            f", the {len(chosen)} largest" if len(chosen) < n else ""
        )
        network = f"network {number}: " if len(first_kernels(seen.encoder)) > 1 else ""
        pictures = [
            _picture(grid(kernel_tiles(part[chosen])).permute(2, 0, 1), f"{network}{when}", f"filters {when}: {what}")
            for when, part in (("before training", before), ("after training", weight))
        ]
        change = float((weight - before).norm() / before.norm().clamp(min=1e-12))
        rows.append({"name": network + what, "label": None, "pictures": pictures, "words": f"moved by {change:.0%}"})
    return {"rows": rows, "protocol": {"largest by": "norm after training", "moved by": "norm of the change"}}


def features(seen: Seen) -> dict[str, Any]:
    """The maps at a few depths, in the colors of their principal components."""
    with at_rest(seen.encoder), torch.no_grad():
        maps = seen.encoder.maps(seen.view)
    colored = [(pca_colors(one, SIDE), _shape(one)) for one in maps]
    return {
        "rows": [
            _row(seen, k, [(colors[k], shape, f"map of {shape}") for colors, shape in colored])
            for k in range(len(seen.few))
        ],
        "protocol": {"components": 3, "fitted over": counted(len(seen.few), seen.tiles.plural)},
    }


def _shape(maps: Tensor) -> str:
    return f"{maps.shape[1]} x {maps.shape[2]} x {maps.shape[3]}"


def _row(seen: Seen, k: int, pictures: Sequence[tuple[Tensor, str, str]], words: str = "") -> dict[str, Any]:
    """Pictures of one of the few samples, behind itself.  pictures: 3 x H x W in [0, 1], a caption, and what it is."""
    name, label = seen.name(int(seen.few[k])), seen.tiles.class_name(int(seen.few[k]))
    shown = [_picture(_bytes(x), caption, f"{what} of {name}") for x, caption, what in pictures]
    first = _picture(_bytes(seen.pictures[k]), "", name)
    return {"name": name, "label": label, "pictures": [first, *shown], "words": words}


def _picture(image: Tensor, caption: str, alt: str) -> dict[str, str]:
    return {"uri": data_uri(image), "caption": caption, "alt": alt}


def _bytes(x: Tensor) -> Tensor:
    return x.mul(255).round().clamp(0, 255).byte()


SECTIONS: dict[str, Callable[[Seen], dict[str, Any]]] = {
    "kernels": kernels,
    "features": features,
}
"""What can be looked at, by the names that `nearfar look --kind` takes, in the order of the page."""


def look(seen: Seen, kinds: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The sections that were asked for, all by default. One that is not possible says why under "missing"."""
    made = []
    for name in SECTIONS:
        if kinds and name not in kinds:
            continue
        try:
            section = {"missing": "", **SECTIONS[name](seen)}
        except UserError as error:
            section = {"missing": str(error)}
        made.append({"kind": name, "rows": [], "grid": None, "finding": "", "protocol": {}} | section)
    return made


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page.  rows: pictures of samples, or of the network.  gallery: groups of samples."""

    kind: str
    missing: str
    finding: str
    rows: list[dict[str, Any]]
    gallery: Gallery | None
    protocol: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class LookPage:
    """What the page of `nearfar look` shows, without a word of HTML."""

    title: str
    facts: list[tuple[str, str]]
    sections: list[Section]


def page_sections(content: Mapping[str, Any] | None) -> list[Section]:
    """The sections of a stored result, as `nearfar.report.record` has read it."""
    return [
        Section(
            kind=one["kind"],
            missing=one["missing"],
            finding=one["finding"],
            rows=one["rows"],
            gallery=None if one["grid"] is None else neighbor_gallery(one["grid"]),
            protocol=protocol(one),
        )
        for one in (content or {"sections": []})["sections"]
    ]


def write_page(path: Path, content: Mapping[str, Any], title: str) -> Path:
    """The page of a result, as `nearfar.report.record` gives it, in one move."""
    facts = [("Run", content["run"]), ("Checkpoint", content["checkpoint"]), ("Looked at", content["data"])]
    page = LookPage(title=title, facts=facts, sections=page_sections(content))
    return write(path, "look.html", page, {})
