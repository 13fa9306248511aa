"""Fingerprints by which samples are known again."""

from __future__ import annotations

import hashlib

from nearfar.batch import MISSING
from nearfar.data.samples import Samples


def digests(data: Samples) -> list[str]:
    """A fingerprint of each sample's contents, by which it is known again, wherever it lies."""
    return [hashlib.blake2b(content, digest_size=8).hexdigest() for content in data.contents()]


def fingerprint(known: list[str], data: Samples) -> str:
    """One fingerprint of all samples, in order, from their `digests`, their labels, groups and attributes."""
    whole = "".join(known).encode() + data.label.numpy().tobytes() + data.group.numpy().tobytes()
    if (data.attribute != MISSING).any():
        whole += data.attribute.numpy().tobytes()
    return hashlib.blake2b(whole, digest_size=8).hexdigest()
