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


class OpenCon(Method):
    """Labeled views find their class, others their other view and, where they look new, those of the same prototype.

    Every class, labeled or new, has a prototype mu_c, the moving mean of its samples; the nearest names the class. A
    sample looks new if it is less like each labeled class than most labeled samples are. With SupCon L_u among what
    has no label, alike only as views, L_l among what has one, by it, and L_n among what looks new, by prototype:

        L = lambda_u L_u + lambda_l L_l + lambda_n L_n + prior KL(p, q)

    p is the mean of softmax(10 z . mu) over what has no label, q the shares that classes have of it.

    Use it where new classes hide in what has no label: `assign` names the class of each sample. A step costs what
    SimCLR's does, and two further losses on parts of the batch.

    Decided here: rows move prototypes in the order of the batch, which is random. The paper trains the last stage of
    what SimCLR has learned (`--from-run RUN --train last`); without that, stages below would stay random: so "all".

    novel: number of classes beside the labeled ones, rather too many.  dim: width of the embedding.  tau_u, tau_l,
    tau_n: temperatures.  lambda_u, lambda_l, lambda_n: weights.  rise: epochs in which the last of them rises from 0;
    half of training in the paper.  prior: weight of the divergence.  ratio: share of a labeled class that has labels;
    none counts it, as if classes were equally large.  percentile: share of the labeled samples, in %, that a sample
    must be less familiar than to look new.  kept: share of a prototype that stays when a row moves it.
    train: the whole encoder ("all") or its last stage ("last").

    Sun and Li 2022, "OpenCon: Open-world Contrastive Learning", arXiv 2208.02764.
    """

    family = "labels"
    needs_labels = True
    q: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        samples: int,
        counts: tuple[int, ...],
        novel: int = 5,
        dim: int = 128,
        tau_u: float = 0.4,
        tau_l: float = 0.1,
        tau_n: float = 0.7,
        lambda_u: float = 1.0,
        lambda_l: float = 0.2,
        lambda_n: float = 0.1,
        rise: int = 100,
        prior: float = 0.05,
        ratio: float | None = None,
        percentile: float = 70.0,
        kept: float = 0.9,
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
        """The class of each sample of a view, new ones after the known: N, int64. `.eval()` comes first."""
        return self.prototypes(normalize(self.projector(self.embed(view)))).argmax(1)

    def after_step(self, step: Step) -> None:
        self.prototypes.follow(*step.carry, keep=self.kept)
