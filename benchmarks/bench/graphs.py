"""GraphCL on NCI1, views and step: all graphs of a batch at once, and in the forms of PyTorch Geometric's users."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench.results import Found, Setting
from benchmarks.bench.timing import OURS, Run, clock_for, compare
from benchmarks.bench.views import data_folder
from nearfar.batch import Batch
from nearfar.methods.graphcl import GraphCL
from nearfar.modalities.graph.encoder import GraphEncoder
from nearfar.modalities.graph.samples import GraphSamples, open_graphs
from nearfar.modalities.graph.views import views

PER_GRAPH, PER_BATCH = "PyG, a change for each graph", "PyG, one change for all of a batch"
SIZE = 128
WIDTH, LAYERS = 32, 3


def measure(setting: Setting) -> Found:
    """An epoch of so many batches: the graphs as they are and changed (random4), encoder, loss, Adam."""
    samples, data = _samples(setting.quick)
    steps = 2 if setting.quick else 8
    index = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[: steps * SIZE].split(SIZE)
    row = compare(
        "GraphCL step",
        {"batch": SIZE, "steps": len(index)},
        {
            OURS: lambda: _ours(samples, index),
            PER_GRAPH: lambda: _theirs(samples, index, each=True),
            PER_BATCH: lambda: _theirs(samples, index, each=False),
        },
        clock=clock_for(setting.threads),
        seconds=5 if setting.quick else 60,
        rate=(len(index) * SIZE, "graphs/s"),
    )
    row.notes.append(data)
    found = Found()
    found.add(row, "GraphCL step")
    return found


def _samples(quick: bool) -> tuple[GraphSamples, str]:
    path = data_folder() / "tu_graphs.npz"
    if not quick and path.exists():
        return open_graphs(path, dataset="NCI1"), "NCI1"
    from torch_geometric.data import Data

    made: list[Any] = []
    for number in range(2 * SIZE):
        nodes = 10 + number % 40
        child = torch.arange(1, nodes)
        tree = torch.stack([(torch.rand(nodes - 1) * child).long(), child])
        made.append(Data(x=F.one_hot(torch.arange(nodes) % 5).float(), edge_index=torch.cat([tree, tree.flip(0)], 1)))
    return open_graphs(made), "random trees"


def _ours(samples: GraphSamples, index: tuple[Tensor, ...]) -> Run:
    method = GraphCL(GraphEncoder(f"gin-{LAYERS}x{WIDTH}", samples.inputs)).train()
    optimizer = torch.optim.Adam(method.parameters(), 0.01)
    make, generator = views("random4", changed="second"), torch.Generator().manual_seed(0)

    def run() -> None:
        for rows in index:
            seen = make(*samples.fetch(rows), draws=make.draw(len(rows), generator))
            loss = method(Batch(seen, rows, samples.label[rows])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


class _Net(nn.Module):
    """The same network of PyTorch Geometric's layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        from torch_geometric.nn.conv import GINConv

        def layer(before: int) -> nn.Module:
            return GINConv(nn.Sequential(nn.Linear(before, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)))

        self.convs = nn.ModuleList(layer(width if i == 0 else WIDTH) for i in range(LAYERS))
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in range(LAYERS))
        size = LAYERS * WIDTH
        self.head = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, count: int) -> Tensor:
        from torch_geometric.nn.pool import global_add_pool

        sums = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x, edge_index).relu())
            sums.append(global_add_pool(x, batch, size=count))
        return F.normalize(self.head(torch.cat(sums, 1)), dim=1)


def _changed(x: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One of the four changes, drawn anew, by the parts of PyTorch Geometric."""
    from torch_geometric.utils import (
        add_random_edge,
        dropout_edge,
        dropout_node,
        k_hop_subgraph,
        mask_feature,
        subgraph,
    )

    kind = int(torch.randint(4, ()))
    if kind == 0:
        _, _, keep = dropout_node(edge_index, 0.1, num_nodes=len(x))
        edge_index, _ = subgraph(keep, edge_index, relabel_nodes=True, num_nodes=len(x))
        return x[keep], edge_index, batch[keep]
    if kind == 1:
        root = torch.randint(len(x), (max(1, int(batch[-1]) + 1),))
        keep, edge_index, _, _ = k_hop_subgraph(root, 2, edge_index, relabel_nodes=True, num_nodes=len(x))
        return x[keep], edge_index, batch[keep]
    if kind == 2:
        edge_index, _ = dropout_edge(edge_index, 0.1)
        edge_index, _ = add_random_edge(edge_index, 0.1, num_nodes=len(x))
        return x, edge_index.long(), batch  # where there is none to add, it gives floats
    return mask_feature(x, 0.1, mode="row")[0], edge_index, batch


def _theirs(samples: GraphSamples, index: tuple[Tensor, ...], *, each: bool) -> Run:
    """each: a change is drawn for each graph, one after the other, and graphs are then put together; else one change is
    drawn for all of a batch, as PyGCL's augmentors do."""
    from torch_geometric.data import Batch as Together
    from torch_geometric.data import Data

    rows = torch.cat(index).tolist()
    alone = {i: samples.fetch(torch.tensor([i]))[0] for i in rows}
    known = {i: Data(x=graph.x, edge_index=graph.edge_index) for i, graph in alone.items()}
    net = _Net(samples.inputs.width).train()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)

    def one(data: Any) -> Any:
        x, edge_index, _ = _changed(data.x, data.edge_index, torch.zeros(len(data.x), dtype=torch.int64))
        return Data(x=x, edge_index=edge_index)

    def run() -> None:
        for rows in index:
            graphs: list[Any] = [known[i] for i in rows.tolist()]
            whole: Any = Together.from_data_list(graphs)
            if each:
                other: Any = Together.from_data_list([one(data) for data in graphs])
                view = other.x, other.edge_index, other.batch
            else:
                view = _changed(whole.x, whole.edge_index, whole.batch)
            z1, z2 = net(whole.x, whole.edge_index, whole.batch, len(rows)), net(*view, len(rows))
            logits = z1 @ z2.T / 0.2
            loss = (logits.fill_diagonal_(float("-inf")).logsumexp(1) - (z1 * z2).sum(1) / 0.2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run
