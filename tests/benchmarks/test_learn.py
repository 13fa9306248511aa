"""Learning checks: SimCLR's always, and those of methods whose file changed since their committed result."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import learn
from nearfar import methods
from nearfar.modalities.image.drawings import drawings
from nearfar.ops.lab import rgb_to_lab


@pytest.mark.learn
@pytest.mark.parametrize("name", sorted({"simclr", *filter(learn.stale, methods.names())}))
def test_a_method_learns_from_drawings(name: str) -> None:
    # A pass over a third of the drawings is plenty for SimCLR.
    result = learn.check(name, epochs=1, every=3) if name == "simclr" else learn.check(name)
    assert result["learned"], f"{name}: untrained {result['untrained']}, trained {result['trained']}, {result['gain']}"


@pytest.mark.parametrize("name", methods.names())
def test_every_method_has_a_committed_result_of_what_it_learned(name: str) -> None:
    path = learn.RESULTS / f"{name}.json"
    assert path.exists(), f"run python -m benchmarks.learn {name} and commit {path.name}"
    assert json.loads(path.read_text())["learned"] == (name not in learn.UNLEARNED)


def test_inked_drawings_tell_their_alphabet_by_hue_and_nothing_by_lightness() -> None:
    some = drawings("test").subset(range(0, 4840, 40))
    for chroma in (0, 40):
        images = learn.inked(some, chroma=chroma)
        assert images.channels == 3
        assert images.names == some.names
        full = some.pixels(torch.arange(len(some)))[:, 0] == 255  # N x S x S
        pixels = images.pixels(torch.arange(len(images))).permute(0, 2, 3, 1)
        inks = [image[ink][0] for image, ink in zip(pixels, full, strict=True) if ink.any()]
        lab = rgb_to_lab(torch.stack(inks).float()[..., None, None] / 255)[..., 0, 0]  # n x 3
        torch.testing.assert_close(lab[:, 0], torch.full((len(lab),), 70.0), atol=1, rtol=0)
        torch.testing.assert_close(lab[:, 1:].norm(dim=1), torch.full((len(lab),), float(chroma)), atol=2, rtol=0)
        hues = {tuple(ink.tolist()) for ink in inks}
        assert len(hues) == (8 if chroma else 1)
