"""Looks at an encoder during training and after: representations, and the kNN probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.batch import size, split, tensors, to
from nearfar.data.samples import Samples
from nearfar.data.source import Views
from nearfar.distributed import gather, rank, world
from nearfar.errors import Lost, UserError
from nearfar.evaluation.evaluate import evaluate_knn
from nearfar.method import Encoder
from nearfar.modalities.kind import plain_view


def embed(encoder: nn.Module, plain: Views, data: Samples, batch: int = 256) -> Tensor:
    """The representations of all samples, as `passed` gives them.

    Raises ValueError where some are not finite, or all are equal though the samples are not.
    """
    rows, device = passed(encoder, plain, data, batch), next(encoder.parameters()).device

    def view(i: int) -> list[Tensor]:
        return list(tensors(plain_view(plain, data, torch.tensor([i]), device)))

    if len(broken := (~rows.isfinite().all(1)).nonzero()[:, 0]):
        first = int(broken[0])
        if all(part.isfinite().all() for part in view(first)):
            cause = "its weights are damaged or have overflowed. Try --checkpoint best, or train with a lower --lr"
        else:
            cause = "that sample itself holds NaN or an infinite number: mend it, or leave it out"
        raise UserError(
            f"the encoder gives numbers that are not finite for {len(broken):,} of {len(rows):,} samples, such as "
            f"{data.names[first]!r}: {cause}"
        )
    if len(rows) > 1 and equal_rows(rows) and not all(_same(view(0), view(i)) for i in range(1, len(rows))):
        raise UserError(
            f"the encoder gives one and the same row for all {len(rows):,} samples, which differ: it has collapsed, as "
            "a learning rate that is too high does. Try --checkpoint best, or train with a lower --lr"
        )
    return rows


@torch.no_grad()
def insist_alive(encoder: Encoder, name: str) -> None:
    """Raise ValueError where an encoder makes numbers that are not finite, or one row, of all that it is given.

    name: where it comes from. It is tried on noise; one that knows no example passes.
    """
    try:
        example = encoder.example(8, torch.Generator().manual_seed(0))
    except NotImplementedError:
        return
    training = encoder.training
    rows = encoder.eval()(to(example, next(encoder.parameters()).device)).float()
    encoder.train(training)
    if not rows.isfinite().all() or equal_rows(rows):
        what = "one and the same row" if rows.isfinite().all() else "numbers that are not finite"
        raise UserError(
            f"the encoder of {name!r} makes {what} of whatever it is given: its training diverged or collapsed. "
            "Take an earlier checkpoint, or another run"
        )


def equal_rows(rows: Tensor) -> bool:
    """Whether all rows are equal but for rounding, which layer after layer of large numbers adds up: N x D."""
    low, high = rows.aminmax(dim=0)
    return bool((high - low <= 1e-5 * torch.maximum(low.abs(), high.abs())).all())


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@torch.no_grad()
def passed(encoder: nn.Module, plain: Views, data: Samples, batch: int = 256) -> Tensor:
    """What the encoder, as it is (`.eval()` comes first), makes of all samples, unaugmented: N x dim, float32."""
    device = next(encoder.parameters()).device
    return torch.cat(
        [
            encoder(plain_view(plain, data, index, device)).float().cpu()
            for index in torch.arange(len(data)).split(batch)
        ]
    )


@torch.no_grad()
def each_map(encoder: Encoder, plain: Views, data: Samples, depth: int = -1, batch: int = 64) -> Iterator[Tensor]:
    """The maps of all samples at their plain view, some at a time: n x C x H x W, float32, on the CPU.

    depth: which of those that `Encoder.maps` gives.
    """
    device = next(encoder.parameters()).device
    for index in torch.arange(len(data)).split(batch):
        yield encoder.maps(plain_view(plain, data, index, device))[depth].float().cpu()


@torch.no_grad()
def map_shape(encoder: Encoder, depth: int = -1) -> tuple[int, ...]:
    """The shape of one sample's map: C x H x W. It is tried on noise.

    Raises ValueError where the encoder has no maps, or none at that depth, or nobody knows an example of what it takes.
    """
    _ = encoder.map_dim
    try:
        example = encoder.example(1)
    except NotImplementedError as error:
        raise UserError(f"what maps there are is tried on noise, and {error}") from error
    maps = encoder.maps(to(example, next(encoder.parameters()).device))
    if not -len(maps) <= depth < len(maps):
        raise UserError(
            f"depth {depth} of an encoder with {len(maps)} maps: wanted 0 to {len(maps) - 1}, or -1, the last"
        )
    return tuple(maps[depth].shape[1:])


@torch.no_grad()
def viewed(encoder: nn.Module, view: Any, batch: int = 256) -> Tensor:
    """What the encoder makes of a view, some of it at a time: N x dim, float32."""
    device = next(encoder.parameters()).device
    parts = split(view, -(-size(view) // batch))
    return torch.cat([encoder(to(part, device)).float().cpu() for part in parts])


def look(
    encode: Callable[[Any], Tensor], plain: Views, data: Samples, device: torch.device, batch: int = 256
) -> Tensor:
    """What `encode` makes of all samples, unaugmented: N x ..., on every rank, each of which does its part."""
    part = -(-len(data) // world())
    mine = (rank() * part + torch.arange(part)).clamp(max=len(data) - 1)  # the last rank repeats the last sample

    def view(index: Tensor) -> Any:
        """A sample that can be read no more is not trained on either: another one keeps its place."""
        try:
            return plain_view(plain, data, index, device)
        except Lost as lost:
            good = [k for k in range(len(index)) if k not in lost.at]
            if not good:
                raise
            kept = [good[0] if k in lost.at else k for k in range(len(index))]
            return view(index[kept])

    return gather(torch.cat([encode(view(index)) for index in mine.split(batch)]))[: len(data)]


def probe(encoder: nn.Module, plain: Views, bank: Samples, queries: Samples, seed: int = 0) -> dict[str, Any]:
    """kNN accuracy on held-out training rows, in per cent, by the protocol of `nearfar evaluate`.

    Gives "knn" with the ends of its 95 % interval over the queries, "knn_low" and "knn_high"; on how many rows it
    rests, "knn_samples" queries and a bank of "knn_bank"; "knn_right", which queries are right, as `packed` writes it;
    and what was chosen on the bank: "knn_k", and whether features were standardized, "knn_standardized", 0 or 1. Rows
    that can be read no more are left out.
    """
    (known, label, group), (asked, truth, others) = (_embed_readable(encoder, plain, data) for data in (bank, queries))
    rows = torch.arange(len(known) + len(asked))
    made = evaluate_knn(
        torch.cat([known, asked]),
        torch.cat([label, truth]),
        [(rows[: len(known)], rows[len(known) :])],
        group=torch.cat([group, others]),
        seed=seed,
    )
    (choice,) = made["protocol"]["choices"]
    return {
        "knn": made["accuracy"],
        "knn_low": made["low"],
        "knn_high": made["high"],
        "knn_samples": len(asked),
        "knn_bank": len(known),
        "knn_right": made["right"],
        "knn_k": choice["k"],
        "knn_standardized": int(choice["standardized"]),
    }


def readable(data: Samples, make: Callable[[Samples], Tensor]) -> list[tuple[Tensor, Samples]]:
    """What is made of samples, 256 at a time, and those that could be read; raises Lost where none of these can."""
    parts = []
    for index in torch.arange(len(data)).split(256):
        some = data.subset(index)
        while True:
            try:
                parts.append((make(some), some))
                break
            except Lost as lost:
                if len(lost.at) == len(some):
                    raise
                some = some.subset([k for k in range(len(some)) if k not in lost.at])
    return parts


def _embed_readable(encoder: nn.Module, plain: Views, data: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """Representations, labels and groups of the samples that can be read."""
    read = readable(data, lambda some: passed(encoder, plain, some))
    features, label, group = (
        torch.cat(column) for column in zip(*((rows, some.label, some.group) for rows, some in read), strict=True)
    )
    return features, label, group
