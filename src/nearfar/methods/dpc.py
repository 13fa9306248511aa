from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.batch import Batch
from nearfar.errors import UserError
from nearfar.losses.patchwise import info_nce_parts
from nearfar.method import Encoder, Method, Stage, Step, equal_rows, frozen_statistics
from nearfar.nn.forecast import Forecast
from nearfar.ops.frames import cut_in_time
from nearfar.ops.patches import each_patch
from nearfar.ranges import AtLeastTwo, PositiveInt


class DPC(Method):
    """Predicts what comes next in a video, at each place, against all places and times of the batch.

    A clip is cut into blocks of frames, whose maps pass through the encoder separately; z are their cells. From the
    first blocks a recurrent network predicts the cells of the last ones, p, one after the other. j runs over the cells
    of all blocks that are predicted, of all videos:

        L = mean over cells and blocks of  -p_i . z_i + log sum_j exp(p_i . z_j)

    Use it on videos in which motion goes on for some seconds, when it matters where things are. All blocks together
    cost one view of SimCLR's two. `--clip-frames` should be 4 times the number of blocks or more: of kernels over time
    that reach beyond a block only the middle learns. Only the first view is used. `nearfar evaluate --future` tells how
    often what comes next is found.
    Note: As in the paper there is no temperature and nothing is normalized. The map of a block is its mean over time,
    of so many cells a side at most, and a linear layer stands where the paper takes the last features before their
    ReLU. The paper recolors each frame by itself (`--frame-colors`), and represents a clip by the state of the
    recurrent network; here it is by the encoder alone.

    Args:
        blocks: Blocks of a clip.
        steps: How many of them, the last ones, are predicted.
        cells: Cells of a map along a side, at most.
        width: Width of a cell, and of the state.

    Han et al. 2019, "Video Representation Learning by Dense Predictive Coding", arXiv 1909.04656.
    """

    title = "DPC: Video Representation Learning by Dense Predictive Coding (Han et al. 2019)"
    family = "in-batch negatives"
    needs_frames = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        blocks: AtLeastTwo = 8,
        steps: PositiveInt = 3,
        cells: PositiveInt = 4,
        width: PositiveInt = 256,
    ) -> None:
        super().__init__(encoder)
        *lower, top = encoder.stages()
        if steps >= blocks:
            raise UserError(f"of {blocks} blocks {steps} are to be predicted, and none is left to see: fewer --steps")
        if any(p.requires_grad for p in top.parameters()):
            raise UserError("dpc trains the maps of the encoder alone, and this one has weights behind them: over_time")
        self.cell = nn.Linear(lower[-1].dim, width)
        self.forecast = Forecast(width, steps)
        self.blocks, self.steps, self.cells = blocks, steps, cells

    def forward(self, batch: Batch) -> Step:
        view = batch.views[0]
        if self.representations is not None:
            with torch.no_grad(), frozen_statistics(self):
                self.embed(view)
        z = self.look(view)  # N x B x S x width
        seen, future = z.split([self.blocks - self.steps, self.steps], 1)
        p = self.forecast(seen)
        return Step(self.loss(p.flatten(0, 2), future.flatten(0, 2), batch.group))

    def look(self, view: Tensor) -> Tensor:
        """The cells of each block: N x B x S x width."""
        *lower, _ = self.encoder.stages()
        trunk = Stage(*lower, dim=lower[-1].dim)

        def cells(block: Tensor) -> Tensor:
            maps = self.embed(block, trunk).mean(2)  # n x C x H x W
            small = F.adaptive_avg_pool2d(maps, (min(self.cells, maps.shape[2]), min(self.cells, maps.shape[3])))
            return small.flatten(1)

        flat = each_patch(cells, cut_in_time(view, self.blocks))  # N x B x CS
        return self.cell(flat.unflatten(2, (self.cell.in_features, -1)).mT)

    def loss(self, p: Tensor, z: Tensor, group: Tensor | None) -> Tensor:
        return info_nce_parts(p, z, torch.arange(len(p), device=p.device), group=group)

    def chance(self, batch: Batch) -> Tensor:
        with frozen_statistics(self):
            cells = self.steps * self.look(batch.views[0][:1]).shape[2]
        same = equal_rows(batch).repeat_interleave(cells, 0)
        return self.loss(same, same, batch.group)
