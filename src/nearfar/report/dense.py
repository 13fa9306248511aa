"""What was measured of places in samples, as tables and pictures of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.tiles import data_uri
from nearfar.evaluation.intervals import of_statistic
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
) -> dict[str, Any]:
    """How well classes of pixels are told, as the table of a report; the last row is the run's own.

    counts: of each tested image, N x K x K, as `nearfar.evaluation.segmentation.confusion` gives them, by what made the
    maps.  chosen: what each split chose, in words.  group: N.  told: who was tested, in sentences.
    """
    titles = ["mIoU (%)", "Dice (%)"]

    def statistic(name: str, which: int) -> Callable[[Tensor], Tensor]:
        own = counts[name].flatten(1)
        return lambda often: 100 * overlaps((often @ own).view(-1, *counts[name].shape[1:]))[which].nanmean(1)

    main, n = list(counts)[-1], len(group)
    rows, gains = [], {}
    for name in counts:
        cells, gain = {}, {}
        for k, title in enumerate(titles):
            own, ours = statistic(name, k), statistic(main, k)
            cells[title] = of_statistic(own, n, seed=seed, group=group)._asdict()
            gain[title] = of_statistic(
                lambda often, own=own, ours=ours: ours(often) - own(often), n, seed=seed, group=group
            )._asdict()
        words = list(dict.fromkeys(chosen[name]))
        rows.append(
            {"name": name, "main": name == main, "values": _celled(cells), "chosen": dict.fromkeys(titles, words)}
        )
        if name != main:
            gains[name] = _celled(gain)
    iou, dice = (100 * part for part in overlaps(counts[main].sum(0)))
    note = (
        f"The class of each pixel, told by a linear discriminant of frozen maps: the mean over {len(classes):,} "
        "classes of intersection over union, and of Dice, at the resolution of the masks, with 95 % intervals over "
        f"images. On {told} The picture has some tested images, their masks, and what each row makes of them."
    )
    return {
        "title": "How well classes of pixels can be told from the maps",
        "note": note,
        "columns": titles,
        "rows": rows,
        "gains": gains,
        "per_class": {
            "columns": ["Dice (%)", "IoU (%)"],
            "rows": [
                {"name": name, "values": {"Dice (%)": {"value": float(dice[c])}, "IoU (%)": {"value": float(iou[c])}}}
                for c, name in enumerate(classes)
                if not iou[c].isnan()
            ],
        },
        "protocol": {
            "version": 1,
            "classifier": "linear discriminant with a ridge, each image of the same weight",
            "upsampling": "bilinear, to the pixels of the masks",
            "chosen": {name: "; ".join(dict.fromkeys(words)) for name, words in chosen.items()},
            "tried": {"ridge": list(STRENGTHS), "prior": list(PRIORS)},
            "seed": seed,
        },
    }


def _celled(cells: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {title: {"value": cell["mean"], "low": cell["low"], "high": cell["high"]} for title, cell in cells.items()}


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
