"""Whether objects of the same class are found by what maps show of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.boxes import Boxes
from nearfar.data.digests import digests, fingerprint
from nearfar.data.tiles import Thumbnails, Tiles
from nearfar.dense.scene import Look, Say, Scene, splits, told, with_boxes
from nearfar.evaluation.correspondence import cut
from nearfar.evaluation.retrieval import per_query
from nearfar.files import origin
from nearfar.owner import writes
from nearfar.ranges import PositiveInt, Seed, checked
from nearfar.report.dense import RECALLS, instances_table
from nearfar.report.samples import found_grid
from nearfar.run import Run

SIDE = 72
"""Of the pictures of objects, in pixels."""


@writes
@checked
def find(
    run: Run,
    data: Any,
    boxes: str | Path,
    *,
    box_origin: Literal[0, 1] = 0,
    size: PositiveInt = 256,
    seed: Seed = 0,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """How well objects of tested images find those of their class in the other images, by the cosine of the means of
    the encoder's last maps over their boxes: recall@1 and 5, and mAP, each class of the same weight, beside the mean
    color and its deviation, and the untrained encoder.

    boxes, box_origin: see `nearfar.data.boxes.read_boxes`.
    size: of the longer side of an image as the encoder sees it, in pixels.
    Images of the split test are tested where one is named, by DATA or by the table of boxes, else a quarter by a seed.
    Writes results/instances-DATA-DIGEST.json, and what some objects find to results/found.json; returns the first.
    """
    scene, truth = with_boxes(run, data, boxes, box_origin, size, say)
    (part,) = splits(scene, torch.tensor([len(own) > 0 for own in truth.boxes]), seed, say, "boxes", once=True)
    tested, learned = part.tested, torch.cat([part.fit, part.held]).sort().values
    asked, there = (torch.cat([truth.label[i] for i in index.tolist()]) for index in (tested, learned))
    image = torch.cat([torch.full_like(truth.label[i], k) for k, i in enumerate(tested.tolist())])
    made, rows = {}, (torch.empty(0), torch.empty(0))
    for name, look in {"mean color": scene.whole_look(_colors), **scene.looks()}.items():
        rows = (_rows(look, scene, truth, tested), _rows(look, scene, truth, learned))
        q, g = (F.normalize(part - rows[1].mean(0), dim=1) for part in rows)
        made[name] = per_query(q, asked, g, there, False, RECALLS, None, skip=False)
    known = scene.known()
    table = instances_table(
        made,
        asked,
        image,
        truth.classes,
        len(there),
        scene.samples.group[tested],
        told(scene, [part], known, choices=False),
        seed,
    )
    table["seen"] = {"samples": int(known[tested].sum()), "of": len(tested)}
    table["protocol"] |= {"boxes": origin(boxes), "box_origin": box_origin, "side": scene.whole.side}
    tiles, count = _tiles(scene, truth, torch.cat([tested, learned])), len(asked)
    center = rows[1].mean(0)
    grid = found_grid(
        rows[0] - center, rows[1] - center, (torch.arange(count), count + torch.arange(len(there))), tiles, seed=seed
    )
    run.write("found", {"directions": [{"name": "objects to objects of other images"} | grid]})
    own = [fingerprint(digests(scene.samples), scene.samples), str(boxes), str(box_origin), str(size)]
    return run.kept(table, "instances", data, own, known)


def pooled(m: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The mean of a map over each box, in which a cell counts by the part of it that the box covers: n x C.

    m: C x h x w, of a square of `side` pixels.  boxes: n x 4, in these pixels.
    """
    weights = []
    for k, cells in ((1, m.shape[1]), (0, m.shape[2])):
        low = torch.arange(cells) * (side / cells)
        high = torch.minimum(low + side / cells, boxes[:, k + 2, None])
        weights.append((high - torch.maximum(low, boxes[:, k, None])).clamp(min=0))
    rows, columns = (w / w.sum(1, keepdim=True) for w in weights)
    return torch.einsum("ny,cyx,nx->nc", rows, m, columns)


def _rows(look: Look, scene: Scene, truth: Boxes, index: Tensor) -> Tensor:
    """The rows of all objects of some images, image by image."""
    rows = []
    for part in index.split(8):
        for m, i in zip(look(part)[-1], part.tolist(), strict=True):
            rows.append(pooled(m, truth.boxes[i] * (scene.whole.side / max(scene.size(i))), scene.whole.side))
    return torch.cat(rows)


def _colors(view: Tensor, inside: Tensor) -> list[Tensor]:
    return [torch.cat([view, view.square()], 1)]


def _tiles(scene: Scene, truth: Boxes, index: Tensor) -> Tiles:
    """Pictures of all objects of some images, image by image, each a square about its box."""
    of = torch.cat([torch.full_like(truth.label[i], i) for i in index.tolist()])
    label = torch.cat([truth.label[i] for i in index.tolist()])
    boxes = torch.cat([truth.boxes[i] * (scene.whole.side / max(scene.size(i))) for i in index.tolist()])

    def pixels(which: Tensor) -> Tensor:
        edge = (boxes[which, 2:] - boxes[which, :2]).amax(1) * 1.1
        corner = (boxes[which, :2] + boxes[which, 2:] - edge[:, None]) / 2
        made = cut(scene.whole.view(of[which]), torch.stack([corner[:, 1], corner[:, 0], edge], 1))
        return (F.interpolate(made, (SIDE, SIDE), mode="bilinear", antialias=True) * 255).round().to(torch.uint8)

    names = [f"{truth.classes[c]}, {scene.samples.names[i]}" for c, i in zip(label.tolist(), of.tolist(), strict=True)]
    tiles = scene.run.kind.tiles(scene.samples)
    return dataclasses.replace(tiles, face=Thumbnails(pixels=pixels), names=names, label=label, classes=truth.classes)
