from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from nearfar.modalities.text.samples import open_texts
from nearfar.modalities.text.sheet import _CHANGED, _INK, sentence_sheet
from nearfar.modalities.text.views import views

from .small import TOKENIZER, sentences

SAMPLES = open_texts(sentences(6))


def inks(image: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.asarray(image).reshape(-1, 3).tolist()}


def test_views_that_say_otherwise_stand_in_color() -> None:
    index = torch.tensor([0, 3, 5])
    edited = views("deletion", TOKENIZER, length=16, strength=0.5)
    sheet = sentence_sheet(SAMPLES, edited, index, edited.draw(3, torch.Generator().manual_seed(0)))
    assert _CHANGED in inks(sheet)
    plain = views("dropout", TOKENIZER, length=16)
    sheet = sentence_sheet(SAMPLES, plain, index, plain.draw(3, torch.Generator()))
    assert _CHANGED not in inks(sheet)
    assert _INK in inks(sheet)


def test_captions_stand_below_and_control_characters_do_no_harm() -> None:
    samples = open_texts(["one\x1b[31m two", "\u0645\u0631\u062d\u0628\u0627", "x" * 5000])
    sheet = sentence_sheet(samples, None, torch.tensor([0, 1, 2]), None, ["first", "second\nline", ""])
    assert sheet.width < 2000
    assert sheet.height > 6 * 24
