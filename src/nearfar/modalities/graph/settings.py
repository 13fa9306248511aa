"""What can be set about training on graphs, and which data are graphs. Free of torch."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nearfar import settings
from nearfar.errors import UserError
from nearfar.ranges import UnitInterval

CHANGES = ("node_drop", "subgraph", "edge_perturb", "attribute_mask")
"""The four families of changes of GraphCL (arXiv 2010.13902)."""

VIEWS = {**{name: (name,) for name in CHANGES}, **{f"random{n}": CHANGES[:n] for n in (2, 3, 4)}}
"""Of each name, the changes of which one is drawn for each graph."""

TU_PART = re.compile(
    r"(.+)_(A|graph_indicator|graph_labels|graph_attributes|node_labels|node_attributes|edge_labels|edge_attributes)\.txt"
)
"""The name of a text file of the TU collection: data set and part."""


PIPELINE = "graph-ml"
"""What model hubs call the task of such an encoder."""


@dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """How to train."""

    encoder: str = "gin"
    """gin (3 layers of 32), gin-LAYERSxWIDTH such as gin-5x64, or gcn, gcn-LAYERSxWIDTH; with random weights."""
    views: str = "random4"
    """What is changed in a view: node_drop, subgraph, edge_perturb, attribute_mask; random2, random3 or random4, which
    draw one of the first two, three or four for each graph; or FILE.py:FUNCTION. `nearfar views DATA` shows them."""
    changed: Literal["all", "second"] = "all"
    """Which views are changed; second: the first is the graph as it is."""
    strength: UnitInterval = 0.1
    """The share of nodes that are dropped or masked, or of edges that are perturbed."""
    subgraph: UnitInterval = 0.2
    """The share of nodes that a subgraph keeps."""
    official: bool = False
    """Views as in GraphCL's released code instead of its paper: edges are only removed, a subgraph stays among the
    neighbors of one node, masked attributes are noise, nodes left alone are cut."""
    dataset: str = ""
    """Of a file or folder that holds several sets of graphs, the one to take."""
    inputs: Literal["auto", "labels", "numbers", "both", "degrees", "constant"] = "auto"
    """What is known of a node: its label, one-hot, its numbers, both, its degree, one-hot, or nothing. auto: labels and
    numbers as they are there, or else degrees."""
    both_ways: bool = False
    """Add the reverse of each edge where it is missing, of data that list each edge once."""

    def check(self) -> None:
        super().check()
        settings.check_views(self.views, tuple(VIEWS))


def sizes(name: str) -> tuple[str, int, int] | None:
    """Family, layers and width of a network, from its name; None for any other name."""
    found = re.fullmatch(r"(gin|gcn)(?:-0*([1-9][0-9]*)x0*([1-9][0-9]*))?", name)
    return (found[1], int(found[2] or 3), int(found[3] or 32)) if found else None


def insist_encoder(name: str) -> None:
    """Raise ValueError where no network is called so."""
    if sizes(name) is None:
        raise UserError(
            f'no encoder of graphs is called "{name}": gin (3 layers of 32), gin-LAYERSxWIDTH such as gin-5x64, gcn, '
            "or gcn-LAYERSxWIDTH"
        )


def parts(path: Path) -> dict[str, dict[str, str]]:
    """The text files of the TU collection in a folder, however deep, or in a zip: of each data set, name by part."""
    names: Iterable[str] = ()
    if path.is_dir():
        names = (found.as_posix() for found in sorted(path.rglob("*.txt")))
    elif path.name.lower().endswith(".zip") and path.is_file():
        names = _held(path)
    found: dict[str, dict[str, str]] = {}
    for name in names:
        if match := TU_PART.fullmatch(name.rpartition("/")[2]):
            found.setdefault(match[1], {})[match[2]] = name
    return {name: files for name, files in found.items() if {"A", "graph_indicator"} <= set(files)}


def arrays(path: Path) -> dict[str, dict[str, str]]:
    """The arrays of an .npz file of graphs: of each data set, "" where it is not named, the array's name by part."""
    found: dict[str, dict[str, str]] = {}
    if path.name.lower().endswith(".npz") and path.is_file():
        for name in _held(path):
            home, _, part = name.removesuffix(".npy").rpartition("/")
            found.setdefault(home, {})[part] = name.removesuffix(".npy")
    return {name: files for name, files in found.items() if {"edge_index", "graph_id"} <= set(files)}


def recognizes(data: Any) -> bool:
    """Whether data are graphs: files of the TU collection, an .npz file with edge_index and graph_id, a list of graphs
    of networkx or PyTorch Geometric, or a data set of the latter."""
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        return bool(arrays(path) or parts(path))
    if hasattr(data, "graphs") and hasattr(data, "inputs"):  # samples that are open
        return True
    if isinstance(data, list | tuple):
        return bool(data) and all(map(is_graph, data[:100]))
    return hasattr(data, "num_node_features") and hasattr(data, "get") and hasattr(data, "__len__")


def is_graph(data: Any) -> bool:
    """Whether this is one graph of PyTorch Geometric, or of networkx."""
    return hasattr(data, "edge_index") or (hasattr(data, "nodes") and hasattr(data, "edges") and hasattr(data, "adj"))


def _held(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


@dataclass(frozen=True, kw_only=True)
class Facts(settings.Facts):
    """What a recipe for graphs may go by."""


def study_encoder() -> str:
    """The network on which methods are compared, where none is named."""
    return "gin"


def recipe_for(data: Any) -> str:
    """The recipes of papers that suit the data."""
    return "graphs"


def measured_for(data: Any) -> str:
    """The recipes that were chosen by measurement: there are none yet."""
    return ""
