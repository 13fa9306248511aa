from __future__ import annotations

import base64
import io
import wave

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nearfar.batch import MISSING
from nearfar.data.tiles import (
    DATA_URI,
    FACES,
    LONGEST_CELL,
    LONGEST_EXCERPT,
    Cells,
    Excerpts,
    Face,
    Sounds,
    Thumbnails,
    Tiles,
)


def tiles(face: Face, n: int = 3) -> Tiles:
    label = torch.tensor([0, 1, MISSING])[torch.arange(n) % 3]
    return Tiles(face=face, names=[str(i) for i in range(n)], label=label, classes=["a", "b"], noun="x", plural="xs")


def opened(uri: str) -> Image.Image:
    assert DATA_URI.fullmatch(uri)
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def thumbnails(pixels: Tensor, aspect: Tensor | None = None) -> Thumbnails:
    return Thumbnails(pixels=pixels.__getitem__, aspect=aspect)


def test_a_tile_has_a_name_a_label_and_a_face() -> None:
    made = tiles(Excerpts(text="sample {}".format))
    assert made.each(torch.tensor([2, 0, 2]), 72) == {
        0: {"name": "0", "label": "a", "excerpt": "sample 0"},
        2: {"name": "2", "label": None, "excerpt": "sample 2"},
    }
    assert made.head() == {"face": "excerpts", "noun": "x", "plural": "xs"}


def test_each_tile_of_the_sprite_is_where_the_page_looks_for_it() -> None:
    shade = torch.arange(10, dtype=torch.uint8) * 25
    stored = thumbnails(shade[:, None, None, None].expand(10, 1, 8, 8)).every(torch.arange(10), 40)
    sprite = opened(stored["sprite"])
    for i in range(10):
        x, y = i % stored["across"] * stored["side"], i // stored["across"] * stored["side"]
        assert abs(sprite.getpixel((x + 20, y + 20)) - int(shade[i])) <= 2  # pyright: ignore[reportOperatorIssue]


def test_a_squashed_image_is_shown_in_its_true_proportions() -> None:
    square = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    square[0, :, :, 10:30] = 255  # of an image twice as wide as high, the middle half is its central square
    square[1, :, 10:30, :] = 255
    for tile in thumbnails(square, torch.tensor([2.0, 0.5])).each(torch.arange(2), 72):
        assert opened(tile["thumbnail"]).size == (72, 72)
        assert opened(tile["thumbnail"]).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (5, "RGB")])
def test_images_of_many_channels_are_shown_by_their_first_three(channels: int, mode: str) -> None:
    (tile,) = thumbnails(torch.full((1, channels, 8, 8), 7, dtype=torch.uint8)).each(torch.arange(1), 16)
    assert opened(tile["thumbnail"]).mode == mode


def test_long_cells_and_texts_are_cut() -> None:
    rows = [["1", ""], ["2", "x" * (LONGEST_CELL + 1)]]
    cells = Cells(columns=["size", "color"], numbers=1, cells=rows.__getitem__, hidden=3)
    assert tiles(cells).head()["columns"] == ["size", "color"]
    assert cells.every(torch.arange(2), 40) == {"cells": [["1", ""], ["2", "x" * (LONGEST_CELL - 1) + "…"]]}
    (tile,) = Excerpts(text=lambda i: "a \n b " * LONGEST_EXCERPT).each(torch.arange(1), 72)
    assert tile["excerpt"] == ("a b " * LONGEST_EXCERPT)[: LONGEST_EXCERPT - 1] + "…"


@pytest.mark.parametrize(
    "face",
    [
        thumbnails(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)),
        Cells(columns=["size"], numbers=1, cells=lambda i: [str(i)], hidden=0),
        Excerpts(text=str),
    ],
)
def test_what_a_face_stores_it_reads_as_it_was(face: Face) -> None:
    head, index = tiles(face).head(), torch.arange(3)
    read = FACES[head["face"]]
    drawn = head | face.every(index, 16)
    before = dict(drawn)
    read.check_head(drawn)
    read.check_map(drawn, 3)
    assert drawn == before
    for tile in face.each(index, 16):
        stored = dict(tile)
        read.check_tile(tile, head)
        assert tile == stored


def test_no_image_is_taken_from_elsewhere() -> None:
    for uri in ("https://example.org/spy.png", 'data:image/png;base64,AAAA" onerror="alert(1)', None, 3):
        tile, drawn = {"thumbnail": uri}, {"sprite": uri, "across": 1, "side": 8}
        Thumbnails.check_tile(tile, {})
        Thumbnails.check_map(drawn, 1)
        assert tile["thumbnail"] is drawn["sprite"] is None


def test_sounds_are_played_from_within_the_page_alone() -> None:
    face = Sounds(
        pixels=lambda index: torch.zeros(len(index), 3, 8, 8, dtype=torch.uint8),
        waves=lambda index: torch.linspace(-2, 2, 5).expand(len(index), -1),
        rate=8000,
    )
    tile = face.each(torch.tensor([0, 1]), 8)[1]
    with wave.open(io.BytesIO(base64.b64decode(tile["sound"].partition(",")[2]))) as played:
        assert (played.getframerate(), played.getnchannels()) == (8000, 1)
        assert np.frombuffer(played.readframes(9), "<i2").tolist() == [-32767, -32767, 0, 32767, 32767]
    kept = dict(tile)
    Sounds.check_tile(kept, {})
    assert kept["sound"] == tile["sound"]
    foreign = tile | {"sound": "https://example.com/a.wav"}
    Sounds.check_tile(foreign, {})
    assert foreign["sound"] is None
    assert face.each(torch.tensor([], dtype=torch.int64), 8) == []
