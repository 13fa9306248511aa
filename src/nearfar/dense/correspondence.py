"""Whether an encoder's maps know a place again that they see in another crop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.digests import digests, fingerprint
from nearfar.dense.scene import Say, opened
from nearfar.evaluation.correspondence import crops, cut, found_again
from nearfar.method import Encoder
from nearfar.modalities.kind import Whole
from nearfar.owner import writes
from nearfar.ranges import PositiveInt, Seed, checked
from nearfar.report.dense import correspondence_table
from nearfar.run import Run


@writes
@checked
def correspond(
    run: Run, data: Any, *, size: PositiveInt = 256, seed: Seed = 0, say: Say = lambda text: None
) -> dict[str, Any]:
    """How often a cell of the encoder's last maps of one crop of an image finds the cell of the same place in another,
    by cosine, within one cell; beside raw pixels, the untrained encoder, and chance. No label is used. Images of the
    split test are measured where one is named.

    size: of the longer side of an image as the encoder sees it, in pixels.
    Writes results/correspondences-DATA-DIGEST.json and returns what it holds.
    """
    scene = opened(run, data, size, say)
    tested = scene.samples.of_split("test")
    if not tested.any():
        tested = torch.ones_like(tested)
    index, known = tested.nonzero()[:, 0], scene.known()
    encoders = scene.encoders()
    grid = _last(scene.run.encoder, scene.whole.view(index[:1])).shape[2:]
    looks = {run.kind.raw_name: partial(_pixels, grid=(grid[0], grid[1]))}
    looks |= {name: partial(_last, encoder) for name, encoder in encoders.items()}
    made = {name: again(look, scene.whole, index, seed) for name, look in looks.items()}
    table = correspondence_table(
        {name: share for name, (share, _) in made.items()},
        next(iter(made.values()))[1],
        (grid[0], grid[1]),
        scene.samples.group[index],
        int(known[index].sum()),
        run.seen_how,
        seed,
    )
    table["protocol"] |= {"side": scene.whole.side}
    return run.kept(
        table, "correspondences", data, [fingerprint(digests(scene.samples), scene.samples), str(size)], known
    )


@torch.no_grad()
def again(look: Callable[[Tensor], Tensor], whole: Whole, index: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The share of places of some images that are found again in another crop, and that by chance: N each.

    look: makes maps of views, n x C x side x side to n x D x h x w.  The crops of an image go by the seed and its turn.
    """
    generator, made = torch.Generator().manual_seed(seed), []
    for rows in index.split(16):
        view, boxes = whole.view(rows), crops([whole.extent(int(i)) for i in rows], generator)
        one, other = (look(cut(view, boxes[:, k])) for k in (0, 1))
        made.append(found_again(one, other, boxes))
    shares, chances = zip(*made, strict=True)
    return torch.cat(shares), torch.cat(chances)


def _last(encoder: Encoder, view: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder.maps(view.to(next(encoder.parameters()).device))[-1].float().cpu()


def _pixels(view: Tensor, grid: tuple[int, int]) -> Tensor:
    """The colors of 4 x 4 parts of each cell."""
    small = F.adaptive_avg_pool2d(view, (4 * grid[0], 4 * grid[1]))
    return F.pixel_unshuffle(small, 4)
