"""Encoders, one file a kind of data. Each can be described, built again from that, exported, and tried."""

from __future__ import annotations

from typing import Any

from nearfar.modalities.image import encoder as image
from nearfar.modalities.image.encoder import ImageEncoder
from nearfar.modalities.table import encoder as table
from nearfar.modalities.table.encoder import TableEncoder

AnyEncoder = ImageEncoder | TableEncoder


def from_spec(spec: dict[str, Any]) -> AnyEncoder:
    """The encoder that a `spec` describes, with random weights."""
    return table.from_spec(spec) if spec.get("kind") == "table" else image.from_spec(spec)
