"""Digests by which samples are known again, wherever they lie and whatever they are called."""

from __future__ import annotations

import hashlib
import json
from typing import BinaryIO

from nearfar.batch import MISSING
from nearfar.data.samples import Samples
from nearfar.files import digest


def stream_digest(file: BinaryIO) -> str:
    """The same of all that a file holds, however large it is."""
    return hashlib.file_digest(file, "sha256").hexdigest()[:16]  # pyright: ignore[reportArgumentType]


def digests(data: Samples) -> list[str]:
    """The digest of each sample, taken once and kept with it."""
    if data.digest is None:
        data.digest = [digest(content) for content in data.contents()]
    return data.digest


def fingerprint(known: list[str], data: Samples) -> str:
    """One digest of all samples, in order, from their `digests`, their labels by name, groups and attributes."""
    parts = [json.dumps([known, data.classes]).encode(), data.label.numpy().tobytes(), data.group.numpy().tobytes()]
    if (data.attribute != MISSING).any():
        parts.append(data.attribute.numpy().tobytes())
    return digest(*parts)
