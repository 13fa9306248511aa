"""Graphs in small: rings and stars, that a count of edges cannot tell apart but their neighborhoods do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nearfar.modalities.graph.graphs import Graphs

FLAGS = ("--encoder", "gin-2x8", "--epochs", "2", "--batch", "16", "--probe-every", "1")


def tree_edges(kind: int, nodes: int) -> np.ndarray:
    """A path, where kind is 0, or a star of so many nodes: 2 x 2 (nodes - 1), both ways."""
    child = np.arange(1, nodes)
    parent = child - 1 if kind == 0 else np.zeros_like(child)
    return np.stack([np.concatenate([child, parent]), np.concatenate([parent, child])])


def arrays(n: int = 40, *, fold: bool = False, name: str = "") -> dict[str, np.ndarray]:
    """n graphs, paths and stars in turn, of 5 to 12 nodes that have one of three labels, as an .npz file has them."""
    random = np.random.default_rng(0)
    sizes = 5 + random.integers(0, 8, n)
    first = np.cumsum(sizes) - sizes
    edges = [tree_edges(i % 2, size) + start for i, (size, start) in enumerate(zip(sizes, first, strict=True))]
    made: dict[str, Any] = {
        "edge_index": np.concatenate(edges, 1),
        "graph_id": np.repeat(np.arange(n), sizes),
        "node_label": random.integers(0, 3, sizes.sum()),
        "graph_label": np.arange(n) % 2,
    }
    if fold:
        made["fold"] = np.arange(n) // 2 % 5
    return {f"{name}/{part}" if name else part: values for part, values in made.items()}


def array_file(path: Path, n: int = 40, **changed: Any) -> Path:
    np.savez(path, **arrays(n, **changed))
    return path


def texts(folder: Path, name: str = "SMALL", n: int = 40) -> Path:
    """The same as text files of the TU collection."""
    held = arrays(n)
    folder.mkdir(parents=True, exist_ok=True)
    lines = {
        "A": [f"{a + 1}, {b + 1}" for a, b in held["edge_index"].T],
        "graph_indicator": held["graph_id"] + 1,
        "graph_labels": held["graph_label"],
        "node_labels": held["node_label"],
    }
    for part, rows in lines.items():
        (folder / f"{name}_{part}.txt").write_text("".join(f"{row}\n" for row in rows))
    return folder


def graphs(n: int = 6, *, width: int = 3, edges: int = 0, seed: int = 0) -> Graphs:
    """n connected graphs of 4 to 20 nodes with random attributes: trees and some edges more, both ways."""
    random = np.random.default_rng(seed)
    index, nodes, first = [], [], 0
    for size in random.integers(4, 21, n).tolist():
        child = np.arange(1, size)
        parent = (random.random(size - 1) * child).astype(np.int64)
        pairs = {(int(p), int(c)) for p, c in zip(parent, child, strict=True)}
        pairs |= {tuple(sorted(random.choice(size, 2, replace=False).tolist())) for _ in range(size // 3)}
        one = np.array(sorted(pairs)).T
        index.append(np.concatenate([one, one[::-1]], 1) + first)
        nodes.append(size)
        first += size
    edge_index = torch.from_numpy(np.concatenate(index, 1))
    generator = torch.Generator().manual_seed(seed)
    attr = None
    if edges:  # the same both ways
        key = edge_index.amin(0) * first + edge_index.amax(0)
        attr = torch.rand(first * first, edges, generator=generator)[key]
    return Graphs(torch.rand(first, width, generator=generator), edge_index, torch.tensor(nodes), attr)
