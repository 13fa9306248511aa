from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.batch import MISSING, Batch
from nearfar.distributed import normalize, share
from nearfar.losses.open_world import divergence, unfamiliar, unlabeled_shares
from nearfar.losses.supervised import supcon
from nearfar.memory.prototypes import MovingPrototypes
from nearfar.method import Encoder, Method, Step
from nearfar.nn.heads import supcon_head
from nearfar.ranges import NonNegativeFloat, NonNegativeInt, Percent, PositiveFloat, PositiveInt, UnitInterval


class OpenCon(Method):
    """Learns known classes from labels and discovers new classes among the unlabeled samples by class prototypes.

    Every class, labeled or new, has a prototype mu_c, the moving mean of its samples; the nearest one names the class.
    A sample looks new if it is less similar to each labeled class than most labeled samples are. L_u, L_l and L_n are
    SupCon losses: on unlabeled samples with their views as positives, on labeled ones by label, on new-looking ones by
    prototype:

        L = lambda_u L_u + lambda_l L_l + lambda_n L_n + prior KL(p, q)

    p is the mean of softmax(10 z . mu) over unlabeled samples, q the class frequencies assumed for them.

    Use it when unlabeled data contain new classes; `assign` names the class of each sample. A step costs what SimCLR's
    costs, and two further losses on parts of the batch.
    Note: Rows move prototypes in the order of the batch. The paper trains the last stage of a SimCLR encoder
    (`--from-run RUN --train last`); without that, lower stages would stay random, so the default is "all".

    Args:
        novel: Number of new classes; better too many than too few.
        dim: Width of the embedding.
        tau_u: Temperature of L_u.
        tau_l: Temperature of L_l.
        tau_n: Temperature of L_n.
        lambda_u: Weight of L_u.
        lambda_l: Weight of L_l.
        lambda_n: Weight of L_n.
        rise: Epochs in which lambda_n rises from 0; half of training in the paper.
        prior: Weight of the divergence KL.
        ratio: Share of a labeled class that has labels; by default estimated, as if classes were equally large.
        percentile: Share of labeled samples, in %, that a new-looking sample must be less similar than.
        kept: Share of a prototype that stays when a row moves it.
        train: Part of the encoder that is trained: "all" or the "last" stage.

    Sun and Li 2022, "OpenCon: Open-world Contrastive Learning", arXiv 2208.02764.
    """

    title = "OpenCon: Open-world Contrastive Learning (Sun and Li 2022)"
    family = "supervised"
    needs_labels = True
    q: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        counts: tuple[int, ...],
        novel: PositiveInt = 5,
        dim: PositiveInt = 128,
        tau_u: PositiveFloat = 0.4,
        tau_l: PositiveFloat = 0.1,
        tau_n: PositiveFloat = 0.7,
        lambda_u: NonNegativeFloat = 1.0,
        lambda_l: NonNegativeFloat = 0.2,
        lambda_n: NonNegativeFloat = 0.1,
        rise: NonNegativeInt = 100,
        prior: NonNegativeFloat = 0.05,
        ratio: UnitInterval | None = None,
        percentile: Percent = 70.0,
        kept: UnitInterval = 0.9,
        train: Literal["all", "last"] = "all",
    ) -> None:
        super().__init__(encoder)
        if train == "last":
            top = [stage for stage in encoder.stages() if any(True for _ in stage.parameters())][-1]
            encoder.requires_grad_(False)
            top.requires_grad_(True)
        self.projector = supcon_head(encoder.dim, out=dim)
        self.prototypes = MovingPrototypes(len(counts) + novel, dim)
        self.register_buffer("q", unlabeled_shares(samples, counts, novel, ratio))
        self.known, self.rise, self.percentile, self.kept = len(counts), rise, percentile, kept
        self.tau, self.weights, self.prior = (tau_u, tau_l, tau_n), (lambda_u, lambda_l, lambda_n), prior

    def forward(self, batch: Batch) -> Step:
        label, z = batch.label, self.project_all(batch.views)  # views of N x dim
        score = self.prototypes(z[0])  # N x classes + novel, of the first view for all
        guess, labeled = score.argmax(1), label != MISSING
        new = unfamiliar(score, labeled, known=self.known, percentile=self.percentile)
        parts = zip((torch.full_like(label, MISSING), label, guess), self.tau, (~labeled, labeled, new), strict=True)
        u, l, n = (supcon(z, y, temperature=t, group=batch.group, among=among) for y, t, among in parts)
        kl = divergence((10 * score).softmax(1), self.q, ~labeled)
        risen = min(1.0, self.clock.epoch / self.rise) if self.rise else 1.0
        loss = self.weights[0] * u + self.weights[1] * l + risen * self.weights[2] * n + self.prior * kl
        own = torch.where(labeled, label, torch.where(guess >= self.known, guess, MISSING))
        return Step(loss, {"new": share(new.float(), ~labeled), "divergence": kl.detach()}, carry=(z[0], own))

    @torch.no_grad()
    def assign(self, view: Any) -> Tensor:
        """The class of each sample of a view, new ones after the known: N, int64. Call `.eval()` first."""
        return self.prototypes(normalize(self.projector(self.embed(view)))).argmax(1)

    def after_step(self, step: Step) -> None:
        self.prototypes.follow(*step.carry, keep=self.kept)
