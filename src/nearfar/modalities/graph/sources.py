"""Graphs as files and Python hold them: the text files of the TU collection, .npz, PyTorch Geometric, networkx."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.data.labels import some
from nearfar.errors import NotFound, UserError, counted
from nearfar.modalities.graph.settings import arrays, is_graph, parts

WANTED = (
    "text files of the TU collection (NAME_A.txt, NAME_graph_indicator.txt) in a folder or a .zip, an .npz file with "
    "edge_index and graph_id, a list of graphs of networkx or PyTorch Geometric, or a data set of the latter"
)

CODED = ("node_label", "edge_label")
"""Parts that are labels: text, or numbers that only name something."""


@dataclass
class Raw:
    """N graphs as they were read, all of which hang together.

    nodes: N, how many each has; edges: E x 2, by numbers among all nodes, in the order of their graphs.
    node_label, edge_label: a text each, or None.  node_number, edge_number: float32, rows x A, or None.
    columns: of each graph, by name.  fold: N, or None.  skipped: (name, reason).  names: of each graph.
    """

    nodes: np.ndarray
    edges: np.ndarray
    names: list[str]
    node_label: np.ndarray | None = None
    edge_label: np.ndarray | None = None
    node_number: np.ndarray | None = None
    edge_number: np.ndarray | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def read(data: Any, dataset: str = "") -> Raw:
    """Graphs of what a user gives.

    dataset: the one to take, of several.  Raises FileNotFoundError where there is nothing, ValueError where it is no
    set of graphs, several are there and none is named, or its parts do not fit together. A graph that has no node, or
    an edge to a node that is not there, is left out, and told in `skipped`.
    """
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        if not path.exists():
            raise NotFound(f"There is nothing at '{path}'. Wanted: {WANTED}.")
        if found := arrays(path):
            return _arrays(path, _one(found, dataset, path))
        if found := parts(path):
            return _texts(path, _one(found, dataset, path))
        raise UserError(f"'{path}' holds no graphs that can be read here. Wanted: {WANTED}.")
    graphs = [data[i] for i in range(len(data))] if hasattr(data, "__len__") and hasattr(data, "__getitem__") else []
    if not graphs or not all(map(is_graph, graphs)):
        odd = next((type(one).__name__ for one in graphs if not is_graph(one)), type(data).__name__)
        raise UserError(f"graphs are wanted, and a {odd} was given. Wanted: {WANTED}.")
    return _joined([_of_networkx(one) if hasattr(one, "adj") else _of_geometric(one) for one in graphs])


def names(data: str | os.PathLike[str], dataset: str = "") -> list[str]:
    """What a file or folder says of each graph, by name, before it is read."""
    path = Path(data)
    if found := arrays(path):
        held = _one(found, dataset, path)
        return [_called(part) for part in held if part.startswith("graph_") and part != "graph_id"]
    return ["label"] if "graph_labels" in _one(parts(path), dataset, path) else []


def _called(part: str) -> str:
    return part.removeprefix("graph_")


def _one(found: Mapping[str, Any], dataset: str, path: Path) -> Any:
    """The set that is named, or the only one."""
    if not found:
        raise UserError(f"'{path}' holds no graphs that can be read here. Wanted: {WANTED}.")
    known = {name.casefold(): name for name in found}
    if dataset:
        if dataset.casefold() not in known:
            raise UserError(f"--dataset {dataset!r} is not in '{path}', which holds {', '.join(sorted(found))}")
        return found[known[dataset.casefold()]]
    if len(found) > 1:
        raise UserError(f"'{path}' holds several sets of graphs: {', '.join(sorted(found))}: name one by --dataset")
    return next(iter(found.values()))


def _texts(path: Path, held: dict[str, str]) -> Raw:
    """Text files of the TU collection: https://chrsmrrs.github.io/datasets/docs/format/."""

    def lines(part: str) -> list[str]:
        try:
            if path.is_dir():
                content = Path(held[part]).read_bytes()
            else:
                with zipfile.ZipFile(path) as archive:
                    content = archive.read(held[part])
            return content.decode().split("\n")
        except (UnicodeDecodeError, zipfile.BadZipFile, OSError) as error:
            raise UserError(f"'{held[part]}' of '{path}' cannot be read ({error})") from error

    def numbers(part: str, kind: type = np.int64, columns: int = 0) -> np.ndarray:
        text = "\n".join(lines(part))
        if not text.strip():
            return np.zeros((0, columns or 1), kind)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                rows = np.loadtxt(io.StringIO(text), kind, delimiter=",", ndmin=2)
        except (ValueError, Warning, OverflowError) as error:
            raise UserError(f"'{held[part]}': a line of numbers is wanted for each ({error})") from error
        if columns and rows.shape[1] != columns:
            raise UserError(f"'{held[part]}' has {rows.shape[1]} numbers in a line; wanted: {columns}")
        return rows

    def words(part: str) -> list[str]:
        known = [line.strip() for line in lines(part)]
        while known and not known[-1]:
            known.pop()
        return known

    indicator = numbers("graph_indicator", columns=1)[:, 0]
    edges = numbers("A", columns=2)
    label = words("graph_labels") if "graph_labels" in held else None
    count = len(label) if label is not None else int(indicator.max(initial=0))
    if len(indicator) and not 1 <= indicator.min() <= indicator.max() <= count:
        raise UserError(
            f"'{held['graph_indicator']}' names graphs {indicator.min()} to {indicator.max()}, and there are {count} "
            "graphs, from 1"
        )
    own: dict[str, Any] = {}
    for part, name in (("node_labels", "node_label"), ("edge_labels", "edge_label")):
        own[name] = np.array(words(part), dtype=object) if part in held else None
    for part, name in (("node_attributes", "node_number"), ("edge_attributes", "edge_number")):
        own[name] = numbers(part, np.float64).astype(np.float32) if part in held else None
    columns = {} if label is None else {"label": label}
    return _checked(indicator - 1, edges - 1, count, columns, own, path)


