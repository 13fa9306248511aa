"""The samples of a run that goes on: the same ones in the same order, whatever has become of their files."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from nearfar.batch import MISSING
from nearfar.data.digests import digests
from nearfar.data.samples import Samples
from nearfar.errors import UserError, listed
from nearfar.training.build import Say
from nearfar.training.directory import read_samples

Lost = dict[int, tuple[str, str]]


def as_before(now: Samples, saved: dict[str, Any], out: Path, data: str, say: Say) -> tuple[Samples, Lost]:
    """The samples that the run in `out` was trained on, found by their digests; and those that are there no more.

    These keep their places, where others stand in for them (see `StandIns`), as far as --max-bad allows it. New samples
    take no part. Labels, groups and attributes are those of before.
    now: what is there now, in the form in which the run saw it.  saved: the run's config.  data: where `now` is from.
    Raises ValueError, which names them, where too many samples are missing or changed, where labels are others, or
    where the order is another.
    """
    before = read_samples(out, saved).to_pydict()
    names, n = before["name"], len(before["name"])
    place, new = _found(
        list(zip(before["digest"], names, strict=True)), list(zip(digests(now), now.names, strict=True))
    )
    there = [i for i in range(n) if place[i] is not None]
    rows = torch.tensor([place[i] for i in there], dtype=torch.int64)

    def refuse(what: str, remedy: str = "Give the same data") -> UserError:
        return UserError(
            f"the samples in {data!r}, or their labels, are not those that {str(out)!r} was trained on: {what}. "
            f"{remedy}, or start a new run with another --out"
        )

    unread = dict(now.skipped)
    others = {now.names[j] for j in new}
    lost = {
        i: (names[i], unread.get(names[i], "its bytes have changed" if names[i] in others else "it is gone"))
        for i in range(n)
        if place[i] is None
    }
    gone = {name for name, _ in lost.values()}
    skipped = [(name, why) for name, why in now.skipped if name not in gone]
    added = [now.names[j] for j in new if now.names[j] not in gone]
    if lost:
        what = f"{len(lost)} of {n} are missing or changed: {listed(lost.values())}"
        if now.max_bad is None or not there:
            raise refuse(what)
        share = (len(lost) + len(skipped)) / (n + len(skipped))
        if share > now.max_bad:
            enough = math.ceil(100 * share) / 100
            raise refuse(what, f"Put back what was there, or go on without them with --max-bad {enough:g}")
        say(f"{what}. Others stand in for them.")
    if (rows.diff() < 0).any():
        first = next(i for i in range(len(rows) - 1) if rows[i + 1] < rows[i])
        raise refuse(f"they are in another order, from {names[there[first]]!r} on")
    if added:
        say(f"New samples take no part in a run that goes on: {len(added)}, such as {added[0]!r}.")
    _insist_same_labels(now.subset(rows), {key: [values[i] for i in there] for key, values in before.items()}, refuse)
    number = {name: k for k, name in enumerate(saved["made"]["classes"])} | {None: MISSING}
    whole = now.subset([0 if j is None else j for j in place])
    samples = dataclasses.replace(
        whole,
        names=names,
        digest=before["digest"],
        label=torch.tensor([number[name] for name in before["label"]]),
        classes=saved["made"]["classes"],
        group=torch.tensor(before["group"]),
        attribute=torch.tensor(before["attribute"]),
        skipped=skipped,
    )
    return samples, lost


def _found(before: list[tuple[str, str]], now: list[tuple[str, str]]) -> tuple[list[int | None], list[int]]:
    """Where each sample of before is now, or None; and the samples that were not there before.

    before, now: digest and name of each. Equal samples are told apart by their names, as far as these are the same.
    """
    free = set(range(len(now)))
    place: list[int | None] = [None] * len(before)
    for key in (lambda sample: sample, lambda sample: sample[0]):
        at: defaultdict[Any, list[int]] = defaultdict(list)
        for j in sorted(free, reverse=True):
            at[key(now[j])].append(j)
        for i, sample in enumerate(before):
            if place[i] is None and at[key(sample)]:
                place[i] = at[key(sample)].pop()
                free.discard(place[i])
    return place, sorted(free)


def _insist_same_labels(now: Samples, before: dict[str, list[Any]], refuse: Any) -> None:
    labels = [None if c == MISSING else now.classes[c] for c in now.label.tolist()]
    if other := [i for i, name in enumerate(labels) if name != before["label"][i]]:
        i = other[0]
        raise refuse(
            f"the label of {len(other)} of {len(labels)} is another: that of {now.names[i]!r} was "
            f"{before['label'][i]!r} and is {labels[i]!r}"
        )
    for what, values in (("group", now.group), ("attribute", now.attribute)):
        if _numbered(values.tolist()) != _numbered(before[what]):
            raise refuse(f"the {what}s are others")


def _numbered(values: list[int]) -> list[int]:
    """Groups numbered as they come, so that only who belongs together counts."""
    number: dict[int, int] = {MISSING: MISSING}
    return [number.setdefault(value, len(number)) for value in values]
