"""What all processes that train together must have in common: checked before they begin, with a sentence for each
difference."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nearfar import distributed, owner
from nearfar.data.samples import Samples
from nearfar.errors import UserError
from nearfar.files import digest
from nearfar.training.plan import Plan

BLOCK = 1024
"""Samples that are compared by one digest, until a difference is found."""


def insist_alike(plan: Plan, out: Path, *, resume: bool) -> None:
    """Raise ValueError on every rank where one was started otherwise, or does not see the directory of the run.

    Paths of data and labels may differ: what counts is what is there, which is compared when it has been read.
    """
    if distributed.world() == 1:
        return
    saved = plan.saved()
    flags = saved["settings"] | saved["arguments"]
    own = {"--resume": resume, "METHOD": saved["method"], "--recipe": saved["recipe"], "--kind": saved["kind"]}
    own |= {f"--{k.replace('_', '-')}": v for k, v in flags.items() if k not in ("labels", "device")}
    own |= {f"the contents of {name}": code for name, code in saved["code"].items()}
    own |= {f"the version of {name}": version(name) for name in ("nearfar", "torch")}
    own["the version of Python"] = platform.python_version()
    _insist_same(own, "the processes were not started alike: {}. Give all of them the same")
    places = distributed.exchange((str(out), owner.mark(out)))
    for rank, (place, mark) in enumerate(places):
        if mark != places[0][1]:
            raise UserError(
                f"rank {rank} does not find in --out {place!r} the lock that rank 0 holds in {places[0][0]!r}: all "
                "need the same directory, on a disk that they share"
            )


def insist_same_samples_everywhere(samples: Samples, digests: list[str], fingerprint: str, method: nn.Module) -> None:
    """Raise ValueError on every rank where one has other samples, labels or first weights.

    digests: of the samples.  fingerprint: of all of them, with labels and groups.
    """
    if distributed.world() == 1:
        return
    known = distributed.exchange((len(samples), fingerprint))
    if len(set(known)) > 1:
        counts = ", ".join(f"rank {rank} has {count:,}" for rank, (count, _) in enumerate(known))
        raise UserError(
            f"the processes do not have the same samples: {counts}{_first_difference(samples, digests)}. All need the "
            "same data and labels"
        )
    _insist_same({"the digest of the first weights": weights_digest(method)}, "the processes do not begin alike: {}")


def weights_digest(module: nn.Module) -> str:
    """By which the weights and buffers of a module are known again."""
    parts = []
    for name, value in module.state_dict().items():
        parts += [name.encode(), value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data]
    return digest(*parts)


def _insist_same(own: Mapping[str, Any], sentence: str) -> None:
    each = distributed.exchange(dict(own))
    names = dict.fromkeys(name for values in each for name in values)
    different = [name for name in names if any(values.get(name) != each[0].get(name) for values in each)]
    if different:
        texts = [
            f"{name} is " + ", ".join(f"{values.get(name)!r} on rank {rank}" for rank, values in enumerate(each))
            for name in different
        ]
        raise UserError(sentence.format("; ".join(texts)))


def _first_difference(samples: Samples, digests: list[str]) -> str:
    """The first place at which the samples of the ranks differ, and what each has there."""
    classes = [*samples.classes, "no label"]
    labels = [classes[c] for c in samples.label.tolist()]  # MISSING is -1: the last
    rows = list(zip(samples.names, digests, labels, samples.group.tolist(), strict=True))
    starts = range(0, len(rows), BLOCK)
    blocks = distributed.exchange([digest(repr(rows[i : i + BLOCK]).encode()) for i in starts])
    longest = max(map(len, blocks))
    block = next((i for i in range(longest) if len({tuple(part[i : i + 1]) for part in blocks}) > 1), 0)
    parts = distributed.exchange(rows[block * BLOCK : (block + 1) * BLOCK])
    for i in range(max(map(len, parts))):
        here = [part[i] if i < len(part) else None for part in parts]
        if len(set(here)) > 1:
            what = [f"{row[0]!r} ({row[2]}, contents {row[1]})" if row else "none" for row in here]
            each = ", ".join(f"{text} on rank {rank}" for rank, text in enumerate(what))
            return f"; the first that differs is sample {block * BLOCK + i}: {each}"
    return "; they differ in a second label"
