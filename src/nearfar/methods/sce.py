from __future__ import annotations

from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import normalize
from nearfar.losses import relational
from nearfar.method import Encoder
from nearfar.methods.moco import MoCo
from nearfar.nn.heads import mlp
from nearfar.nn.norms import split_norms


class SCE(MoCo):
    """Each query finds its key, made by a slow copy of the encoder, and is as like a queue of keys as that key is.

    The target of MoCo's softmax is not the key alone: a share of it goes to the keys of the queue Q that lie near it.
    With q of a strong view, k of a weak one,

        L = -sum_j w_j log p_j,    p = softmax([q.k, q.Q_1, ...] / temperature)
        w = share * [1, 0, ...] + (1 - share) * softmax([-inf, k.Q_1, ...] / target_temperature)

    Use it when many samples are alike, so that MoCo's negatives are often none; it costs MoCo's step and one more look
    at the queue. The first view is the query: the views "sce" make it strong and the second weak. Lower
    target_temperature than temperature, or the target is too flat. The predictor, three layers and symmetric are the
    paper's on ImageNet, where its batch norms see the whole batch and the momentum rises; here they are split, and it
    stays.

    dim: width of the embedding.  queue: keys in it.  momentum: of the copy, 0.99 for CIFAR.  temperature: of the
    prediction.  target_temperature: of the likeness; 0.05 for CIFAR, 0.07 for ImageNet.  share: of the key itself in
    the target; 1 is MoCo, 0 likeness alone.  own: of the likeness, the slot of the key itself is "left_out" (the paper)
    or "zero", a logit of 0 (the released code).  layers: of the projector, with batch norm.  predictor: a further
    network of two layers, for queries alone.  splits: parts of the global batch that batch norm sees apart, as on that
    many devices, with keys shuffled among them.  symmetric: let both views be queries and average.

    Denize et al. 2021, "Similarity Contrastive Estimation for Self-Supervised Soft Contrastive Learning",
    arXiv 2111.14585.
    """

    family = "queue and bank"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: int = 128,
        queue: int = 65536,
        momentum: float = 0.99,
        temperature: float = 0.1,
        target_temperature: float = 0.05,
        share: float = 0.5,
        own: Literal["left_out", "zero"] = "left_out",
        layers: int = 2,
        predictor: bool = False,
        splits: int = 8,
        symmetric: bool = False,
    ) -> None:
        head = mlp((*[encoder.dim] * layers, dim), norm=True, bias=True, last_bias=True)
        moco = {"dim": dim, "queue": queue, "momentum": momentum, "temperature": temperature, "splits": splits}
        super().__init__(encoder, projector=split_norms(head, splits), symmetric=symmetric, **moco)
        self.predictor = nn.Identity()
        if predictor:
            guess = mlp((dim, encoder.dim, dim), norm=True, bias=True, last_bias=True)
            self.predictor = split_norms(guess, splits)
        self.own: Literal["left_out", "zero"] = own
        self.target_temperature, self.share = target_temperature, share

    def query(self, view: Any) -> Tensor:
        return normalize(self.predictor(self.projector(self.embed(view))))  # N x dim

    def loss(self, q: Tensor, k: Tensor, batch: Batch) -> Tensor:
        sce = partial(relational.sce, target_temperature=self.target_temperature, share=self.share, own=self.own)
        return sce(q, k, self.queue.keys, temperature=self.temperature, groups=self.groups(batch))
