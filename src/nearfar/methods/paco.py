from __future__ import annotations

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses.parametric import parametric
from nearfar.method import Encoder, Step
from nearfar.methods.moco import MoCo
from nearfar.nn.heads import LinearClassifier, paco_head
from nearfar.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, UnitInterval


class PaCo(MoCo):
    """Trains a classifier by contrasting each query with learned class centers, the batch and MoCo's queue.

    Every class has one center, where pairs favor frequent classes. b: classifier logits plus log class frequencies.

        loss_i = log D_i - (beta b_iy + alpha sum_p s_ip) / (beta + alpha |P_i|)
        D_i = sum_c exp(b_ic) + gamma sum_{j != i} exp(s_ij),    s_ij = q_i . k_j / temperature

    Use it to classify when some classes are rare; it is trained in one stage, at the cost of MoCo.
    Note: Samples without a label are contrasted with samples only. The queue begins as random unit rows without labels;
    the released code has far shorter rows and random labels. Left out: the classifier's momentum copy, which nothing
    reads; AutoAugment and Cutout.

    Args:
        dim: Width of the embedding; 32 in the paper for CIFAR.
        queue: Number of earlier keys.
        momentum: Momentum of the key encoder.
        temperature: Divides the similarities; 0.05 for CIFAR.
        alpha: Weight of each positive sample; 0.01 for CIFAR.
        beta: Weight of the class center.
        gamma: Weight of the samples in D.
        scale: Divides the logits b.
        prior: Add the log class frequency to b in training; `classify` leaves it out.
        splits: Parts of the batch that batch norm sees separately, as in MoCo; 1 on one device there.

    Cui et al. 2021, "Parametric Contrastive Learning", arXiv 2107.12028.
    """

    title = "PaCo: Parametric Contrastive Learning (Cui et al. 2021)"
    family = "supervised"
    needs_labels = True
    classifies = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        counts: tuple[int, ...],
        dim: PositiveInt = 128,
        queue: PositiveInt = 8192,
        momentum: UnitInterval = 0.999,
        temperature: PositiveFloat = 0.2,
        alpha: NonNegativeFloat = 0.05,
        beta: NonNegativeFloat = 1.0,
        gamma: NonNegativeFloat = 1.0,
        scale: PositiveFloat = 1.0,
        prior: bool = True,
        splits: PositiveInt = 8,
    ) -> None:
        parts = {"projector": paco_head(encoder.dim, out=dim), "labeled": True}
        moco = {"dim": dim, "queue": queue, "momentum": momentum, "temperature": temperature, "splits": splits}
        super().__init__(encoder, **parts, **moco)
        self.classifier = LinearClassifier(encoder.dim, counts, prior=prior)
        self.weights = {"alpha": alpha, "beta": beta, "gamma": gamma}
        self.scale = scale

    def forward(self, batch: Batch) -> Step:
        v1, v2 = batch.views
        h = self.embed(v1)
        q, b = normalize(self.projector(h)), self.classifier.balanced(h) / self.scale
        k = self.key(v2)
        queue = self.queue.keys, self.queue.label, self.queue.group
        loss = parametric(q, b, batch.label, k, queue, temperature=self.temperature, group=batch.group, **self.weights)
        return Step(loss, carry=([k], batch))

    def chance(self, batch: Batch) -> None:
        """None: logits of centers are no similarities, and stand beside them."""
