"""Graphs and their views as drawings, to see at a glance what a method will be asked to hold together."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nearfar.errors import NotInstalled
from nearfar.modalities.graph.graphs import Graphs
from nearfar.modalities.graph.samples import GraphSamples
from nearfar.modalities.graph.views import Draws, Views

_INK, _FAINT, _EDGE, _CHANGED = (40, 40, 40), (120, 120, 120), (150, 150, 150), (200, 60, 20)
_SIDE, _MARGIN, _HEAD = 150, 20, 26

SPRINGS = 100
"""Nodes up to which a graph is laid out by springs, as networkx does; larger ones by their spectrum, which is quick."""


def layout(nodes: int, edges: np.ndarray) -> np.ndarray:
    """Where to draw the nodes of a graph, by networkx: nodes x 2, each from 0 to 1.  edges: E x 2."""
    try:
        import networkx as nx
    except ModuleNotFoundError as error:
        raise NotInstalled(
            "graphs are drawn by networkx, which is not installed: pip install 'nearfar[graphs]'"
        ) from error
    graph = nx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(edges.tolist())
    found = nx.spring_layout(graph, seed=0) if nodes <= SPRINGS else nx.spectral_layout(graph)
    place = np.array([found[i] for i in range(nodes)], dtype=np.float64).reshape(-1, 2)
    low, high = place.min(0), place.max(0)
    return np.where(high - low > 1e-9, (place - low) / np.maximum(high - low, 1e-9), 0.5)


def drawn(
    place: np.ndarray,
    edges: np.ndarray,
    colors: Sequence[tuple[int, int, int]],
    side: int,
    shown: np.ndarray | None = None,
) -> Image.Image:
    """A graph as a picture of side x side.  place: see `layout`.  colors: of the nodes.  shown: which are drawn."""
    wide = 3 * side  # drawn larger and made smaller, for smooth lines
    sheet = Image.new("RGB", (wide, wide), "white")
    pen = ImageDraw.Draw(sheet)
    radius = max(wide / 80, min(wide / 28, wide / (3 * max(len(place), 1) ** 0.5)))
    at = radius + 6 + place * (wide - 2 * radius - 12)
    for a, b in edges.tolist():
        pen.line((*at[a], *at[b]), fill=_EDGE, width=max(2, round(radius / 4)))
    for i, (x, y) in enumerate(at.tolist()):
        if shown is None or shown[i]:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colors[i], outline=_INK, width=2)
    return sheet.resize((side, side), Image.Resampling.LANCZOS)


def pictures(samples: GraphSamples, index: Tensor, side: int = _SIDE) -> list[Image.Image]:
    """Some graphs, their nodes in the colors of what is known of them."""
    graphs = samples.known(index)
    colors = _colors(graphs, samples)
    made = []
    for i in range(len(index)):
        nodes, edges, own = _one(graphs, i)
        made.append(drawn(layout(nodes, edges), edges, colors[own], side))
    return made


def scored_pictures(graphs: Graphs, score: Tensor, side: int = _SIDE) -> Tensor:
    """Graphs whose nodes are the redder the higher their score is, of 0 or more, for their graph: N x 3 x side x side,
    in [0, 1].  score: nodes."""
    made = []
    for i in range(graphs.count()):
        nodes, edges, own = _one(graphs, i)
        share = score[own] / score[own].max().clamp(min=1e-12)
        colors = [(255 - round(55 * s), 255 - round(195 * s), 255 - round(235 * s)) for s in share.tolist()]
        made.append(np.asarray(drawn(layout(nodes, edges), edges, colors, side)))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float() / 255


def graph_sheet(
    samples: GraphSamples, views: Views | None, index: Tensor, draws: Draws | None, captions: Sequence[str] = ()
) -> Image.Image:
    """Draw each graph, and beside it its views: nodes where they were, those whose attributes are masked in color.

    captions: of each sample, in the place of views.
    """
    graphs = samples.known(index)
    colors = _colors(graphs, samples)
    # What is drawn of a view is told by nodes that know nothing but their number.
    number = torch.arange(len(graphs.x), dtype=torch.float32)[:, None]
    marked = graphs.with_x(number - graphs.first[graphs.batch][:, None])
    seen = [] if views is None else views(marked, draws=draws)
    across = 1 + len(seen)
    font = ImageFont.load_default(14)
    columns = 1 if seen else min(4, max(1, len(index)))
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    pitch = _SIDE + _HEAD + 18 * lines
    rows = -(-len(index) // columns)
    sheet = Image.new("RGB", (2 * _MARGIN + across * columns * (_SIDE + 12), 2 * _MARGIN + rows * pitch), "white")
    pen = ImageDraw.Draw(sheet)
    for i in range(len(index)):
        nodes, edges, own = _one(graphs, i)
        place, of = layout(nodes, edges), colors[own]
        left, top = _MARGIN + (i % columns) * across * (_SIDE + 12), _MARGIN + (i // columns) * pitch
        pen.text((left, top), f"graph {samples.names[int(index[i])]}", fill=_FAINT, font=font)
        sheet.paste(drawn(place, edges, of, _SIDE), (left, top + _HEAD))
        if captions and not seen:
            pen.multiline_text((left, top + _HEAD + _SIDE), captions[i], fill=_INK, font=ImageFont.load_default(11))
        for v, view in enumerate(seen):
            left += _SIDE + 12
            pen.text((left, top), f"view {v + 1}", fill=_FAINT, font=font)
            sheet.paste(_view(view, i, nodes, place, of), (left, top + _HEAD))
    return sheet


def _view(view: Graphs, i: int, nodes: int, place: np.ndarray, of: list[tuple[int, int, int]]) -> Image.Image:
    kept, edges, own = _one(view, i)
    told = view.x[own, 0].numpy()
    if kept == nodes:  # none is dropped: they stand in order, and those that say otherwise are masked
        which = np.arange(nodes)
        of = [c if told[j] == j else _CHANGED for j, c in enumerate(of)]
    else:
        which = told.astype(np.int64)
    shown = np.isin(np.arange(nodes), which)
    return drawn(place, which[edges], of, _SIDE, shown)


def _one(graphs: Graphs, i: int) -> tuple[int, np.ndarray, slice]:
    """Of one graph how many nodes it has, its edges, E x 2, by their number in it, and where its nodes are."""
    first, nodes = int(graphs.first[i]), int(graphs.nodes[i])
    inside = (graphs.edge_index[0] >= first) & (graphs.edge_index[0] < first + nodes)
    return nodes, (graphs.edge_index[:, inside] - first).T.numpy(), slice(first, first + nodes)


def _colors(graphs: Graphs, samples: GraphSamples) -> list[tuple[int, int, int]]:
    """Of each node one for its label, or for its degree."""
    kinds = samples.node.names
    code = graphs.x[:, 0].long() if len(kinds) > 1 else graphs.degrees().clamp(max=8)
    steps = max(len(kinds), 1) if len(kinds) > 1 else 9
    wheel = [colorsys.hls_to_rgb(k * 0.618 % 1, 0.62, 0.6) for k in range(steps)]
    palette = [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in wheel]
    return [palette[k] for k in code.tolist()]
