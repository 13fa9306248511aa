"""Drawings of graphs and of their views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nearfar.modalities.graph.samples import open_graphs
from nearfar.modalities.graph.sheet import drawn, graph_sheet, layout, pictures
from nearfar.modalities.graph.views import views

from .small import array_file


def test_a_layout_is_the_same_each_time_and_within_bounds() -> None:
    ring = np.stack([np.arange(6), (np.arange(6) + 1) % 6], 1)
    place = layout(6, ring)
    assert np.array_equal(place, layout(6, ring))
    assert (place.min(), place.max()) == (0, 1)
    assert len(np.unique(place.round(3), axis=0)) == 6
    assert layout(1, ring[:0]).tolist() == [[0.5, 0.5]]
    path = np.stack([np.arange(119), np.arange(1, 120)], 1)
    assert np.isfinite(layout(120, path)).all()


def test_nodes_and_edges_are_drawn_and_dropped_ones_are_not() -> None:
    place, edges = np.array([[0.1, 0.1], [0.9, 0.9]]), np.array([[0, 1]])
    red = [(255, 0, 0)] * 2
    both, one = (np.asarray(drawn(place, edges, red, 60, shown)) for shown in (None, np.array([True, False])))
    is_red = [int(((x[..., 0] > 200) & (x[..., 1] < 80)).sum()) for x in (both, one)]
    assert is_red[0] == 2 * is_red[1] > 0
    assert (both[30, 30] < 220).all()  # the edge, in the middle
    assert (both[5, 50] == 255).all()


def test_a_sheet_has_each_graph_and_its_views(tmp_path: Path) -> None:
    samples = open_graphs(array_file(tmp_path / "a.npz", 6))
    made = views("random4", strength=0.4)
    index = torch.arange(3)
    sheet = graph_sheet(samples, made, index, made.draw(3, torch.Generator().manual_seed(0)))
    wide = graph_sheet(samples, None, index, None, ["a\nb", "c", "d"])
    assert sheet.height > 3 * 150
    assert sheet.width == 3 * 162 + 40  # each beside its two views
    assert wide.size == (3 * 162 + 40, 150 + 26 + 2 * 18 + 40)  # side by side, with two lines below
    assert len(pictures(samples, index, 48)) == 3
