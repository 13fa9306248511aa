"""Which change destroys the meaning, on images made so that it is known."""

from __future__ import annotations

import pytest
import torch

from nearfar.modalities.image import named
from nearfar.modalities.image.changes import changed
from nearfar.modalities.image.kept import _Judge, alone, meaning
from nearfar.modalities.image.samples import Images, open_images


def colored(n: int = 60) -> Images:
    """Noisy images of two labels, which differ in color alone."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(60, 120, (n, 24, 24, 1), generator=generator).expand(-1, -1, -1, 3).clone()
    label = torch.arange(n) % 2
    x[label == 0, :, :, 0] += 100
    x[label == 1, :, :, 2] += 100
    x[label == 1, :, :, 1] += 32  # which makes both as bright
    return open_images(x.byte().numpy(), labels=label.numpy())


def directed(n: int = 60) -> Images:
    """Images of two labels: bright on the left, or on the right."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(40, 200, 24).expand(n, 24, 24).clone()
    label = torch.arange(n) % 2
    ramp[label == 1] = ramp[label == 1].flip(2)
    x = (ramp + torch.randint(-30, 30, (n, 24, 24), generator=generator)).clamp(0, 255)
    return open_images(x.byte().numpy(), labels=label.numpy())


def test_the_change_that_takes_away_what_labels_say_is_found() -> None:
    views = changed(named.colorful(24), ["hue=0.5", "gray=0.1"], "colorful")
    found = meaning(colored(), {"a": views, "b": named.cmc(24)})
    rows = {row.change: row for row in found.views["a"]}
    assert list(rows) == ["area", "flip", "brightness", "contrast", "saturation", "hue", "gray", "all"]
    assert found.untouched > 0.95
    assert found.chance == pytest.approx(29 / 59)
    assert rows["gray"].same < 0.75
    assert rows["gray"].lost.low > 0.1
    assert rows["flip"].lost.low <= 0
    assert rows["flip"].kept == pytest.approx(rows["flip"].same / found.untouched)
    assert [row.change for row in found.views["b"]] == ["area", "flip", "all"]
    mirrored = {row.change: row for row in meaning(directed(), {"a": named.colorful(24)}).views["a"]}
    assert mirrored["flip"].lost.low > 0.2
    assert mirrored["brightness"].lost.low <= 0
    assert not {"hue", "saturation", "gray"} & set(mirrored)  # one channel has no colors


def test_each_change_stands_alone() -> None:
    texts = ["vflip=0.2", "quarter_turns=1", "rotate=30", "shift=0.1", "cutout=0.1", "randaugment=1", "solarize=0.2"]
    view = changed(named.simclr(64), texts, "simclr").views[0]
    found = alone(view, 3)
    assert len(found) == 15
    for name, (setting, single) in found.items():
        assert list(alone(single, 3)) == [name]
        assert alone(single, 3)[name][1] == single
        if name in ("vflip", "cutout", "solarize", "gray", "blur"):
            assert getattr(single, name) == 1
            assert setting == getattr(view, name)


def test_neighbors_are_those_of_a_slow_loop() -> None:
    images = colored(12)
    images.group[:3] = 7
    generator = torch.Generator().manual_seed(1)
    query, *copies = torch.randn(3, 12, 4, generator=generator)
    found = _Judge(images)(query, copies)
    for i in range(12):
        others = [j for j in range(12) if j != i and not (i < 3 and j < 3)]
        near = [
            (max(float(query[i] @ rows[j]) for rows in copies), int(images.label[j] == images.label[i])) for j in others
        ]
        best = sorted(near, reverse=True)[:5]
        assert float(found[i]) == pytest.approx(sum(same for _, same in best) / 5)


def test_without_labels_nothing_is_told() -> None:
    with pytest.raises(ValueError, match="two or more are on several images"):
        meaning(colored().without_labels(), {"a": named.cmc(24)})
