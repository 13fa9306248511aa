from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from typing import ClassVar

import torch

from nearfar.data.digests import digest, digests, fingerprint, stream_digest
from nearfar.data.samples import Samples
from nearfar.modalities.image.samples import open_images
from tests.tiny import tiny_images


def test_digests_know_a_sample_by_its_contents() -> None:
    array = tiny_images(8)
    first, second = digests(open_images(array)), digests(open_images(array[::-1].copy()))
    assert first == second[::-1]
    assert len(set(first)) == 8


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class Words(Samples):
    PER_SAMPLE = ("words",)

    words: list[str]
    asked: ClassVar[list[str]] = []

    def contents(self) -> Iterator[bytes]:
        for word in self.words:
            self.asked.append(word)
            yield word.encode()


def test_samples_of_any_kind_are_asked_for_their_contents_once_and_keep_the_digest() -> None:
    label = torch.zeros(3, dtype=torch.int64)
    data = Words(names=["a", "b", "c"], label=label, classes=["x"], group=label, split=[""] * 3, words=["p", "q", "p"])
    assert digests(data.subset([1])) == [digest(b"q")]
    assert data.digest is None
    known = digests(data)
    assert known == [digest(b"p"), digest(b"q"), digest(b"p")]
    assert Words.asked == ["q", "p", "q", "p"]
    some = dataclasses.replace(data, names=["d", "e", "f"]).subset([2, 1])
    assert digests(some) == [known[2], known[1]]
    assert Words.asked == ["q", "p", "q", "p"]
    assert digest(b"p", b"q") == digest(b"pq") == stream_digest(io.BytesIO(b"pq"))


def test_a_fingerprint_changes_with_samples_order_and_labels() -> None:
    images, label = tiny_images(8), torch.arange(8) % 2
    variants = [(images, label), (images[::-1].copy(), label), (images[:7], label[:7]), (images, 1 - label)]
    opened = [open_images((array, names.numpy())) for array, names in variants]
    assert len({fingerprint(digests(data), data) for data in opened}) == len(variants)


def test_a_fingerprint_knows_labels_by_name_and_groups() -> None:
    data = open_images((tiny_images(4), torch.arange(4).numpy() % 2))
    others = [
        dataclasses.replace(data, classes=["0", "2"]),
        dataclasses.replace(data, group=torch.tensor([0, 0, 1, 1])),
        dataclasses.replace(data, attribute=torch.tensor([0, 0, 1, 1])),
    ]
    assert len({fingerprint(digests(each), each) for each in (data, *others)}) == 4
