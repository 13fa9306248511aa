"""By what samples are known again, wherever their files lie."""

from __future__ import annotations

import hashlib

import torch

from nearfar.data.image import Images


def digests(data: Images) -> list[str]:
    """A fingerprint of each sample's stored pixels, by which it is known again; of its name if not in memory."""
    if not data.cached:
        return [hashlib.blake2b(name.encode(), digest_size=8).hexdigest() for name in data.names]
    return [
        hashlib.blake2b(picture.contiguous().numpy().tobytes(), digest_size=8).hexdigest()
        for index in torch.arange(len(data)).split(512)
        for picture in data.pixels(index).cpu()
    ]


def fingerprint(known: list[str], data: Images) -> str:
    """One fingerprint of all samples, in order, from their `digests`, their labels and groups."""
    whole = "".join(known).encode() + data.label.numpy().tobytes() + data.group.numpy().tobytes()
    return hashlib.blake2b(whole, digest_size=8).hexdigest()
