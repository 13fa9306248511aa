from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize, total
from nearfar.errors import UserError
from nearfar.losses.mixture import mixture_nce
from nearfar.method import Encoder, Look, Step
from nearfar.methods.moco import MoCo
from nearfar.ranges import PositiveFloat, PositiveInt, UnitInterval


class MiCE(MoCo):
    """Learns clusters as a mixture of experts, each of which discriminates the images given to it as MoCo does.

    A gate pi assigns each image to experts. Expert k has an embedding f_k, a prototype mu_k and momentum keys v_k. The
    loss is the EM bound where it is tight, so its posterior names the cluster:

        loss = -log sum_k pi_k phi_k        phi_k = InfoNCE's probability of v_k, for the query f_k + mu_k
        pi = softmax_k(omega_k . g / kappa), with fixed omega_k as far apart as can be

    Use it when clusters are wanted and their number is known; `assign` names each sample's cluster. A step costs what
    MoCo's costs, with last layer, queue and loss once for each expert.
    Note: The views are for student, teacher and gate; of two, the gate sees the student's. A cluster that got no sample
    in an epoch keeps its prototype, which the released code sets to zero. Both were decided here. The queue begins as
    random unit rows for each expert; in the released code as numbers drawn evenly from +-sqrt(3 / dim), of about that
    length.

    Args:
        experts: Number of clusters, at most `dim`.
        dim: Width of the embeddings of each expert and of the gate.
        queue: Number of negatives.
        momentum: Momentum of the teacher.
        temperature: Divides the similarities; 1 in the paper, 0.5 in variants.
        kappa: Temperature of the gate; by default `temperature`, as in the released code.
        splits: Parts of the batch that batch norm sees separately, as in MoCo.

    Tsai et al. 2021, "MiCE: Mixture of Contrastive Experts for Unsupervised Image Clustering", arXiv 2105.01899.
    """

    title = "MiCE: Mixture of Contrastive Experts (Tsai et al. 2021)"
    family = "clustering"
    most_views = 0
    omega: Tensor
    sums: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        experts: PositiveInt = 10,
        dim: PositiveInt = 128,
        queue: PositiveInt = 16384,
        momentum: UnitInterval = 0.999,
        temperature: PositiveFloat = 1.0,
        kappa: PositiveFloat | None = None,
        splits: PositiveInt = 8,
    ) -> None:
        if not 1 <= experts <= dim:
            raise UserError(f"{experts} experts in {dim} dimensions; wanted 1 to {dim}: raise --dim")
        shape = {"dim": experts * dim, "queue": queue, "momentum": momentum, "splits": splits}
        super().__init__(encoder, temperature=temperature, head="linear", **shape)
        self.queue.keys.copy_(self.experts(self.queue.keys, experts).flatten(1))
        self.gate = nn.Linear(encoder.dim, dim)
        self.mu = nn.Parameter(normalize(torch.randn(experts, dim)))
        self.register_buffer("omega", normalize(torch.eye(experts, dim) - torch.eye(experts, dim).mean(0)))
        self.register_buffer("sums", torch.zeros(experts, dim))  # of the keys that each expert was given this epoch
        self.kappa = temperature if kappa is None else kappa

    @staticmethod
    def experts(x: Tensor, count: int) -> Tensor:
        """The embeddings of all experts, each of unit length: N x count*dim -> N x count x dim."""
        return normalize(x.reshape(len(x) * count, -1)).view(len(x), count, -1)

    def mixture(self, f: Tensor, g: Tensor, v: Tensor, group: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Loss and posterior, from the student's f: N x experts*dim, the gate's g: N x dim, and keys v."""
        count = len(self.mu)
        q = self.experts(f, count) + normalize(self.mu)  # N x experts x dim
        pi = (normalize(g) @ self.omega.T / self.kappa).log_softmax(1)  # N x experts
        groups = None if group is None else (group, self.queue.group)
        queue = self.queue.keys.unflatten(1, (count, -1))  # queue x experts x dim
        return mixture_nce(q, v, queue, pi, temperature=self.temperature, groups=groups)

    def forward(self, batch: Batch) -> Step:
        student, teacher, *third = batch.views
        seen = self.each(self.embed, [student, *third[:1]])  # 1 or 2 of N x encoder.dim
        v = self.experts(self.key(teacher), len(self.mu))
        loss, posterior = self.mixture(self.projector(seen[0]), self.gate(seen[-1]), v, batch.group)
        return Step(loss, carry=(v, posterior.argmax(1), batch))

    @torch.no_grad()
    def assign(self, view: Any) -> Tensor:
        """The cluster of each sample of a view, its likeliest expert: N, int64. Call `.eval()` first."""
        h, v = self.embed(view), self.experts(self.key(view), len(self.mu))
        return self.mixture(self.projector(h), self.gate(h), v)[1].argmax(1)

    def after_step(self, step: Step) -> None:
        v, cluster, batch = step.carry
        super().after_step(Step(step.loss, carry=([v.flatten(1)], batch)))
        given = nn.functional.one_hot(cluster, len(self.mu)).to(v.dtype)  # N x experts
        self.sums += total(torch.einsum("nk,nkd->kd", given, v))

    def before_epoch(self, look: Look) -> None:
        self.mu.copy_(torch.where(self.sums.any(1, keepdim=True), normalize(self.sums), self.mu))
        self.sums.zero_()
