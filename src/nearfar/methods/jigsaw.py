from __future__ import annotations

import math

from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.losses.prediction import classify, solved
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import mlp
from nearfar.ops.patches import PatchHead, alike, cut, drawn, each_patch, permutations, shuffle
from nearfar.ranges import AtLeastTwo, NonNegativeInt, PositiveInt, PositiveShare


class Jigsaw(Method):
    """Predicts which of a fixed list of permutations shuffled the tiles of an image.

    The encoder sees each tile alone; only the head sees them together. With tiles t_1 ... t_9 and a list of P
    permutations far from each other, one drawn for each sample,

        L = -log softmax(head[f(t_order(1)), ..., f(t_order(9))])_order

    Use it when parts and their arrangement matter and batches must be small. Nine small passes cost up to twice
    SimCLR's two. Tiles are smaller than the images that the encoder sees later, which costs accuracy. Only the first
    view is used.
    Note: Two shortcuts are closed: each tile is a crop at a random place in its cell, and `alike` equalizes brightness.
    The classifier is smaller than the paper's 4096 and has no dropout.

    Args:
        grid: Cells along a side; use 2 for images of 32 px, which gives 24 permutations.
        orders: Length P of the list, or all permutations if there are fewer.
        share: Side of a tile over the side of its cell.
        side: Side of the tiles given to the encoder, in pixels; 0 keeps them as cut, but at least 16.
        alike: Bring the tiles of an image to one mean and standard deviation.
        code: Width of a tile's code.
        hidden: Width of the classifier.

    Noroozi and Favaro 2016, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
    arXiv 1603.09246.
    """

    title = "Jigsaw: Unsupervised Learning by Solving Jigsaw Puzzles (Noroozi and Favaro 2016)"
    family = "pretext tasks"
    needs_pixels = True
    permutations: Tensor  # P x grid**2

    def __init__(
        self,
        encoder: Encoder,
        *,
        grid: AtLeastTwo = 3,
        orders: AtLeastTwo = 100,
        share: PositiveShare = 0.85,
        side: NonNegativeInt = 0,
        alike: bool = True,
        code: PositiveInt = 128,
        hidden: PositiveInt = 512,
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

    def chance(self, batch: Batch) -> float:
        return math.log(len(self.permutations))
