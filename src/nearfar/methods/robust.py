from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import Batch
from nearfar.distributed import local, world
from nearfar.losses.false_negatives import detected_columns, detection, find_alike, nt_xent_found, same_class
from nearfar.method import Encoder, Step, frozen_statistics
from nearfar.methods.simclr import SimCLR
from nearfar.ops.attacks import ascend, random_start


class Robust(SimCLR):
    """Each view finds its other view among the batch, less ever more of the rows that look most like its sample.

    Pushing samples of one class apart leaves classes little margin, and encoders easy to attack. So the rows most like
    a sample, probably of its class, do not push it: none at first, while likeness tells little, then more:

        loss_i = -s_ip + log(exp(s_ip) + sum_{j not in F_i} exp(s_ij))
        |F_i| <= rho min(1, max(0, (t - onset) / (full - onset))) of others' rows,    t: the share of training done

    Use it when attacks matter and the batch holds several samples of each class. It costs what SimCLR does; with
    `adversarial`, each step of the attack adds a third of that, and the look at clean views another.

    Reconstructed: of the paper the idea alone is known here; rule, schedule and numbers are not its own. Decided here:
    both views of a sample support it; F_i is found on clean views; the attack starts at random, takes steps of 2.5 eps
    / steps, holds the other view still and is not clipped to pixels; labels remove from the first step on.

    rho: largest share of the rows of others that is left out, below 1; 1 / classes where these are balanced.  onset,
    full: shares of training at which removal begins, and is complete.  threshold: least cosine of what is left out.
    score: "max" over both views, or "mean".  oracle: leave out the rows of the same class, by its labels, as the best
    detection would.  adversarial: attack the first view.  eps: largest change of a number.  steps: of the attack.

    Gupta, Akhtar and Mian 2022, "On Higher Adversarial Susceptibility of Contrastive Self-Supervised Learning",
    arXiv 2207.10862.
    """

    family = "negatives"

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int,
        rho: float = 0.1,
        onset: float = 0.1,
        full: float = 0.6,
        threshold: float = 0.0,
        score: Literal["max", "mean"] = "max",
        oracle: bool = False,
        adversarial: bool = False,
        eps: float = 8 / 255,
        steps: int = 5,
        **simclr: Any,
    ) -> None:
        super().__init__(encoder, **simclr)
        if not (0 <= rho < 1 and 0 <= onset < full <= 1):
            raise ValueError(f"wanted 0 <= rho < 1 and 0 <= onset < full <= 1, not {rho}, {onset} and {full}")
        if oracle and not classes:
            raise ValueError("oracle leaves out samples of the same class, and there are no labels: give some")
        self.rho, self.onset, self.full, self.eps, self.steps = rho, onset, full, eps, steps
        self.labeled, self.oracle, self.adversarial = classes > 0, oracle, adversarial
        self.alike = partial(find_alike, threshold=threshold, score=score)

    def most(self, samples: int) -> int:
        """How many rows may be left out for each sample at this step, of those of the others in the global batch."""
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
                found = self.find(clean, batch.label)
                v1 = self.attack(v1, lambda x: loss([*self.project_all([x]), clean[1]], found))
            z = self.project_all([v1, v2])
        else:
            z = self.project_all([v1, v2])
            found = self.find(z, batch.label)
        log = detection(detected_columns(found, batch.label, 2)) if self.labeled else {}
        return Step(loss(z, found), log)
