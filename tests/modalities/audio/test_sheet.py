from __future__ import annotations

import math

import torch

from nearfar.looking.features import INFERNO
from nearfar.modalities.audio import views as audio
from nearfar.modalities.audio.sheet import recording_grid, spectrograms, view_sheet

from .small import RATE, samples


def test_high_tones_stand_above_low_ones_and_silence_is_dark() -> None:
    time = torch.arange(2000) / RATE
    waves = torch.stack([torch.sin(2 * math.pi * 200 * time), torch.sin(2 * math.pi * 1500 * time), 0 * time])
    made = spectrograms(waves, RATE, width=40, height=30).float().mean(1)  # N x 30 x 40
    low, high = (made[i].mean(1).argmax() for i in (0, 1))
    assert low > 18
    assert high < 10
    assert (spectrograms(waves, RATE, width=40)[2].movedim(0, 2) == torch.tensor(INFERNO[0])).all()


def test_a_sheet_has_a_row_for_each_recording_and_a_column_for_each_view() -> None:
    known = samples()
    make = audio.views("sound", 1000, RATE, known)
    index = torch.arange(3)
    sheet = view_sheet(known, make, index, make.draw(3, torch.Generator().manual_seed(0)))
    assert sheet.size[0] >= 3 * 160
    assert sheet.size[1] > 3 * 96
    one = recording_grid(known, index, ["a", "b", "c\nd"], 1000)
    assert one.size[1] > 3 * 96
