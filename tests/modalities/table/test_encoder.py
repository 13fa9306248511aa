from __future__ import annotations

import json

import pytest
import torch

from nearfar.modalities.encoder import from_spec
from nearfar.modalities.table.columns import Column, Columns
from nearfar.modalities.table.encoder import Maxout, TableEncoder

COLUMNS = Columns([Column("x", gaps=True), Column("k", ("a", "b"))])


@pytest.mark.parametrize(
    ("name", "dim", "layers"), [("mlp", 256, 4), ("mlp-32x2", 32, 2), ("maxout", 256, 6), ("maxout-2", 64, 6)]
)
def test_names_say_width_and_depth(name: str, dim: int, layers: int) -> None:
    encoder = TableEncoder(name, COLUMNS)
    assert encoder.dim == dim
    assert sum(isinstance(m, torch.nn.Linear) for m in encoder.modules()) == layers
    assert encoder(encoder.example(3)).shape == (3, dim)


def test_the_paper_s_maxout_network_has_its_size() -> None:
    weights = sum(p.numel() for p in TableEncoder("maxout-64", COLUMNS).parameters())
    assert weights == pytest.approx(63.6e6, rel=0.02)


def test_maxout_does_not_care_for_the_order_in_a_group() -> None:
    x = torch.randn(5, 12)
    order = torch.cat([torch.randperm(4) + 4 * g for g in range(3)])
    assert torch.equal(Maxout(4)(x), Maxout(4)(x[:, order]))
    assert torch.equal(Maxout(4)(x)[:, 1], x[:, 4:8].amax(1))


def test_it_comes_back_from_its_spec() -> None:
    encoder = TableEncoder("mlp-8x2", COLUMNS)
    again = from_spec(json.loads(json.dumps(encoder.spec)))
    assert isinstance(again, TableEncoder)
    again.load_state_dict(encoder.state_dict())
    x = encoder.example(4)
    assert torch.equal(again(x), encoder(x))
    assert again.columns.spec() == COLUMNS.spec()


def test_wrong_names_and_inputs_are_quoted() -> None:
    for name in ("resnet18", "mlp-0x3", "mlp-3"):
        with pytest.raises(ValueError, match=rf'no encoder of tables is called "{name}": mlp'):
            TableEncoder(name, COLUMNS)
    with pytest.raises(ValueError, match="rows N x 4, got 2 x 7"):
        TableEncoder("mlp", COLUMNS)(torch.zeros(2, 7))
