"""Every loss on four processes: value, gradient, and what travels between them."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar import distributed, losses
from nearfar.batch import MISSING
from nearfar.clustering.sinkhorn import sinkhorn
from nearfar.contrast import products
from nearfar.losses.assignment import swapped_assignment
from nearfar.losses.bregman import bregman
from nearfar.losses.centers import centers
from nearfar.losses.classification import cross_entropy, log_prior, mixed_cross_entropy, per_token
from nearfar.losses.conditional import conditional_contrastive, data_to_data, hinge
from nearfar.losses.dense import info_nce_cells, most_alike, same_cells
from nearfar.losses.distance import align, byol, uniform
from nearfar.losses.distillation import distillation
from nearfar.losses.epsilon import epsilon_supcon, sup_info_nce, sup_info_nce_in
from nearfar.losses.fairness import fairkl, fairkl_released
from nearfar.losses.false_negatives import (
    detected_columns,
    detection,
    find_alike,
    info_nce_found,
    nt_xent_found,
    same_class,
)
from nearfar.losses.instances import instance_softmax, log_partition, nce
from nearfar.losses.inter_image import draw_negatives, draw_positive, margin_nce
from nearfar.losses.leave_one_out import leave_one_out
from nearfar.losses.metric import n_pairs, pairs, triplet
from nearfar.losses.mined import class_weights, mine, supcon_mined
from nearfar.losses.mixed import mixed_byol, mixed_info_nce
from nearfar.losses.mixture import mixture_nce
from nearfar.losses.negatives import hcl, renyi
from nearfar.losses.open_world import divergence, unfamiliar, unlabeled_shares
from nearfar.losses.pairwise import clip, dcl, hard_info_nce, info_nce, info_nce_batch, nt_xent, siglip
from nearfar.losses.parametric import parametric
from nearfar.losses.patchwise import info_nce_parts
from nearfar.losses.positives import chosen, info_nce_chosen
from nearfar.losses.prediction import classify, solved, weighted_classes
from nearfar.losses.pretext_invariant import told_apart
from nearfar.losses.proto_nce import proto_nce
from nearfar.losses.redundancy import barlow
from nearfar.losses.relational import sce
from nearfar.losses.relic import relic
from nearfar.losses.spreading import spreading
from nearfar.losses.supervised import share_with_positive, supcon, supcon_in
from nearfar.losses.support import captioning, hardest_hinge, support_weights
from nearfar.losses.synthetic import hardest, info_nce_mixed, mixtures
from nearfar.losses.temporal import time_contrast
from nearfar.losses.unified import unified
from nearfar.losses.universum import universum
from nearfar.memory.prototypes import Prototypes
from nearfar.memory.queue import Queue
from tests.losses.ranks import hold_ranks_to_one, unit
from tests.two_ranks import Pool

N, D, W, K, T = 12, 5, 4, 6, 0.2

# Of the N samples, three a rank: classes and groups straddle ranks, and one rank has no label at all.
LABEL = torch.tensor([0, 1, 0, MISSING, 1, 2, MISSING, MISSING, MISSING, 2, MISSING, 0])
ATTRIBUTE = torch.tensor([0, MISSING, 1, 0, 0, 1, 0, 1, MISSING, 1, 0, 0])
GROUP = torch.tensor([0, MISSING, 1, 0, MISSING, 1, 2, MISSING, 2, 1, MISSING, 0])
PARTNER = torch.tensor([7, 3, 0, 11, 4, 9, 2, 1, 10, 5, 8, 6])
ORDER = PARTNER.flip(0)
DRAWS = torch.rand(N, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
LAM = DRAWS[:, 0, 0]

# Of K keys of a queue, rows of a bank or prototypes, the same on every rank.
QUEUE = unit(K, D, 9)
OF_QUEUE = torch.tensor([0, 0, 1, 1, 2, 2])
GROUP_OF_QUEUE = torch.tensor([0, MISSING, 1, MISSING, 2, 0])
PHI = torch.linspace(0.2, 0.4, K, dtype=torch.float64)

Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""loss(a, b, i, g): two views of the samples i of this rank, and their groups, or None."""


