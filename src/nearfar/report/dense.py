"""What was measured of places in samples, as tables and pictures of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.tiles import data_uri
from nearfar.evaluation.boxes import MOST, Ranking, average_precision
from nearfar.evaluation.intervals import PERCENT, POINTS, drawn_often, of_drawn
from nearfar.evaluation.segmentation import PRIORS, STRENGTHS, overlaps

COLORS = torch.tensor(
    [[30, 30, 30], [230, 120, 30], [60, 140, 220], [70, 170, 90], [200, 70, 140], [240, 210, 70], [130, 90, 200]],
    dtype=torch.uint8,
)
"""Of classes in pictures, from the first on, again and again."""


def segmentation_table(
    counts: Mapping[str, Tensor],
    chosen: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    group: Tensor,
    told: str,
    seed: int,
    steps: int = 0,
) -> dict[str, Any]:
    """How well classes of pixels are told, as the table of a report; the last row is the run's own.

    counts: of each tested image, N x K x K, as `nearfar.evaluation.segmentation.confusion` gives them, by what made the
    maps.  chosen: what each split chose, in words.  group: N.  told: who was tested, in sentences.  steps: of training,
    where the encoder was trained with the head.
    """
    titles = ["mIoU (%)", "Dice (%)"]
    often, main = drawn_often(len(group), seed=seed, group=group), list(counts)[-1]
    values = {
        name: 100 * torch.stack(overlaps((often @ own.flatten(1)).view(-1, *own.shape[1:]))).nanmean(2)
        for name, own in counts.items()
    }
    made = compared(titles, values, seed)
    for row in made["rows"]:
        if own := list(dict.fromkeys(chosen.get(row["name"], []))):
            row["chosen"] = dict.fromkeys(titles, own)
    iou, dice = (100 * part for part in overlaps(counts[main].sum(0)))
    by = (
        f"encoder and linear head, trained together for {steps:,} steps"
        if steps
        else "a linear discriminant of frozen maps"
    )
    note = (
        f"The class of each pixel, told by {by}: the mean over {len(classes):,} "
        "classes of intersection over union, and of Dice, at the resolution of the masks, with 95 % intervals over "
        f"images. On {told} The picture has some tested images, their masks, and what each row makes of them."
    )
    words = {name: "; ".join(dict.fromkeys(own)) for name, own in chosen.items()}
    return {
        "title": "How well classes of pixels can be told from the maps",
        "note": note,
        "columns": titles,
        **made,
        "per_class": {
            "columns": ["Dice (%)", "IoU (%)"],
            "rows": [
                {"name": name, "values": {"Dice (%)": {"value": float(dice[c])}, "IoU (%)": {"value": float(iou[c])}}}
                for c, name in enumerate(classes)
                if not iou[c].isnan()
            ],
        },
        "protocol": {"version": 1, "classifier": f"{by}, each image of the same weight", "seed": seed}
        | {"upsampling": "bilinear, to the pixels of the masks"}
        | ({} if steps else {"chosen": words, "tried": {"ridge": list(STRENGTHS), "prior": list(PRIORS)}}),
    }


def compared(titles: Sequence[str], values: Mapping[str, Tensor], seed: int) -> dict[str, Any]:
    """The rows of a table, of which the last is the run's own, and what that gains over the others.

    values: by name, for each title what `of_drawn` takes.
    """
    main = list(values)[-1]

    def cells(several: Tensor, bounds: tuple[float, float]) -> dict[str, dict[str, float]]:
        made = [of_drawn(own, bounds=bounds, seed=seed) for own in several]
        return {t: {"value": m.mean, "low": m.low, "high": m.high} for t, m in zip(titles, made, strict=True)}

    return {
        "rows": [{"name": name, "main": name == main, "values": cells(own, PERCENT)} for name, own in values.items()],
        "gains": {name: cells(values[main] - own, POINTS) for name, own in values.items() if name != main},
    }


def detection_table(
    rankings: Mapping[str, Sequence[Sequence[Ranking]]], classes: Sequence[str], group: Tensor, told: str, seed: int
) -> dict[str, Any]:
    """How well objects are found, as the table of a report; the last row is the run's own.

    rankings: of each seed and class, by what made the maps.  group: N.  told: who was tested and how, in sentences.
    """
    titles = ["AP50 (%)", "AP (%)"]
    often = drawn_often(len(group), seed=seed, group=group)
    each = {
        name: torch.stack([torch.stack([average_precision(one, often) for one in own]) for own in of_seeds])
        for name, of_seeds in rankings.items()
    }  # S x K x (1 + B) x T
    values = {name: 100 * torch.stack([own[..., 0], own.mean(3)]).nanmean(2) for name, own in each.items()}
    ours = 100 * list(each.values())[-1][:, :, 0].mean(0)  # K x T
    several = len(next(iter(rankings.values())))
    note = (
        f"Boxes of {len(classes):,} classes, found by a light head (FCOS, arXiv 1904.01355) on the encoder's maps: "
        "average precision at an intersection over union of 0.5, and its mean over 0.5 to 0.95 as COCO has it, with "
        f"95 % intervals over images{f' and {several} seeds of the head' if several > 1 else ''}. On {told}"
    )
    return {
        "title": "How well objects can be found in the maps",
        "note": note,
        "columns": titles,
        **compared(titles, values, seed),
        "per_class": {
            "columns": ["AP (%)", "AP50 (%)"],
            "rows": [
                {"name": name, "values": {"AP (%)": {"value": float(own.mean())}, "AP50 (%)": {"value": float(own[0])}}}
                for name, own in zip(classes, ours, strict=True)
                if not own.isnan().any()
            ],
        },
        "protocol": {"version": 1, "boxes of an image": MOST, "seed": seed},
    }


def segments(rows: Sequence[Sequence[Tensor]], names: Sequence[str], side: int = 120) -> str:
    """Images with label maps beside them, as one picture in a data URI.

    rows: of each image, C x h x w uint8 in the first place and label maps H x W behind it.  names: of the maps.
    """
    sheet = torch.full((3, len(rows) * (side + 6) - 6, (len(names) + 2) * (side + 6) - 6), 255, dtype=torch.uint8)
    for r, parts in enumerate(rows):
        for c, part in enumerate(parts):
            picture = part[:3] if part.ndim == 3 else COLORS[part.clamp(min=0) % len(COLORS)].permute(2, 0, 1)
            if len(picture) < 3:
                picture = picture[:1].expand(3, -1, -1)
            height, width = picture.shape[1:]
            scale = side / max(height, width)
            shape = (max(1, round(height * scale)), max(1, round(width * scale)))
            small = F.interpolate(picture[None].float(), shape, mode="nearest")[0].to(torch.uint8)
            top, left = r * (side + 6), c * (side + 6)
            sheet[:, top : top + shape[0], left : left + shape[1]] = small
    return data_uri(sheet)


RECALLS = (1, 5)


def instances_table(
    found: Mapping[str, Tensor],
    label: Tensor,
    image: Tensor,
    classes: Sequence[str],
    gallery: int,
    group: Tensor,
    told: str,
    seed: int,
) -> dict[str, Any]:
    """How well objects find those of their class, as the table of a report; the last row is the run's own.

    found: of Q objects, as `nearfar.evaluation.retrieval.per_query` gives it for RECALLS, by what made their rows.
    label: Q.  image: Q, of which of N tested images each is.  gallery: objects among which is looked.  group: N.
    """
    titles = [*(f"recall@{k} (%)" for k in RECALLS), "mAP (%)"]
    often = drawn_often(len(group), seed=seed, group=group)[:, image]  # 1 + B x Q
    each = {}
    for name, rows in found.items():
        numbers = 100 * torch.cat([rows[:, 4:], rows[:, :1]], 1)  # Q x 3
        known = ~numbers.isnan().any(1)
        own = [(label == c) & known for c in range(len(classes))]
        each[name] = torch.stack([often[:, of] @ numbers[of] / often[:, of].sum(1, keepdim=True) for of in own], 1)
    values = {name: own.nanmean(1).T[:, None] for name, own in each.items()}  # 3 x 1 x (1 + B)
    ours = list(each.values())[-1][0]
    note = (
        f"Each of {len(label):,} objects looks among {gallery:,} of other images for those of its class, by the cosine "
        "of the means of the last maps over their boxes, less the mean of all: the share of objects that have one of "
        f"their class among the first {' or '.join(map(str, RECALLS))}, and the mean average precision; the mean over "
        f"{len(classes):,} classes, with 95 % intervals over images. On {told}"
    )
    return {
        "title": "How well objects find those of their class",
        "note": note,
        "columns": titles,
        **compared(titles, values, seed),
        "per_class": {
            "columns": titles[::-1],
            "rows": [
                {"name": name, "values": {t: {"value": float(v)} for t, v in zip(titles, own, strict=True)}}
                for name, own in zip(classes, ours, strict=True)
                if not own.isnan().any()
            ],
        },
        "protocol": {
            "version": 1,
            "similarity": "cosine, less the mean of the gallery",
            "depth": "the last",
            "seed": seed,
        },
    }


def correspondence_table(
    shares: Mapping[str, Tensor],
    chance: Tensor,
    grid: tuple[int, int],
    group: Tensor,
    seen: int,
    how_seen: str,
    seed: int,
) -> dict[str, Any]:
    """How often places are found again, as the table of a report; the last row is the run's own.

    shares: of each image, N, NaN where none could be, by what made the maps.  chance: N.  grid: cells of the maps.
    seen: images that were in training, how_seen: in what way, `Run.seen_how`.
    """
    there = ~chance.isnan()
    often = drawn_often(int(there.sum()), seed=seed, group=group[there])
    values = {name: 100 * (often @ own[there].double() / often.sum(1))[None] for name, own in shares.items()}
    random = 100 * float(chance[there].mean())
    note = (
        f"Two overlapping crops of each of {int(there.sum()):,} images, with {grid[0]} x {grid[1]} cells each: the "
        "share of cells of the first whose nearest cell in the second, by cosine, is that of the same place or beside "
        "it (correct keypoints within one cell), with 95 % intervals over images; a cell at random is so in "
        f"{random:.1f} %."
    )
    note += f" {seen:,} of the images were in training{how_seen}." if seen else " No image was in training."
    return {
        "title": "How well the maps know a place again",
        "note": note,
        "columns": ["found again (%)"],
        **compared(["found again (%)"], values, seed),
        "chance": {"found again (%)": random},
        "seen": {"samples": seen, "of": len(chance)},
        "protocol": {
            "version": 1,
            "similarity": "cosine, less the mean of each channel",
            "depth": "the last",
            "seed": seed,
        },
    }
