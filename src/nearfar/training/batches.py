"""The batches of a run: which samples, in which order, and the views that are made of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar import distributed
from nearfar.batch import MISSING, Batch, tensors, to
from nearfar.data import samplers
from nearfar.data.source import Source, Views
from nearfar.errors import UserError
from nearfar.method import Method, derive_seed
from nearfar.training.feeder import Feeder
from nearfar.training.options import Loop


class Batches:
    """This rank's batch of each step, on the device of the method. To be used as a context.

    The order of an epoch follows from (seed, epoch), the draws of the views from (seed, step), for the global batch:
    neither depends on the number of processes.
    """

    def __init__(self, method: Method, data: Source, views: Views, loop: Loop) -> None:
        size, ranks, rank = len(data), distributed.world(), distributed.rank()
        if loop.batch % ranks or not ranks <= loop.batch <= size:
            raise UserError(f"a batch of {loop.batch} of {size} samples cannot be shared by {ranks} processes")
        self.method, self.data, self.views, self.loop = method, data, views, loop
        self.per_epoch = size // loop.batch
        self.steps = loop.epochs * self.per_epoch
        self.mine = slice(rank * loop.batch // ranks, (rank + 1) * loop.batch // ranks)
        self.device = next(method.parameters()).device
        self.tried = False  # whether views were looked at: once, as each look waits for the device
        self.has_groups, self.has_attributes = (bool((x != MISSING).any()) for x in (data.group, data.attribute))
        # Who is drawn by what a method writes before an epoch is known only when the epoch begins.
        self.ahead_across_epochs = type(method).identities is Method.identities
        self.feeder = Feeder(
            data,
            batch=loop.batch,
            seed=loop.seed,
            mine=self.mine,
            device=self.device,
            order=self._order,
            lost=loop.lost,
            read=self._read if hasattr(views, "read") else None,
        )
        self.stand_ins = self.feeder.stand_ins

    def __enter__(self) -> Batches:
        self.feeder.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.feeder.__exit__(*error)

    @torch.no_grad()
    def __call__(self, step: int) -> Batch:
        done = step + 1
        more = done < self.steps and (self.ahead_across_epochs or done % self.per_epoch != 0)
        rows, inputs, twice = self.feeder(step, more=more)
        inputs = tuple(to(part, self.device, non_blocking=True) for part in inputs)
        views = self.views(*inputs, draws=self._draws(step))
        if not self.tried and not all(part.isfinite().all() for view in views for part in tensors(view)):
            raise UserError("the views of the first batch hold NaN or infinite numbers: look at what makes them")
        self.tried = True
        group = self.data.group[rows] if self.has_groups or twice else None
        if group is not None and twice:  # each sample is a group of its own, so that one is not its own negative
            group = torch.where(group == MISSING, self.data.group.max() + 1 + rows, group)
        group = None if group is None else group.to(self.device)
        attribute = self.data.attribute[rows].to(self.device) if self.has_attributes else None
        places = None
        if self.method.needs_places:
            places = self.views.places(*inputs, draws=self._draws(step))  # pyright: ignore[reportAttributeAccessIssue]
        return Batch(views, rows.to(self.device), self.data.label[rows].to(self.device), group, attribute, places)

    def _draws(self, step: int) -> Any:
        """Those behind the views of a step, of this rank's samples."""
        generator = torch.Generator().manual_seed(derive_seed(self.loop.seed, step, 1))
        return self.views.draw(self.loop.batch, generator).rows(self.mine)

    def _read(self, inputs: tuple[Any, ...], step: int) -> tuple[Any, ...]:
        return self.views.read(*inputs, draws=self._draws(step))  # pyright: ignore[reportAttributeAccessIssue]

    def _order(self, generator: torch.Generator) -> Tensor:
        identities = self.method.identities()
        return samplers.order(
            self.loop.sampler or self.method.sampler,
            self.data.label if identities is None else identities,
            batch=self.loop.batch,
            steps=self.per_epoch,
            per_class=self.loop.per_class or self.method.per_class,
            generator=generator,
        )
