from __future__ import annotations

import pytest

from nearfar.modalities.video import named
from nearfar.modalities.video.settings import VIEWS


@pytest.mark.parametrize("name", VIEWS)
def test_every_name_gives_two_views_of_the_side(name: str) -> None:
    views = getattr(named, name)(64).views
    assert [view.size for view in views] == [64, 64]


def test_the_views_of_the_paper_and_of_its_code() -> None:
    first, second = named.cvrl(64).views
    assert first == second
    assert (first.area, first.ratio, first.flip) == ((0.3, 1.0), (0.5, 2.0), 0.5)
    assert (first.brightness, first.hue, first.blur, first.kernel) == (0.8, 0.2, 0.5, 7)
    one, two = named.cvrl_released(64).views
    assert (one.blur, one.solarize, two.blur, two.solarize) == (1.0, 0.0, 0.1, 0.2)
    assert named.motion(64).views[0].flip == named.tcn(64).views[0].flip == 0