def _arrays(path: Path, held: dict[str, str]) -> Raw:
    """An .npz file: edge_index, 2 x E, and graph_id, of each node; if there, node_label, node_attr, edge_label,
    edge_attr, fold, and graph_label or any other graph_NAME."""
    try:
        with np.load(path, allow_pickle=False) as file:
            known = {part: file[name] for part, name in held.items()}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"'{path}' cannot be read as arrays ({error})") from error
    indicator, edges = known["graph_id"], known["edge_index"]
    whole = all(np.issubdtype(part.dtype, np.integer) for part in (indicator, edges))
    if not whole or edges.ndim != 2 or edges.shape[0] != 2 or indicator.ndim != 1:
        raise UserError(
            f"'{path}': edge_index is to be 2 x E and graph_id one number a node, whole numbers; they are "
            f"{' x '.join(map(str, edges.shape))} and {' x '.join(map(str, indicator.shape))}, {edges.dtype} and "
            f"{indicator.dtype}"
        )
    columns = {
        _called(part): values.tolist()
        for part, values in known.items()
        if part == "fold" or (part.startswith("graph_") and part != "graph_id" and values.ndim == 1)
    }
    count = max([int(indicator.max(initial=-1)) + 1, *map(len, columns.values())])
    if len(indicator) and indicator.min() < 0:
        raise UserError(f"'{path}': graph_id {indicator.min()} is no graph; they are numbered from 0")
    own: dict[str, Any] = {
        part: None if part not in known else np.array([str(value) for value in known[part].tolist()], dtype=object)
        for part in CODED
    }
    for part, name in (("node_attr", "node_number"), ("edge_attr", "edge_number")):
        values = known.get(part)
        own[name] = None if values is None else values.reshape(len(values), -1).astype(np.float32)
    return _checked(indicator.astype(np.int64), edges.T.astype(np.int64), count, columns, own, path)


