from __future__ import annotations

import numpy as np
from PIL import Image

from nearfar.modalities.sheets import side_by_side


def test_sheets_stand_side_by_side_as_they_are() -> None:
    random = np.random.default_rng(0)
    sheets = [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((90, 300), (60, 200))]
    whole = np.asarray(side_by_side([("first", sheets[0]), ("second", sheets[1])]))
    assert whole.shape == (44 + 90, 300 + 12 + 200, 3)
    assert np.array_equal(whole[44:, :300], np.asarray(sheets[0]))
    assert np.array_equal(whole[44:104, 312:], np.asarray(sheets[1]))
    assert (whole[104:, 320:] == 255).all()
