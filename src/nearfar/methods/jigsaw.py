from __future__ import annotations

import math

from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.losses.prediction import classify, solved
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import mlp
from nearfar.ops.patches import PatchHead, alike, cut, drawn, each_patch, permutations, shuffle


class Jigsaw(Method):
    """The network tells into which of many orders the tiles of an image were shuffled.

    To tell it must know parts and how they lie to each other. The tiles pass one network apart; only the head sees
    them together. With tiles t_1 ... t_9 and a fixed list of P orders far from each other, one drawn for each sample,

        L = -log softmax(head[f(t_order(1)), ..., f(t_order(9))])_order

    Use it when what matters is in parts and their places, and batches must be small. Nine small passes cost about one
    to two of SimCLR's two; tiles are smaller than the images that the encoder serves later, which costs accuracy.
    Edges that fit, and the level of light, would give the answer away: a tile is a part of its cell at a random place,
    and all tiles of an image get one mean and spread. The colors are those of the views. Only the first is used.

    grid: cells along a side; 2 for images of 32 px, which have 24 orders.  orders: length of the list P, or all there
    are.  share: side of a tile over that of its cell.  side: of the tiles as the encoder gets them, in pixels; 0 leaves
    them as they are cut, but never below 16.  alike: bring the tiles of an image to one mean and spread.
    code, hidden: widths of a tile's code and of the classifier.

    Noroozi and Favaro 2016, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
    arXiv 1603.09246. The classifier is smaller than the paper's 4096, and has no dropout.
    """

    family = "pretext"
    needs_pixels = True
    permutations: Tensor  # P x grid**2

    def __init__(
        self,
        encoder: Encoder,
        *,
        grid: int = 3,
        orders: int = 100,
        share: float = 0.85,
        side: int = 0,
        alike: bool = True,
        code: int = 128,
        hidden: int = 512,
    ) -> None:
        super().__init__(encoder)
        self.register_buffer("permutations", permutations(grid**2, orders).clone(), persistent=False)
        tile = nn.Sequential(nn.Linear(encoder.dim, code), nn.ReLU())
        whole = mlp((grid**2 * code, hidden, len(self.permutations)), norm=False, bias=True, last_bias=True)
        self.head = PatchHead(tile, whole)
        self.grid, self.share, self.side, self.alike = grid, share, side, alike

    def forward(self, batch: Batch) -> Step:
        view = batch.views[0]
        tiles = cut(view, self.grid, share=self.share, side=self.side, generator=self.clock.generator())
        if self.alike:
            tiles = alike(tiles, view)
        order = self.draw(len(view)).to(view.device)
        codes = each_patch(self.embed, shuffle(tiles, self.permutations[order]))  # N x grid**2 x encoder.dim
        logits = self.head(codes)  # N x P
        return Step(classify(logits, order), {"solved": solved(logits, order)})

    def draw(self, n: int) -> Tensor:
        return (len(self.permutations) * drawn(n, generator=self.clock.generator(1))).long()

    def chance(self, batch: int) -> float:
        return math.log(len(self.permutations))
