"""Images seen whole: in their true aspect, at the upper left of a square, with the mean behind them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from nearfar.errors import UserError
from nearfar.modalities import kind as kinds
from nearfar.modalities.image.encoder import image_encoder
from nearfar.modalities.image.samples import open_images
from nearfar.modalities.image.whole import Whole


def test_nothing_is_cut_away_and_no_place_is_moved() -> None:
    tall, wide = np.zeros((40, 20, 3), np.uint8), np.zeros((12, 48, 3), np.uint8)
    tall[30:, 10:], wide[:, :12] = 255, 255
    whole = Whole(open_images([tall, wide], side=16), 16, (0.25, 0.5, 0.75))
    view = whole.view(torch.tensor([1, 0]))
    assert view.shape == (2, 3, 16, 16)
    assert [whole.extent(i) for i in (0, 1)] == [(16, 8), (4, 16)]
    assert [whole.size(i) for i in (0, 1)] == [(20, 40), (48, 12)]
    assert torch.allclose(view[0, :, 4:], torch.tensor([0.25, 0.5, 0.75]).view(3, 1, 1).expand(3, 12, 16))
    assert view[0, :, :4, :3].min() > 0.9
    assert view[0, :, :4, 6:].max() < 0.1
    assert view[1, :, 13:, 5:8].min() > 0.9
    assert view[1, :, :11, :8].max() < 0.1


def test_a_network_is_shown_the_side_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = kinds.of("image")
    encoder = image_encoder("conv4", size=16).eval()
    assert kind.whole_facts(encoder, 48) == {"side": 48}
    assert kind.whole_facts(copy.deepcopy(encoder).to("meta"), 48) == {"side": 48}  # wherever the encoder computes
    vit = image_encoder("vit_tiny_patch16_224", size=32).eval()
    assert kind.whole_facts(vit, 48) == {"side": 32}
    own = encoder.maps

    def strange(view: torch.Tensor) -> list[torch.Tensor]:
        """As MViTv2, whose table of positions ends before a larger image does."""
        return own(view) if view.shape[2] == 16 else [view[:, :, :, view.shape[2]]]

    monkeypatch.setattr(encoder, "maps", strange)
    assert kind.whole_facts(encoder, 48) == {"side": 16}
    with pytest.raises(UserError, match="recordings are not measured"):
        kinds.of("audio").whole_facts(vit, 48)
