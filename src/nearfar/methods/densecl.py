from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.dense import info_nce_cells, most_alike
from nearfar.memory.queue import Queue
from nearfar.method import Encoder, Step, equal_rows
from nearfar.methods.moco import MoCo
from nearfar.nn.heads import moco_v1_head, moco_v2_head
from nearfar.nn.momentum import follow, momentum_copy
from nearfar.ranges import UnitInterval


class DenseCL(MoCo):
    """Adds to MoCo the same contrast for each cell of the last map, with the most similar cell of the other view.

    f, g: the cells of the maps of both views; q, k: what dense projectors make of them; Q: a queue of mean cells:

        m(s) = argmax_t cos(f_s, g_t)
        dense = mean over cells s of  -q_s . k_m(s) / t + log(exp(q_s . k_m(s) / t) + sum_Q exp(q_s . k / t))
        loss = (1 - weight) moco + weight dense

    Use it where the encoder is to tell what is where, as for detection and segmentation, or images show several things.
    It costs MoCo's step and a product of each cell with the queue. Maps of few cells, as small images have, gain
    little. `nearfar embed --patches` writes the maps.
    Note: A dense projector is a network of each cell, which is what 1x1 convolutions are, as wide within as the cells.

    Args:
        weight: Share of the dense loss, 0 to 1. 0 is MoCo.

    Wang et al. 2021, "Dense Contrastive Learning for Self-Supervised Visual Pre-Training", arXiv 2011.09157.
    """

    title = "DenseCL: Dense Contrastive Learning for Self-Supervised Visual Pre-Training (Wang et al. 2021)"
    needs_pixels = needs_maps = True

    def __init__(self, encoder: Encoder, *, weight: UnitInterval = 0.5, **moco: Any) -> None:
        super().__init__(encoder, **moco)
        size, dim = self.queue.keys.shape
        make = moco_v1_head if moco.get("head") == "linear" else moco_v2_head
        self.dense = make(encoder.map_dim, out=dim)
        self.slow_dense, self.dense_queue, self.weight = momentum_copy(self.dense), Queue(size, dim), weight

    def query(self, view: Any) -> Tensor:
        row, cells = self.embed_cells(view)
        return _packed(normalize(self.projector(row)), self.dense(cells.flatten(0, 1)), cells)

    @torch.no_grad()
    def slow_rows(self, view: Any) -> Tensor:
        row, cells = self.embed_cells(view, self.slow.encoder)
        return _packed(normalize(self.slow.projector(row)), self.slow_dense(cells.flatten(0, 1)), cells)

    def parts(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `query` and `key` give, apart: N x dim; the dense rows, N x S x dim; and the cells, N x S x width."""
        dim = self.queue.keys.shape[1]
        whole, cells = rows[:, :dim], rows[:, dim:].unflatten(1, (-1, dim + self.encoder.map_dim))
        return whole, cells[:, :, :dim], cells[:, :, dim:]

    def loss(self, q: Tensor, k: Tensor, batch: Batch) -> Tensor:
        (q, q_dense, f), (k, k_dense, g) = self.parts(q), self.parts(k)
        groups = None if batch.group is None else (batch.group, self.dense_queue.group)
        dense = info_nce_cells(
            normalize(q_dense),
            normalize(k_dense),
            most_alike(f, g),
            self.dense_queue.keys,
            temperature=self.temperature,
            groups=groups,
        )
        return (1 - self.weight) * super().loss(q, k, batch) + self.weight * dense

    def after_step(self, step: Step) -> None:
        views, batch = step.carry
        keys = [self.parts(rows) for rows in views]
        super().after_step(Step(step.loss, carry=([whole for whole, _, _ in keys], batch)))
        follow(self.slow_dense, self.dense, self.momentum)
        for _, dense, _ in keys:
            self.dense_queue.enqueue(normalize(dense.mean(1)), batch.group)

    def chance(self, batch: Batch) -> Tensor | None:
        q = equal_rows(batch, self.queue.keys.shape[1])
        return super().loss(q, q, batch)  # of cells it is the same


def _packed(whole: Tensor, dense: Tensor, cells: Tensor) -> Tensor:
    """One row of each sample, as keys are shuffled among ranks: N x (dim + S (dim + width))."""
    return torch.cat([whole, torch.cat([dense.unflatten(0, cells.shape[:2]), cells], 2).flatten(1)], 1)
