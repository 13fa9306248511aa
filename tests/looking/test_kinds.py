"""What makes samples similar, of every kind: pictures or words, whoever else is in the batch."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar.batch import select
from nearfar.errors import UserError
from nearfar.method import Encoder
from nearfar.modalities import kind as kinds
from nearfar.modalities.kind import Kind, plain_view


def opened(name: str, folder: Path) -> tuple[Kind, Encoder, Any]:
    """A kind, an untrained encoder for few small samples of it, and the plain view of four of them."""
    data, flags = import_module(f"tests.modalities.{name}.few").few(folder)
    kind = kinds.of(name)
    settings = kind.Settings(**flags)
    samples = kind.open(str(data) if isinstance(data, Path) else data, settings)
    torch.manual_seed(0)
    encoder = kind.encoder(samples, settings, kind.facts(samples, settings)).eval()
    return kind, encoder, plain_view(kind.plain(encoder), samples, torch.arange(4), torch.device("cpu"))


@pytest.mark.parametrize("name", ["image", "video", "audio", "graph", "table", "text"])
def test_each_kind_says_what_counts(name: str, tmp_path: Path) -> None:
    kind, encoder, view = opened(name, tmp_path)
    with torch.no_grad():
        target = encoder(view).flip(0)
    parts = kind.similar_parts(encoder, view, target)
    assert len(parts) == 4
    (alone,) = kind.similar_parts(encoder, select(view, torch.tensor([2])), target[2:3])
    if name in ("table", "text"):
        assert all(part.picture is None for part in parts)
        assert all(max(abs(share) for _, share in part.words) == pytest.approx(1) for part in parts)
        assert [word for word, _ in alone.words] == [word for word, _ in parts[2].words]
        assert [share for _, share in alone.words] == pytest.approx([share for _, share in parts[2].words], abs=1e-3)
    else:
        shown = kind.pictures(encoder, view)
        made = [part.picture for part in parts if part.picture is not None]
        assert torch.stack(made).shape == shown.shape
        assert all(0 <= float(one.min()) <= float(one.max()) <= 1 for one in made)
        torch.testing.assert_close(alone.picture, made[2], atol=1e-3, rtol=0)
    if name == "text":
        assert [len(part.words) for part in parts] == view.length.tolist()
    if name == "table":
        assert {word for word, _ in parts[0].words} >= {"one", "two", "word"}


def test_a_pair_names_the_flag_for_one_side() -> None:
    with pytest.raises(UserError, match="--tower"):
        kinds.of("pair").pictures(Encoder(), None)
