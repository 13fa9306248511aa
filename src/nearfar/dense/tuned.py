"""An encoder trained on masks together with a linear head, from end to end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.batch import MISSING
from nearfar.data.masks import Masks
from nearfar.dense.scene import Scene
from nearfar.evaluation.segmentation import Grid
from nearfar.method import Encoder

RATE, OWN_RATE, BATCH = 1e-2, 1e-3, 4
"""The learning rate of the head, that of the encoder, and images a step."""


class PixelHead(nn.Module):
    """A linear map of the maps of every depth, whose scores are added up at the pixels. dims: channels of each."""

    def __init__(self, dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.depths = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(dim), nn.Conv2d(dim, classes, 1)) for dim in dims)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The scores in the cells of each depth: n x K x h x w."""
        return [depth(m) for depth, m in zip(self.depths, maps, strict=True)]


def at_pixels(scores: Sequence[Tensor], grid: Grid) -> Tensor:
    """The scores of one image, K x h x w of each depth, at the pixels of its mask: K x H x W."""
    return torch.stack([grid.upsampled(d, s) for d, s in enumerate(scores)]).sum(0)


def trained(
    encoder: Encoder, scene: Scene, truth: Masks, learned: Tensor, steps: int, seed: int
) -> Callable[[Tensor], list[Tensor]]:
    """A copy of the encoder and a head, trained by cross-entropy at the pixels of masks, each image of the same weight.
    Gives a function of positions that tells the scores at the pixels of each: K x H x W."""
    own = copy.deepcopy(encoder).cpu().eval()  # norms keep their statistics
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        head = PixelHead([m.shape[1] for m in own.maps(scene.whole.view(learned[:1]))], len(truth.classes))
    groups = [{"params": list(head.parameters()), "lr": RATE}, {"params": list(own.parameters()), "lr": OWN_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [RATE, OWN_RATE], total_steps=steps)
    order = torch.empty(0, dtype=torch.int64)
    tell = partial(_tell, own, head, scene, truth)
    for _ in range(steps):
        while len(order) < BATCH:
            order = torch.cat([order, learned[torch.randperm(len(learned), generator=generator)]])
        rows, order = order[:BATCH], order[BATCH:]
        masks = [truth.classed(int(i)) for i in rows]
        losses = [
            F.cross_entropy(scores[None], mask[None], ignore_index=MISSING)
            for scores, mask in zip(tell(rows), masks, strict=True)
            if bool((mask != MISSING).any())
        ]
        if losses:
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
        schedule.step()
    head.eval()
    return torch.no_grad()(tell)


def _tell(encoder: Encoder, head: PixelHead, scene: Scene, truth: Masks, index: Tensor) -> list[Tensor]:
    maps = encoder.maps(scene.whole.view(index).to(next(encoder.parameters()).device))
    scores, told = head([m.float().cpu() for m in maps]), []
    for row, i in enumerate(index.tolist()):
        height, width = truth.numbers(i).shape
        grid = Grid.of([m[row] for m in maps], scene.whole.extent(i), scene.whole.side, (height, width))
        told.append(at_pixels([s[row] for s in scores], grid))
    return told