def _checked(
    indicator: np.ndarray, edges: np.ndarray, count: int, columns: dict[str, list[Any]], own: dict[str, Any], path: Path
) -> Raw:
    """Graphs in order, without those that cannot be.  indicator: the graph of each node.  edges: E x 2.  own: of each
    node or edge, as `Raw` has it, or None."""
    for name, values in own.items():
        wanted = len(indicator) if name.startswith("node") else len(edges)
        if values is not None and len(values) != wanted:
            of = "nodes" if name.startswith("node") else "edges"
            raise UserError(f"'{path}': there are {counted(wanted, of)} and {len(values):,} of {name}")
    for name, values in columns.items():
        if len(values) != count:
            raise UserError(f"'{path}': there are {counted(count, 'graphs')} and {len(values):,} of {name}")
    reasons: dict[int, str] = {}
    node = np.arange(len(indicator))
    there = (edges >= 0) & (edges < len(indicator))
    graph = np.where(there, indicator[np.where(there, edges, 0)], -1) if len(indicator) else np.full(edges.shape, -1)
    for row in np.flatnonzero(~there.all(1)).tolist():
        end = int(edges[row][~there[row]][0])
        number = int(graph[row].max())
        if number < 0:
            raise UserError(f"'{path}': neither end of edge {row} is a node; there are {counted(len(node), 'nodes')}")
        reasons.setdefault(number, f"edge {row} goes to node {end}, which is not there (both counted from 0)")
    for row in np.flatnonzero(there.all(1) & (graph[:, 0] != graph[:, 1])).tolist():
        for number in graph[row].tolist():
            reasons.setdefault(number, f"edge {row} goes to a node of another graph")
    nodes = np.bincount(indicator, minlength=count)
    for number in np.flatnonzero(nodes == 0).tolist():
        reasons.setdefault(number, "it has no nodes")
    good = np.ones(count, dtype=bool)
    good[list(reasons)] = False
    # Nodes and edges in the order of their graphs, whatever it was.
    order = np.argsort(indicator, kind="stable")
    order = order[good[indicator[order]]]
    place = np.full(len(indicator) + 1, -1)
    place[order] = np.arange(len(order))
    which = np.flatnonzero(good[graph[:, 0]] & (graph >= 0).all(1)) if len(edges) else np.zeros(0, np.int64)
    which = which[np.argsort(graph[which, 0], kind="stable")]
    rows = {name: None if v is None else v[order if name.startswith("node") else which] for name, v in own.items()}
    kept = np.flatnonzero(good).tolist()
    return Raw(
        nodes=nodes[good],
        edges=place[edges[which]],
        names=[str(number) for number in kept],
        columns={name: [values[number] for number in kept] for name, values in columns.items()},
        skipped=[(str(number), reason) for number, reason in sorted(reasons.items())],
        **rows,
    )


One = tuple[dict[str, Any], np.ndarray, dict[str, Any]]
"""A graph: what is known of it, its edges (E x 2), and what is known of its nodes ("nodes", their number) and edges."""


def _of_geometric(data: Any) -> One:
    """A graph of PyTorch Geometric: x are numbers, or labels where its rows are one-hot; y is the label."""
    edges = np.asarray(data.edge_index.cpu(), np.int64).reshape(2, -1).T
    own: dict[str, Any] = {"nodes": int(data.num_nodes or 0)}
    for name, values in (("node_number", getattr(data, "x", None)), ("edge_number", getattr(data, "edge_attr", None))):
        if values is not None:
            own[name] = np.asarray(values.cpu(), np.float32).reshape(len(values), -1)
    known = {name: getattr(data, name, None) for name in ("label", "group", "split", "fold")}
    y = getattr(data, "y", None)
    if known["label"] is None and y is not None:
        values = np.asarray(y.cpu() if hasattr(y, "cpu") else y).reshape(-1)
        if len(values) != 1:
            raise UserError(
                f"y of a graph is to be one label, and has {len(values)} numbers: leave it out, or give labels"
            )
        known["label"] = values[0].item()
    return {name: value for name, value in known.items() if value is not None}, edges, own