def _of(g: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if g is None else (g, GROUP_OF_QUEUE)


def _supcon_mined(a: Tensor, b: Tensor, i: Tensor, g: Tensor | None) -> Tensor:
    label, groups = LABEL[i].repeat(2), None if g is None else (g.repeat(2), GROUP_OF_QUEUE)
    mined = mine(torch.cat([a, b]), label, QUEUE, OF_QUEUE, positives=1, negatives=2, groups=groups)
    return supcon_mined([a, b], LABEL[i], QUEUE, mined, temperature=T, weight=class_weights([3, 2, 2], 0.9), group=g)


def _info_nce_mixed(a: Tensor, b: Tensor, i: Tensor, g: Tensor | None) -> Tensor:
    made = mixtures(a, QUEUE, *hardest(a, QUEUE, 3, _of(g)), DRAWS[i], DRAWS[i, :2])
    return info_nce_mixed(a, b, QUEUE, made, temperature=T, groups=_of(g))


def _nce(a: Tensor, b: Tensor, i: Tensor, g: Tensor | None) -> Tensor:
    log_z = log_partition(a, b, QUEUE, temperature=T, samples=50)
    return nce(a, b, QUEUE, temperature=T, log_z=log_z, samples=50, groups=_of(g))


def _mixture_nce(a: Tensor, b: Tensor, i: Tensor, g: Tensor | None) -> Tensor:
    q, v, queue = (torch.stack(experts, 1) for experts in ((a, b), (b, a), (QUEUE, QUEUE)))
    return mixture_nce(q, v, queue, a[:, :2].log_softmax(1), temperature=T, groups=_of(g))[0]


def _cells(a: Tensor, b: Tensor) -> list[Tensor]:
    """Two cells of each sample."""
    return [torch.stack([x, x.roll(1, 1)], 1) for x in (a, b)]


def _info_nce_cells(a: Tensor, b: Tensor, i: Tensor, g: Tensor | None) -> Tensor:
    q, k = _cells(a, b)
    return info_nce_cells(q, k, most_alike(q, k), QUEUE, temperature=T, groups=_of(g))


def _margin_nce(a: Tensor, b: Tensor, i: Tensor, g: Tensor | None) -> Tensor:
    same = (i % 3, OF_QUEUE) if g is None else (i % 3, OF_QUEUE, g, GROUP_OF_QUEUE)
    key = b + QUEUE[draw_positive(i % 3, OF_QUEUE, LAM[i])]
    far = draw_negatives(a, QUEUE, same, PHI, count=2, pool=3, sampling="semi-hard")
    return margin_nce(a, key, QUEUE, far, temperature=T, margin=0.3, arc=True)


def _opencon(a: Tensor, b: Tensor, i: Tensor, g: Tensor | None) -> Tensor:
    new = unfamiliar(products(a, QUEUE), LABEL[i] >= 0, known=3, percentile=70)
    return supcon([a, b], i % 3, temperature=T, group=g, among=new | (i % 4 == 0), anchors=new)


def _captioning(a: Tensor, b: Tensor, i: Tensor, g: Tensor | None) -> Tensor:
    keys, own = distributed.gather(b), distributed.columns(a)
    apart = [] if g is None else [(g, distributed.gather(g))]
    weight = support_weights(a, keys, mode="cross", temperature=T, own=own, apart=apart)
    return captioning(products(weight, keys.T)[:, None], (i % D)[:, None], torch.ones_like(i), weight.any(1))


LOSSES: dict[str, Loss] = {
    "align": lambda a, b, i, g: align(a, b),
    "barlow": lambda a, b, i, g: barlow(a, b),
    "barlow (wide)": lambda a, b, i, g: barlow(*(torch.cat([x, x**2, x**3], 1) for x in (a, b))),
    "bregman": lambda a, b, i, g: bregman(a, b, temperature=T, group=g),
    "byol": lambda a, b, i, g: byol(a, b),
    "captioning": _captioning,
    "centers": lambda a, b, i, g: centers(QUEUE, [a, b], LABEL[i], temperature=T),
    "centers (learned)": lambda a, b, i, g: centers(distributed.gather(a)[:4], [a, b], LABEL[i], temperature=T),
    "classify": lambda a, b, i, g: classify(a + b, i % D),
    "conditional_contrastive": lambda a, b, i, g: conditional_contrastive(a, b, LABEL[i], temperature=T),
    "cross_entropy": lambda a, b, i, g: cross_entropy(a + b, LABEL[i], log_prior=log_prior([3, 2, 2, 1, 0])),
    "data_to_data": lambda a, b, i, g: data_to_data(a, b, LABEL[i], temperature=T, margin=0.9),
    "data_to_data (released)": lambda a, b, i, g: data_to_data(
        a, b, LABEL[i], temperature=T, margin=0.9, released=True
    ),
    "dcl": lambda a, b, i, g: dcl(a, b, temperature=T, group=g),
    "dcl (sigma)": lambda a, b, i, g: dcl(a, b, temperature=T, sigma=0.5, group=g),
    "distillation": lambda a, b, i, g: (
        distillation(a, b, temperature=2, label=LABEL[i], alpha=0.3) + distillation(b, a, temperature=2)
    ),
    "divergence": lambda a, b, i, g: divergence((a + b).softmax(1), unlabeled_shares(N, [3, 2, 2], 2), LABEL[i] < 0),
    "epsilon_supcon": lambda a, b, i, g: epsilon_supcon([a, b], LABEL[i], temperature=T, epsilon=0.3, group=g),
    "fairkl": lambda a, b, i, g: fairkl(a + b, LABEL[i], ATTRIBUTE[i], group=g),
    "fairkl_released": lambda a, b, i, g: fairkl_released(a + b, LABEL[i], ATTRIBUTE[i], group=g),
    "hard_info_nce": lambda a, b, i, g: hard_info_nce(a, b, a + b, temperature=T, weight=0.3, group=g),
    "hardest_hinge": lambda a, b, i, g: hardest_hinge(a, b, margin=0.5, group=g),
    "hinge": lambda a, b, i, g: hinge(a[:, 0], b[:, 1]),
    "hcl": lambda a, b, i, g: hcl(a, b, temperature=T, group=g),
    "info_nce": lambda a, b, i, g: info_nce(a, b, QUEUE, temperature=T, groups=_of(g)),
    "info_nce_batch": lambda a, b, i, g: info_nce_batch(a, b, temperature=T, group=g),
    "clip": lambda a, b, i, g: clip(a, b, temperature=T, group=g),
    "siglip": lambda a, b, i, g: siglip(a, b, temperature=T, bias=-2.0, group=g),
    "info_nce_cells": _info_nce_cells,
    "info_nce_chosen": lambda a, b, i, g: info_nce_chosen(
        a, b, QUEUE, chosen(LABEL[i], OF_QUEUE, 1, DRAWS[i, 0]), (LABEL[i], OF_QUEUE), temperature=T, groups=_of(g)
    ),
    "info_nce_found": lambda a, b, i, g: info_nce_found(
        a, b, QUEUE, (LABEL[i], OF_QUEUE), temperature=T, attract=True, groups=_of(g)
    ),
    "info_nce_mixed": _info_nce_mixed,
    "info_nce_parts": lambda a, b, i, g: info_nce_parts(
        a, torch.stack([b, a + b], 1).flatten(0, 1), 2 * torch.arange(len(a)), group=g
    ),
    "instance_softmax": lambda a, b, i, g: instance_softmax(a + b, QUEUE, i % K, temperature=T, groups=_of(g)),
    "leave_one_out": lambda a, b, i, g: leave_one_out(a, b, [a + b], QUEUE, temperature=T, groups=_of(g)),
    "leave_one_out (batch)": lambda a, b, i, g: leave_one_out(
        a, b, [a + b], QUEUE, temperature=T, groups=_of(g), batch=True
    ),
    "margin_nce": _margin_nce,
    "mixed_byol": lambda a, b, i, g: mixed_byol(a, b, PARTNER[i], LAM[i]),
    "mixed_info_nce": lambda a, b, i, g: mixed_info_nce(
        a, b, PARTNER[i], LAM[i], temperature=T, queue=(QUEUE, GROUP_OF_QUEUE), group=g
    ),
    "mixture_nce": _mixture_nce,
    "n_pairs": lambda a, b, i, g: n_pairs(a, b, LABEL[i], ORDER, penalty=0.1, group=g),
    "nce": _nce,
    "info_nce_batch (positive not below)": lambda a, b, i, g: info_nce_batch(
        a, b, temperature=T, group=g, positive_below=False
    ),
    "nt_xent": lambda a, b, i, g: nt_xent(a, b, temperature=T, group=g),
    "nt_xent (queue)": lambda a, b, i, g: nt_xent(a, b, temperature=T, group=g, queue=(QUEUE, GROUP_OF_QUEUE)),
    "nt_xent_found": lambda a, b, i, g: nt_xent_found(
        [a, b], find_alike([a, b], [a + b], top=2, threshold=0.1), temperature=T, group=g
    ),
    "nt_xent_found (keys)": lambda a, b, i, g: nt_xent_found(
        [a, b],
        find_alike([b, a], [a + b], top=2, threshold=0.1, queue=QUEUE),
        temperature=T,
        attract=True,
        group=g,
        keys=[b.detach(), a.detach()],
        queue=QUEUE,
        queue_group=GROUP_OF_QUEUE,
    ),
    "nt_xent_found (same class)": lambda a, b, i, g: nt_xent_found(
        [a, b], same_class(LABEL[i], 2), temperature=T, attract=True, group=g
    ),
    "pairs": lambda a, b, i, g: pairs([a, b], LABEL[i], margin=1.2, positive_margin=0.2, active=True, group=g),
    "mixed_cross_entropy": lambda a, b, i, g: mixed_cross_entropy(
        a + b, i % D, PARTNER[i] % D, (i + 1) / N, smoothing=0.3
    ),
    "per_token": lambda a, b, i, g: per_token(-(a + b).sum(1), 1 + i % 5, LABEL[i] >= 0),
    "parametric": lambda a, b, i, g: parametric(
        a, a + b, LABEL[i], b, (QUEUE, OF_QUEUE - 1, GROUP_OF_QUEUE), temperature=T, alpha=0.5, smoothing=0.1, group=g
    ),
    "proto_nce": lambda a, b, i, g: proto_nce(a + b, QUEUE, PHI, i % 4, torch.tensor([5])),
    "proto_nce (repeat)": lambda a, b, i, g: proto_nce(a + b, QUEUE, PHI, i % 4, torch.tensor([5]), repeat=True),
    "relic": lambda a, b, i, g: relic(a, b, beta=0.5) + relic(b, a, first="other"),
    "renyi": lambda a, b, i, g: renyi([a, b], b.detach(), temperature=0.5, group=g),
    "same_cells": lambda a, b, i, g: same_cells(*_cells(a, b), DRAWS[i, :2, :2] < 0.6),
    "sce": lambda a, b, i, g: (
        sce(a, b, QUEUE, temperature=T, target_temperature=0.1, share=0.3, groups=_of(g))
        + sce(b, a, QUEUE, temperature=T, target_temperature=0.1, share=0.3, own="zero", groups=_of(g))
    ),
    "spreading": lambda a, b, i, g: spreading(a, b, temperature=T, group=g),
    "sup_info_nce": lambda a, b, i, g: sup_info_nce([a, b], LABEL[i], temperature=T, epsilon=0.3, group=g),
    "sup_info_nce_in": lambda a, b, i, g: sup_info_nce_in([a, b], LABEL[i], temperature=T, epsilon=0.3, group=g),
    "supcon": lambda a, b, i, g: supcon([a, b], LABEL[i], temperature=T, group=g),
    "supcon (among)": _opencon,
    "supcon (one view)": lambda a, b, i, g: supcon([a + b], LABEL[i], temperature=T, group=g),
    "supcon (queue)": lambda a, b, i, g: supcon(
        [a, b], LABEL[i], temperature=T, group=g, queue=(QUEUE, OF_QUEUE - 1, GROUP_OF_QUEUE)
    ),
    "supcon_in": lambda a, b, i, g: supcon_in([a, b], LABEL[i], temperature=T, group=g),
    "supcon_mined": _supcon_mined,
    "swapped_assignment": lambda a, b, i, g: swapped_assignment(
        [a, b, a + b], [sinkhorn(x.detach(), iterations=3) for x in (a, b)], temperature=T
    ),
    "swapped_assignment (logarithms)": lambda a, b, i, g: swapped_assignment(
        [a, b, a + b], [sinkhorn(x.detach(), epsilon=0.01, iterations=3) for x in (a, b)], temperature=T
    ),
    "time_contrast": lambda a, b, i, g: time_contrast(
        [torch.stack([x, x.roll(1, 1)], 1) for x in (a, b)], margin=0.5, near=1, group=g
    ),
    "told_apart": lambda a, b, i, g: told_apart(a, b, QUEUE, temperature=T, groups=_of(g)),
    "triplet": lambda a, b, i, g: triplet([a, b], LABEL[i], margin=0.5, group=g),
    "triplet (batch hard)": lambda a, b, i, g: triplet([a + b], LABEL[i], margin=1, mining="batch_hard", group=g),
    "triplet (one view)": lambda a, b, i, g: triplet([a + b], LABEL[i], margin=0.5, mining="all", active=True, group=g),
    "unified": lambda a, b, i, g: unified(a + b, QUEUE, i % K, temperature=T, source=LABEL[i] >= 0, groups=_of(g)),
    "uniform": lambda a, b, i, g: uniform(a + b, group=g),
    "universum": lambda a, b, i, g: universum([a, b], [b, a], LABEL[i], PARTNER[i].repeat(2), temperature=T, group=g),
    "universum (push)": lambda a, b, i, g: universum(
        [a, b], [b, a], LABEL[i], PARTNER[i].repeat(2), temperature=T, pull=False, group=g
    ),
    "weighted_classes": lambda a, b, i, g: weighted_classes(a, b.softmax(1), LAM[i]),
}
"""By the name of the loss, with what is special in brackets. What chooses or weighs its rows is called in it too."""

NO_LOSS = {
    "divergences": "a part of bregman, row by row",
    "single": "a precision",
    "equal_ids": "a rule about pairs",
    "foreign": "a rule about pairs",
    "or_positive": "a rule about pairs",
    "next_of_class": "a part of n_pairs",
    "mixed_rows": "a part of mixed_byol",
    "group_sizes": "a part of hcl, renyi and uniform",
    "standardize": "a part of barlow",
    "strips": "how sup_info_nce and fairkl look at pairs",
    "identity": "a part of all that take labels",
    "detected": "counts of one rank, which detection adds up",
}


@pytest.fixture(scope="module")
def four_ranks() -> Iterator[Pool]:
    pool = Pool(W)
    yield pool
    pool.close()


def _without_and_with_groups(name: str, a: Tensor, b: Tensor, i: Tensor) -> Tensor:
    return LOSSES[name](a, b, i, None) + 0.7 * LOSSES[name](a, b, i, GROUP[i])


@pytest.mark.parametrize("name", LOSSES)
def test_four_ranks_have_the_value_and_gradient_of_one(four_ranks: Pool, name: str) -> None:
    loss = partial(_without_and_with_groups, name)
    hold_ranks_to_one(four_ranks, loss, unit(N, D, 0), unit(N, D, 1), torch.arange(N), dtypes=(torch.float64,))


def _measured(a: Tensor, b: Tensor, i: Tensor) -> Tensor:
    """What is logged beside losses."""
    a, b, i = (distributed.local(x) for x in (a, b, i))
    found = detection(detected_columns(find_alike([a, b], [a, b], top=9, threshold=0.0), LABEL[i], 2))
    return torch.stack([solved(a, LABEL[i]), share_with_positive(LABEL[i], 1), *found.values()])


def test_what_is_measured_is_that_of_all_ranks(four_ranks: Pool) -> None:
    rows = unit(N, D, 0), unit(N, D, 1), torch.arange(N)
    whole = _measured(*rows)
    assert whole.all()
    torch.testing.assert_close(torch.stack(four_ranks.run(_measured, *rows)).mean(0), whole)


def _public_functions() -> list[Callable[..., object]]:
    files = pkgutil.iter_modules(losses.__path__)
    modules = [importlib.import_module(f"nearfar.losses.{file.name}") for file in files]
    return [
        function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    ]


def test_no_loss_is_left_out() -> None:
    names = {key: loss.__code__.co_names for key, loss in LOSSES.items()}
    assert [key for key in LOSSES if key.split(" ")[0] not in names[key]] == []
    called = {globals().get(name) for name in chain(*names.values(), _measured.__code__.co_names)}
    assert {function.__name__ for function in _public_functions() if function not in called} == set(NO_LOSS)


def _memory_after_steps() -> str:
    """A digest of queue and prototypes after steps with other rows on every rank."""
    torch.manual_seed(0)
    queue, prototypes = Queue(10, D), Prototypes(5, D)
    for step in range(5):
        z = unit(3, D, 100 * step + distributed.rank()).float()
        queue.enqueue(z)
        grad = torch.autograd.grad(distributed.gather(prototypes(z)).square().mean(), prototypes.weight)[0]
        with torch.no_grad():
            prototypes.weight.sub_(distributed.total(grad) / distributed.world())
        prototypes.renormalize()
    whole = b"".join(value.numpy().tobytes() for value in nn.ModuleList([queue, prototypes]).state_dict().values())
    return hashlib.sha256(whole).hexdigest()


def test_memory_is_the_same_on_all_ranks(four_ranks: Pool) -> None:
    assert len(set(four_ranks.run(_memory_after_steps))) == 1


def _enqueue(a: Tensor, b: Tensor, i: Tensor, g: Tensor | None) -> Tensor:
    Queue(K, D).enqueue(b, g)
    return a.sum()


def _sent(names: list[str]) -> dict[str, tuple[int, int, int]]:
    """Numbers that this rank hands to the collectives: forward, backward, and how many more for groups."""
    sent: list[int] = []

    def counting(call: Callable[..., Any], which: int) -> Callable[..., Any]:
        def counted(*args: Tensor, **kwargs: object) -> None:
            sent.append(args[which].numel())
            call(*args, **kwargs)

        return counted

    def new() -> int:
        count = sum(sent)
        sent.clear()
        return count

    a, b, i = (distributed.local(x) for x in (unit(N, D, 0), unit(N, D, 1), torch.arange(N)))
    counts = {}
    with (
        patch.object(dist, "all_gather", counting(dist.all_gather, 1)),
        patch.object(dist, "all_reduce", counting(dist.all_reduce, 0)),
    ):
        for name in names:
            loss = LOSSES.get(name, _enqueue)
            value = loss(a.requires_grad_(), b.requires_grad_(), i, None)
            forward = new()
            value.backward()
            backward = new()
            loss(a, b, i, GROUP[i])
            counts[name] = forward, backward, new() - forward
    return counts


def test_what_travels_is_what_the_design_page_says(four_ranks: Pool) -> None:
    n, d, v, s, k = N // W, D, 2, 2, D  # samples a rank, embeddings, views, parts of a sample, kinds or prototypes
    rows = {
        "nt_xent, nt_xent (queue), dcl, hcl, clip, hard_info_nce, hardest_hinge": (2 * n * d, W * 2 * n * d),
        "dcl (sigma)": (2 * n * d + 2 * n, W * (2 * n * d + 2 * n)),
        "spreading": (2 * n * d, 0),
        "bregman": (k, 0),
        "nt_xent_found": (v * n * d + v * n * d + v * n, W * v * n * d),
        "info_nce_batch, info_nce_batch (positive not below), siglip, mixed_info_nce, mixed_byol, "
        "leave_one_out (batch)": (n * d, W * n * d),
        "info_nce_parts": (s * n * d, W * s * n * d),
        "time_contrast": (v * s * n * d + 1, W * v * s * n * d),
        "uniform": (n * d + n, W * (n * d + n)),
        "renyi": (n * d + 2 * v * n, W * 2 * v * n),
        "supcon, supcon (queue), supcon_in, supcon_mined, sup_info_nce, sup_info_nce_in, epsilon_supcon, triplet, "
        "universum": (v * n * d + v * n + 1, W * v * n * d),
        "universum (push)": (2 * v * n * d + v * n + 1, W * 2 * v * n * d),
        "parametric": (v * n * d + v * n + 1, W * v * n * d),
        "pairs": (v * n * d + v * n + 2, W * v * n * d),
        "captioning": (n * d + 1, W * n * d),
        "centers": (v * n * d + v * n, W * v * n * d),
        "n_pairs": (n * d + n, W * n * d),
        "fairkl, fairkl_released": (n * d + 2 * n + 12, W * n * d + 12),
        "conditional_contrastive, data_to_data, data_to_data (released)": (n * d + n + 1, W * n * d),
        "cross_entropy, classify, distillation, nce, per_token": (1, 0),
        "unified": (2, 0),
        "divergence": (d + 1, d),
        "proto_nce": (n, 0),
        "swapped_assignment": (2 * (2 + 3 * k), 0),
        "swapped_assignment (logarithms)": (2 * (2 + 3 * 2 * k), 0),
        "barlow": (5 * d + d**2, 5 * d + d**2),
        "barlow (wide)": (15 * d + 1 + 2 * n * 3 * d, 15 * d + 1 + W * 2 * n * 3 * d),
        "align, byol, hinge, info_nce, info_nce_cells, info_nce_chosen, info_nce_found, info_nce_mixed, "
        "instance_softmax, leave_one_out, margin_nce, mixed_cross_entropy, mixture_nce, relic, same_cells, sce, "
        "told_apart, weighted_classes": (0, 0),
        "Queue.enqueue": (n * d, 0),
    }
    page = (Path(__file__).parents[2] / "docs" / "design.md").read_text(encoding="utf-8")
    table = page.split("| losses |")[1].split("\n\n")[0].splitlines()[2:]
    assert [line.split("|")[1].strip() for line in table] == list(rows)

    more = {
        "dcl": 2 * n + 1,
        "dcl (sigma)": 2 * n + 1,
        "bregman": 2 * n * (k + 1),
        "info_nce_batch (positive not below)": n + 1,
    }
    more |= {"universum": 5 * n, "universum (push)": 5 * n}
    names = [name for row in rows for name in row.split(", ")]
    assert {name.split(" ")[0] for name in LOSSES} <= set(names)
    for counts in four_ranks.run(_sent, names):
        for row, numbers in rows.items():
            for name in row.split(", "):
                forward, backward, groups = counts[name]
                assert (forward, backward) == numbers, name
                assert groups == more[name] if name in more else groups <= forward / d, name


def _pairs() -> int:
    """Pairs of rows whose logit this rank computes for NT-Xent."""
    seen: list[int] = []
    mm = torch.mm

    def counting(a: Tensor, b: Tensor, **kwargs: Tensor) -> Tensor:
        seen.append(len(a) * b.shape[1])
        return mm(a, b, **kwargs)

    with patch.object(torch, "mm", counting):
        nt_xent(unit(N // W, D, 0), unit(N // W, D, 1), temperature=T)
    return sum(seen)


def test_no_rank_does_more_than_its_share(four_ranks: Pool) -> None:
    assert four_ranks.run(_pairs) == [math.prod((2 * N // W, 2 * N))] * W
