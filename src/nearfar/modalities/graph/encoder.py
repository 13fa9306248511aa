"""Encoders of graphs: messages along edges, and sums over the nodes of each graph."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import UserError
from nearfar.method import Encoder
from nearfar.modalities.graph.graphs import Graphs
from nearfar.modalities.graph.inputs import Inputs
from nearfar.modalities.graph.settings import insist_encoder, sizes


class GINLayer(nn.Module):
    """A node and the sum over its neighbors through two linear layers (arXiv 1810.00826, epsilon 0): nodes x D.

    edges: inputs of an edge, or 0; where there are any, a message is the ReLU of neighbor plus edge (arXiv 1905.12265).
    """

    def __init__(self, before: int, width: int, edges: int = 0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(before, width), nn.ReLU(), nn.Linear(width, width))
        self.edge = nn.Linear(edges, before) if edges else None

    def forward(self, x: Tensor, view: Graphs) -> Tensor:
        start, end = view.edge_index
        message = x.index_select(0, start)
        if self.edge is not None and view.edge_attr is not None:
            message = (message + self.edge(view.edge_attr).to(x.dtype)).relu()
        return self.net(x.index_add(0, end, message))


class GCNLayer(nn.Module):
    """A linear layer, and the mean over node and neighbors, weighted by the roots of degrees (arXiv 1609.02907)."""

    def __init__(self, before: int, width: int, edges: int = 0) -> None:
        super().__init__()
        self.line = nn.Linear(before, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, view: Graphs) -> Tensor:
        x = self.line(x)
        start, end = view.edge_index
        degree = torch.bincount(end, minlength=len(x)) + 1
        scale = degree.to(x.dtype).rsqrt()[:, None]
        own = x * scale
        return own.index_add(0, end, own.index_select(0, start)) * scale + self.bias


LAYERS = {"gin": GINLayer, "gcn": GCNLayer}


class GraphEncoder(Encoder):
    """Layers of messages, each with ReLU and batch norm over all nodes; the sums of each layer's nodes over a graph,
    side by side: Graphs of N -> N x (layers width). As in GraphCL's unsupervised code (arXiv 2010.13902).

    inputs: what its views tell of nodes and edges.
    """

    def __init__(self, name: str, inputs: Inputs) -> None:
        super().__init__()
        insist_encoder(name)
        family, layers, width = sizes(name) or ("", 0, 0)
        befores = [inputs.width, *[width] * (layers - 1)]
        self.layers = nn.ModuleList(LAYERS[family](before, width, inputs.edge_width) for before in befores)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in befores)
        self.dim, self.inputs = layers * width, inputs
        self.spec = {"kind": "graph", "name": name, "inputs": inputs.spec()}
        if family == "gcn" and inputs.edge_width:
            self.notes.append("What is known of edges is not used by gcn: gin uses it.")
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, view: Graphs) -> Tensor:
        x, width = view.x, self.inputs.width
        if x.dim() != 2 or x.shape[1] != width:
            raise UserError(
                f"the encoder takes {width} numbers of each node, and got {' x '.join(map(str, x.shape))}: make views "
                "of graphs by the run that it was trained in"
            )
        sums = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x, view).relu())
            sums.append(view.sums(x.to(torch.promote_types(x.dtype, torch.float32))))
        return torch.cat(sums, 1)

    def looked_at(self) -> nn.Module:
        """The first layer of messages, behind its norm: nodes x width."""
        return self.norms[0]

    def example(self, n: int, generator: torch.Generator | None = None) -> Graphs:
        """Rings of 3 to 6 nodes of noise."""
        return example(self.spec, n, generator)

    def source(self) -> tuple[list[str], bool]:
        """Layers as they stand in this file, and what stacks them."""
        family, layers, width = sizes(self.spec["name"]) or ("", 0, 0)
        layer = LAYERS[family]
        return [
            "from torch import Tensor, nn",
            "",
            "Graphs = object",
            "",
            "",
            *inspect.getsource(layer).splitlines(),
            "",
            "",
            "class Net(nn.Module):",
            "    def __init__(self, befores, width, edges):",
            "        super().__init__()",
            f"        self.layers = nn.ModuleList({layer.__name__}(before, width, edges) for before in befores)",
            "        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in befores)",
            "",
            "    def forward(self, view):",
            '        nodes = view.nodes if hasattr(view, "nodes") else view.ptr.diff()',
            "        batch = torch.arange(len(nodes)).repeat_interleave(nodes)",
            "        x, sums = view.x, []",
            "        for layer, norm in zip(self.layers, self.norms):",
            "            x = norm(layer(x, view).relu())",
            "            sums.append(x.new_zeros(len(nodes), x.shape[1]).index_add(0, batch, x))",
            "        return torch.cat(sums, 1)",
            "",
            "",
            f"net = Net({[self.inputs.width, *[width] * (layers - 1)]}, {width}, {self.inputs.edge_width})",
        ], False

    def encode_lines(self) -> list[str]:
        return [
            "",
            "",
            "def encode(view):",
            f'    """A batch of N graphs of PyTorch Geometric, or what has its x (nodes x {self.inputs.width}),',
            f'    edge_index, edge_attr and ptr -> N x {self.dim}."""',
            "    return net(view)",
        ]

    def preparation(self) -> dict[str, Any]:
        return {"layout": "x, edge_index and nodes, as the inputs of its spec say", "inputs": self.inputs.spec()}


def from_spec(spec: dict[str, Any]) -> GraphEncoder:
    """The encoder that `GraphEncoder.spec` describes, with random weights."""
    return GraphEncoder(spec["name"], Inputs.from_spec(spec["inputs"]))


def example(spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Graphs:
    """Rings of 3 to 6 nodes of noise, for an encoder with that spec."""
    inputs = Inputs.from_spec(spec["inputs"])
    nodes = 3 + torch.arange(n) % 4
    total = int(nodes.sum())
    place, first = torch.arange(total), nodes.cumsum(0) - nodes
    of = torch.arange(n).repeat_interleave(nodes)
    after = first[of] + (place - first[of] + 1) % nodes[of]
    index = torch.stack([place, after, after, place]).view(2, 2, total).permute(0, 2, 1).reshape(2, -1)
    attr = torch.rand(2 * total, inputs.edge_width, generator=generator) if inputs.edge_width else None
    return Graphs(torch.rand(total, inputs.width, generator=generator), index, nodes, attr)
