"""Other samples that probably show the same thing: found among the rows of a batch, and not pushed, or pulled."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.contrast import Ids, far, products
from nearfar.distributed import columns, gather, share, total
from nearfar.losses.groups import equal_ids

ROWS = 512
"""Rows whose scores with all columns are held at a time."""
LISTED = 16
"""Columns that each row leaves out one after the other; more are left out by a mask, one byte a pair."""


@torch.no_grad()
def find_alike(
    views: list[Tensor],
    support: list[Tensor],
    *,
    top: int,
    threshold: float,
    score: Literal["max", "mean"] = "max",
    queue: Tensor | None = None,
) -> Tensor:
    """The columns that look most like each sample, among the rows of other samples: N x at most `top`, -1 where none.

        score(i, y) = max over the support views v of  v_i . y        found: the `top` highest, where above `threshold`

    views: V tensors, N x D, unit rows, whose rows are the candidates, numbered as in `gather(torch.cat(views))`.
    support: any number of tensors, N x D: what is known of each sample.  score: the max or the mean over them.
    threshold: a row whose score is just that is not found.  queue: further candidates, K x D, numbered behind the rows.
    Huynh et al. 2020, arXiv 2011.11765.
    """
    candidates = gather(torch.cat(views))  # WVN x D
    sample = columns(views[0])
    of = gather(sample.repeat(len(views)))
    if queue is not None:
        candidates, of = torch.cat([candidates, queue]), F.pad(of, (0, len(queue)), value=-1)
    false_negatives = []
    for rows in torch.arange(len(sample), device=sample.device).split(ROWS):
        seen = (products(part[rows], candidates) for part in support)
        scores = next(seen)
        for more in seen:
            scores = torch.maximum(scores, more) if score == "max" else scores.add_(more)
        scores = scores if score == "max" else scores / len(support)
        best = scores.masked_fill_(sample[rows, None] == of, float("-inf")).topk(min(top, len(of)))
        false_negatives.append(torch.where(best.values > threshold, best.indices, -1))
    return torch.cat(false_negatives)


def nt_xent_found(
    views: list[Tensor],
    false_negatives: Tensor,
    *,
    temperature: float | Tensor,
    attract: bool = False,
    group: Tensor | None = None,
    keys: list[Tensor] | None = None,
    queue: Tensor | None = None,
    queue_group: Tensor | None = None,
) -> Tensor:
    """NT-Xent that does not push the rows that were found for a sample, or that also pulls them.

        loss_i = -mean_{p in P_i} s_ip + log(sum_{p in P_i} exp(s_ip) + sum_{j not in F_i} exp(s_ij))

    views: V tensors, N x D, unit rows.  false_negatives: N x m, F of each sample, columns as `find_alike` gives them,
    -1 for none.  P_i are the other views of the same sample and, if `attract`, also F_i, which then stay in the
    denominator.  keys: V tensors, N x D, what the views are contrasted with, in place of the views themselves; a view's
    own key is left out, as a row itself is.  queue, queue_group: further keys, K x D, the same on all ranks, and their
    groups, K.
    The mean over VN rows. With nothing found and two views it is `nt_xent`; with all found and not attracted, 0.
    Huynh et al. 2020, arXiv 2011.11765.
    """
    scale = temperature**-0.5
    z, v, n = torch.cat(views) * scale, len(views), len(views[0])  # VN x D
    every = gather(z if keys is None or keys is views else torch.cat(keys) * scale)  # WVN x D
    own = columns(z).view(v, n)
    partners = torch.stack([own.roll(-shift, 0) for shift in range(1, v)], 2).flatten(0, 1)  # VN x V-1
    apart = None if group is None else (group.repeat(v), gather(group.repeat(v)))
    if queue is not None:
        every = torch.cat([every, queue * scale])
        if apart is not None and queue_group is not None:
            apart = apart[0], torch.cat([apart[1], queue_group])
    same, hidden = torch.cat([own.view(-1, 1), partners], 1), _mask(false_negatives, len(every))
    false_negatives = false_negatives.repeat(v, 1)  # VN x m
    if hidden is None:
        push = far(z, every, skip=torch.cat([same, false_negatives], 1), exclude_same=apart)
    else:
        push = far(z, every, skip=same, exclude_same=apart, rule=lambda i, j: ~hidden[i % n, j])
    positive = torch.cat([partners, false_negatives], 1) if attract else partners
    s = (z[:, None] * every[positive.clamp(min=0)]).sum(2)  # VN x positives
    pull = s.masked_fill(positive < 0, 0).sum(1) / (positive >= 0).sum(1)
    return share(torch.cat([s.masked_fill(positive < 0, float("-inf")), push[:, None]], 1).logsumexp(1) - pull)


def _mask(false_negatives: Tensor, width: int) -> Tensor | None:
    """Long lists of columns, N x m, as a mask N x width."""
    if false_negatives.shape[1] <= LISTED:
        return None
    # The last column stands for -1.
    mask = torch.zeros(len(false_negatives), width + 1, dtype=torch.bool, device=false_negatives.device)
    return mask.scatter_(1, torch.where(false_negatives < 0, width, false_negatives), True)[:, :width]


def same_class(label: Tensor, views: int) -> Tensor:
    """What detection without error would find: the columns of all other samples of the same class.

    label: N, or MISSING.  views: V. Columns as `find_alike` gives them: N x the most that a row has, -1 where fewer.
    """
    every, of = (gather(x.repeat(views)) for x in (label, columns(label)))  # WVN
    same = equal_ids(label[:, None], every) & (columns(label)[:, None] != of)
    best = same.byte().sort(dim=1, descending=True, stable=True)
    most = int(same.sum(1).max())
    return torch.where(best.values[:, :most] > 0, best.indices[:, :most], -1)


def info_nce_found(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    alike: Ids,
    *,
    temperature: float | Tensor,
    attract: bool = False,
    groups: Ids | None = None,
) -> Tensor:
    """InfoNCE against a queue whose keys that are alike are not pushed, or are pulled too.

        loss_i = mean_{p in P_i}  -s_ip + log(exp(s_ip) + sum_{j not in F_i} exp(s_ij))

    q, k: N x D; queue: K x D, the same on all ranks.  s_ij: q_i . k_j / temperature.  alike: ids of the queries and of
    the queue, N and K: F_i are the keys with the id of query i; negative ids are equal to nothing.  P_i: the own key
    and, if `attract`, F_i.  groups: ids likewise; keys of one group are not pushed either.
    With nothing alike it is `info_nce`; with all, 0.
    Chen et al. 2021, arXiv 2106.03719.
    """
    q = q / temperature
    if groups is None:
        push = far(q, queue, exclude_same=alike)
    else:
        push = far(q, queue, rule=lambda i, j: ~(_equal(alike, i, j) | _equal(groups, i, j)))
    losses = F.softplus(push - (q * k).sum(1))  # N
    if attract:
        # Each positive has a denominator of its own, so that the logits of all must be held: N x K.
        rows, columns = (torch.arange(len(x), device=q.device) for x in alike)
        is_alike = _equal(alike, rows[:, None], columns[None])
        pulled = torch.where(is_alike, F.softplus(push[:, None] - products(q, queue)), 0).sum(1)
        losses = (losses + pulled) / (1 + is_alike.sum(1))
    return share(losses)


def _equal(ids: Ids, i: Tensor, j: Tensor) -> Tensor:
    rows, columns = ids
    return equal_ids(rows[i], columns[j])


def detected(alike: Ids, label: Ids) -> Tensor:
    """Of pairs of a row and a column with known classes: those alike and of one class, those alike, those of one class.

    alike: ids of rows and columns, N and K.  label: their classes; negative ones are not known.
    Three numbers, of this rank, in time linear in N + K.
    """
    classes = torch.cat(label).max().clamp(min=0) + 1
    known = [torch.where(of < 0, -1, ids) for ids, of in zip(alike, label, strict=True)]
    both = [torch.where(ids < 0, -1, ids * classes + of) for ids, of in zip(known, label, strict=True)]
    return torch.stack([_equal_pairs(*both), _equal_pairs(*known), _equal_pairs(*label)])


def detected_columns(false_negatives: Tensor, label: Tensor, views: int, queue: Tensor | None = None) -> Tensor:
    """The same three numbers for lists of columns.

    false_negatives: N x m, as `find_alike` gives them for V views.  label: N.  queue: the labels of further columns, K.
    """
    every = gather(label.repeat(views))  # WVN
    every = every if queue is None else torch.cat([every, queue])
    known = (false_negatives >= 0) & (label[:, None] >= 0) & (every[false_negatives] >= 0)
    right = known & (every[false_negatives] == label[:, None])
    same = equal_ids(label[:, None], every).sum() - views * (label >= 0).sum()
    return torch.stack([right.sum(), known.sum(), same])


def _equal_pairs(rows: Tensor, columns: Tensor) -> Tensor:
    rows, columns = rows[rows >= 0], columns[columns >= 0]
    names, code = torch.unique(torch.cat([rows, columns]), return_inverse=True)
    mine, theirs = (torch.bincount(part, minlength=len(names)) for part in code.split([len(rows), len(columns)]))
    return (mine * theirs).sum()


def detection(counts: Tensor) -> dict[str, Tensor]:
    """How good detection was, over the pairs of all ranks whose classes are known; 0 where there are none.

    counts: three numbers of this rank: of pairs found that are of one class, of pairs found, of pairs of one class.
    precision: the share of the pairs found that are of one class.  recall: the share of those of one class found.
    """
    right, detected_pairs, same = total(counts.float())
    return {"precision": right / detected_pairs.clamp(min=1), "recall": right / same.clamp(min=1)}
