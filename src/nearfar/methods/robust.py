from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import local, world
from nearfar.errors import UserError
from nearfar.losses.false_negatives import detected_columns, detection, find_alike, nt_xent_found, same_class
from nearfar.method import Encoder, Step, equal_rows, frozen_statistics
from nearfar.methods.simclr import SimCLR
from nearfar.ops.attacks import ascend, random_start
from nearfar.ranges import Cosine, NonNegativeFloat, PositiveInt, ShareBelowOne, UnitInterval


class Robust(SimCLR):
    """Removes a growing share of likely false negatives from SimCLR's loss, to make encoders adversarially robust.

    Pushing samples of one class apart leaves small margins between classes. So the rows most similar to a sample, F_i,
    do not push it: none at first, while similarity means little, then more:

        loss_i = -s_ip + log(exp(s_ip) + sum_{j not in F_i} exp(s_ij))
        |F_i| <= rho min(1, max(0, (t - onset) / (full - onset))) of others' rows,    t: the share of training done

    Use it when attacks matter and a batch holds several samples of each class. It costs what SimCLR costs;
    `adversarial` adds a third of that for each attack step, and another third for clean views.
    Note: Reconstructed from the paper's idea; rule, schedule and numbers are unverified. Decided here: both views
    support a sample; F_i is found on clean views; the attack starts at random, steps by 2.5 eps / steps, keeps the
    other view fixed and is not clipped to pixels; `oracle` removes from the first step on.

    Args:
        rho: Largest share of the others' rows that is removed, below 1; 1 / classes if these are balanced.
        onset: Share of training at which removal begins.
        full: Share of training at which removal is complete.
        threshold: Cosine similarity above which a row may be removed; one just as high is not.
        score: Similarity to a sample: the "max" or the "mean" over both views.
        oracle: Remove the rows of the same class, by label, as an ideal detection would.
        adversarial: Attack the first view.
        eps: Largest change of a pixel by the attack.
        steps: Steps of the attack.

    Gupta, Akhtar and Mian 2022, "On Higher Adversarial Susceptibility of Contrastive Self-Supervised Learning",
    arXiv 2207.10862.
    """

    title = "Adversarially robust contrast by false-negative removal (Gupta, Akhtar and Mian 2022)"
    family = "negative weighting and selection"

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int,
        rho: ShareBelowOne = 0.1,
        onset: UnitInterval = 0.1,
        full: UnitInterval = 0.6,
        threshold: Cosine = 0.0,
        score: Literal["max", "mean"] = "max",
        oracle: bool = False,
        adversarial: bool = False,
        eps: NonNegativeFloat = 8 / 255,
        steps: PositiveInt = 5,
        **simclr: Any,
    ) -> None:
        super().__init__(encoder, **simclr)
        if onset >= full:
            raise UserError(f"removal begins at onset {onset} and is complete at full {full}: full must be larger")
        if oracle and not classes:
            raise UserError("oracle leaves out samples of the same class, and there are no labels: give some")
        self.rho, self.onset, self.full, self.eps, self.steps = rho, onset, full, eps, steps
        self.labeled, self.oracle, self.adversarial = classes > 0, oracle, adversarial
        self.alike = partial(find_alike, threshold=threshold, score=score)

    def most(self, samples: int) -> int:
        """Largest number of other samples' rows, in the global batch, that this step removes for each sample."""
        ramp = (self.clock.progress - self.onset) / (self.full - self.onset)
        return int(self.rho * min(1.0, max(0.0, ramp)) * 2 * (samples - 1))

    def find(self, z: list[Tensor], label: Tensor) -> Tensor:
        if self.oracle:
            return same_class(label, len(z))
        return self.alike(z, z, top=self.most(world() * len(label)))  # N x top

    def attack(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        first = local(random_start((world() * len(x), *x.shape[1:]), self.eps, self.clock.generator())).to(x)
        return ascend(loss, x, epsilon=self.eps, stride=2.5 * self.eps / self.steps, steps=self.steps, start=first)

    def forward(self, batch: Batch) -> Step:
        v1, v2 = batch.views
        loss = partial(nt_xent_found, temperature=self.temperature, group=batch.group)
        if self.adversarial:
            with frozen_statistics(self), torch.no_grad():
                clean = self.project_all([v1, v2])
                false_negatives = self.find(clean, batch.label)
                v1 = self.attack(v1, lambda x: loss([*self.project_all([x]), clean[1]], false_negatives))
            z = self.project_all([v1, v2])
        else:
            z = self.project_all([v1, v2])
            false_negatives = self.find(z, batch.label)
        log = detection(detected_columns(false_negatives, batch.label, 2)) if self.labeled else {}
        return Step(loss(z, false_negatives), log)

    def chance(self, batch: Batch) -> Tensor | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        z = [equal_rows(batch)] * 2
        loss = nt_xent_found(z, self.find(z, batch.label), temperature=self.temperature, group=batch.group)
        return loss if batch.group is None else None  # of equal rows any are found, of the group or not
