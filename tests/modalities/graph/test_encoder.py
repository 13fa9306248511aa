"""Encoders of graphs, held to PyTorch Geometric's layers and to what graphs are: no order of nodes, no neighbors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar import methods
from nearfar.batch import Batch, cat, select
from nearfar.distributed import local
from nearfar.errors import UserError
from nearfar.method import Method
from nearfar.modalities.graph.encoder import GCNLayer, GINLayer, GraphEncoder, from_spec
from nearfar.modalities.graph.graphs import Graphs
from nearfar.modalities.graph.inputs import Inputs
from nearfar.nn.norms import synchronize_norms
from tests.methods.small import clock, sgd, step
from tests.modalities.graph.small import graphs
from tests.two_ranks import Pool

INPUTS = Inputs(labels=("a", "b", "c"), edge_numbers=2)


def encoder(name: str = "gin-2x8", inputs: Inputs = INPUTS) -> GraphEncoder:
    torch.manual_seed(0)
    return GraphEncoder(name, inputs)


@pytest.mark.parametrize("edges", [0, 2])
def test_gin_is_that_of_torch_geometric(edges: int) -> None:
    conv = pytest.importorskip("torch_geometric.nn.conv")
    torch.manual_seed(0)
    ours, given = GINLayer(3, 8, edges), graphs(6, edges=edges)
    if edges:
        theirs = conv.GINEConv(ours.net, edge_dim=edges)
        theirs.lin.load_state_dict(ours.edge.state_dict())  # pyright: ignore
        want = theirs(given.x, given.edge_index, given.edge_attr)
    else:
        want = conv.GINConv(ours.net)(given.x, given.edge_index)
    torch.testing.assert_close(ours(given.x, given), want)


def test_gcn_is_that_of_torch_geometric() -> None:
    conv = pytest.importorskip("torch_geometric.nn.conv")
    torch.manual_seed(0)
    ours, given, theirs = GCNLayer(3, 8), graphs(6), conv.GCNConv(3, 8)
    theirs.lin.load_state_dict(ours.line.state_dict())
    torch.testing.assert_close(ours(given.x, given), theirs(given.x, given.edge_index))


def renumbered(given: Graphs, order: Tensor) -> Graphs:
    """The same with the nodes of each graph in another order.  order: the old number of each new one."""
    place = order.argsort()
    return Graphs(given.x[order], place[given.edge_index], given.nodes, given.edge_attr)


@pytest.mark.parametrize("name", ["gin-2x8", "gcn-3x4"])
def test_neither_the_order_of_nodes_nor_the_rest_of_the_batch_counts(name: str) -> None:
    net, given = encoder(name).double().eval(), graphs(5, edges=2)
    given = Graphs(given.x.double(), given.edge_index, given.nodes, given.edge_attr.double())  # pyright: ignore
    for norm in net.norms:
        norm.running_mean.uniform_(-1, 1)
    want = net(given)
    assert want.shape == (5, net.dim)
    order = (given.batch.double() + torch.rand(len(given.x))).argsort()
    order = torch.cat([torch.arange(len(given.x))[given.batch == i].flip(0) for i in range(5)])
    torch.testing.assert_close(net(renumbered(given, order)), want)
    each = [net(select(given, torch.tensor([i]))) for i in range(5)]
    torch.testing.assert_close(torch.cat(each), want)
    torch.testing.assert_close(net(cat([given, given]))[5:], want)


def test_layers_are_summed_and_stand_side_by_side() -> None:
    net, given = encoder("gin-2x8").eval(), graphs(4, edges=2)
    x = net.norms[0](net.layers[0](given.x, given).relu())
    want = torch.stack([x[given.batch == i].sum(0) for i in range(4)])
    torch.testing.assert_close(net(given)[:, :8], want)
    for line in (module for module in net.modules() if isinstance(module, nn.Linear)):
        assert not line.bias.any()
        assert float(line.weight.abs().max().detach()) <= (6 / sum(line.weight.shape)) ** 0.5


def test_a_spec_builds_it_again_and_its_example_passes() -> None:
    net = encoder()
    again = from_spec(copy.deepcopy(net.spec))
    assert [tuple(p.shape) for p in again.parameters()] == [tuple(p.shape) for p in net.parameters()]
    assert net(net.example(6)).shape == (6, 16)
    assert net.example(6).count() == 6
    assert encoder("gcn").notes
    with pytest.raises(UserError, match="3 numbers of each node"):
        net(graphs(3, width=5))
    with pytest.raises(UserError, match=r'"gat".*gin-LAYERSxWIDTH'):
        encoder("gat")


SMALL: dict[str, dict[str, Any]] = {
    "moco": {"queue": 16, "dim": 8},
    "byol": {"hidden": 8, "dim": 8},
    "barlow": {"dim": 8},
}
NAMES = ["graphcl", "simclr", "byol", "barlow", "supcon", "moco", "dcl", "hcl"]


def build(name: str) -> Method:
    torch.manual_seed(0)
    net = GraphEncoder("gin-2x8", Inputs(constant=True, numbers=2))
    method = methods.build(methods.load(name), net, SMALL.get(name, {}), samples=8, classes=2).double().train()
    method.clock = clock(0)
    return method


def batch() -> Batch:
    views = [graphs(8, seed=seed) for seed in (3, 4)]
    return Batch([Graphs(v.x.double(), v.edge_index, v.nodes) for v in views], torch.arange(8), torch.arange(8) % 2)


def stepped(name: str) -> tuple[Tensor, dict[str, Tensor]]:
    method, given = build(name), batch()
    synchronize_norms(method, torch.device("cpu"))
    index = local(torch.arange(8))
    mine = Batch([select(view, index) for view in given.views], index, given.label[index])
    from torch.nn.parallel import DistributedDataParallel

    from nearfar import distributed

    net = DistributedDataParallel(method, broadcast_buffers=False) if distributed.world() > 1 else method
    loss = step(method, sgd(method), mine, net).loss.detach()
    return distributed.total(loss) / distributed.world(), {k: v.clone() for k, v in method.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_with_unequal_graphs_take_the_step_of_one(name: str, two_ranks: Pool) -> None:
    """Norms weigh nodes alike, on whichever rank they are."""
    loss, state = stepped(name)
    ranks = two_ranks.run(stepped, name)
    for other, weights in ranks:
        for key, _ in build(name).named_parameters():
            assert torch.equal(weights[key], ranks[0][1][key]), key
        if name == "moco":  # keys are normalized in parts, of another make-up on each rank
            continue
        torch.testing.assert_close(other, loss, rtol=1e-9, atol=1e-9)
        for key, value in state.items():
            torch.testing.assert_close(weights[key].double(), value.double(), rtol=1e-8, atol=1e-9, msg=key)
