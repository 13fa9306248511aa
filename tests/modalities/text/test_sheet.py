from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.modalities.text import sheet
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
    made = sentence_sheet(SAMPLES, edited, index, edited.draw(3, torch.Generator().manual_seed(0)))
    assert _CHANGED in inks(made)
    plain = views("dropout", TOKENIZER, length=16)
    made = sentence_sheet(SAMPLES, plain, index, plain.draw(3, torch.Generator()))
    assert _CHANGED not in inks(made)
    assert _INK in inks(made)


def test_captions_stand_below_and_control_characters_do_no_harm() -> None:
    samples = open_texts(["one\x1b[31m two", "\u0645\u0631\u062d\u0628\u0627", "x" * 5000])
    made = sentence_sheet(samples, None, torch.tensor([0, 1, 2]), None, ["first", "second\nline", ""])
    assert made.width < 2000
    assert made.height > 6 * 24


def test_signs_that_no_font_has_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "FONTS", ("no such font.ttf",))
    assert sheet._font(set("кошка"))[1] == len(set("кошка"))
    assert sheet._font(set("Katze"))[1] == 0
    latin, others = (sentence_sheet(open_texts([text]), None, torch.tensor([0]), None, [""]) for text in ("a", "я"))
    assert others.height == latin.height + sheet._LINE + 12