def _of_networkx(graph: Any) -> One:
    """A graph of networkx: of a node and an edge the attribute label, or x, numbers; of a graph its own attributes."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    given = [(place[a], place[b], attributes) for a, b, attributes in graph.edges(data=True)]
    if not graph.is_directed():
        given += [(b, a, attributes) for a, b, attributes in given if a != b]
    own: dict[str, Any] = {"nodes": len(place)}
    for what, rows in (("node", [graph.nodes[node] for node in graph.nodes]), ("edge", [row[2] for row in given])):
        for name, part in (("label", f"{what}_label"), ("x", f"{what}_number")):
            if rows and all(name in row for row in rows):
                values = [row[name] for row in rows]
                own[part] = (
                    np.array([str(value) for value in values], dtype=object)
                    if name == "label"
                    else np.array(values, np.float32).reshape(len(values), -1)
                )
    return dict(graph.graph), np.array([row[:2] for row in given], np.int64).reshape(-1, 2), own


def _joined(graphs: Sequence[One]) -> Raw:
    """Graphs one behind the other; what is not known of all of them is known of none."""
    sizes = np.array([own["nodes"] for _, _, own in graphs], np.int64)
    reasons = {}
    for number, ((_, edges, own), size) in enumerate(zip(graphs, sizes.tolist(), strict=True)):
        outside = (edges < 0) | (edges >= size)
        if outside.any():
            row = int(np.flatnonzero(outside.any(1))[0])
            end = int(edges[row][outside[row]][0])
            reasons[number] = f"edge {row} goes to node {end}, which is not there (both counted from 0)"
        elif not size:
            reasons[number] = "it has no nodes"
        for part, values in own.items():
            wanted = size if part.startswith("node") else len(edges)
            if part != "nodes" and len(values) != wanted:
                raise UserError(f"graph {number} has {len(values):,} of {part}, and {wanted:,} are wanted")
    kept = [number for number in range(len(graphs)) if number not in reasons]
    full = [number for number in kept if graphs[number][2]["nodes"]]
    rows: dict[str, Any] = {}
    for part in ("node_label", "node_number", "edge_label", "edge_number"):
        # A graph without edges knows nothing of these, and is no reason to leave out what others know.
        asked = [n for n in full if part.startswith("node") or len(graphs[n][1])]
        held = [values for n in asked if (values := graphs[n][2].get(part)) is not None]
        if held and len(held) == len(asked):
            if len({np.shape(values)[1:] for values in held}) > 1:
                raise UserError(f"graphs have {some(sorted({str(np.shape(v)[1]) for v in held}))} of {part} a row")
            rows[part] = np.concatenate(held)
    for what in ("node", "edge"):
        values = rows.get(f"{what}_number")
        if values is not None and f"{what}_label" not in rows and _is_one_hot(values):
            rows[f"{what}_label"] = values.argmax(1).astype(str).astype(object)
            del rows[f"{what}_number"]
    every = dict.fromkeys(name for known, _, _ in graphs for name in known)
    place = np.cumsum(np.where(np.isin(np.arange(len(graphs)), kept), sizes, 0)) - sizes
    edges = [graphs[n][1] + place[n] for n in kept]
    return Raw(
        nodes=sizes[kept],
        edges=np.concatenate(edges) if edges else np.zeros((0, 2), np.int64),
        names=[str(n) for n in kept],
        columns={name: [graphs[n][0].get(name) for n in kept] for name in every},
        skipped=[(str(n), reason) for n, reason in sorted(reasons.items())],
        **rows,
    )


def _is_one_hot(values: np.ndarray) -> bool:
    """Whether each row is 1 once and 0 elsewhere, as PyTorch Geometric reads labels."""
    ones = values == 1
    return values.shape[1] > 1 and bool((ones.sum(1) == 1).all() and (ones | (values == 0)).all())
