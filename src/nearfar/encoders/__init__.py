"""Encoders, one file a kind of data. Each can be described, built again from that, exported, and tried."""

from __future__ import annotations

from typing import Any

from nearfar.encoders import image, table
from nearfar.encoders.image import ImageEncoder
from nearfar.encoders.table import TableEncoder

AnyEncoder = ImageEncoder | TableEncoder


def from_spec(spec: dict[str, Any]) -> AnyEncoder:
    """The encoder that a `spec` describes, with random weights."""
    return table.from_spec(spec) if spec.get("kind") == "table" else image.from_spec(spec)
