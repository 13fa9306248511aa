from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn

from nearfar.export.encoder import export_encoder
from nearfar.modalities.encoder import from_spec
from nearfar.modalities.table.columns import Column, Columns, NumberForm
from nearfar.modalities.table.encoder import Groups, Maxout, TableEncoder
from nearfar.modalities.table.views import expand

COLUMNS = Columns([Column("x", gaps=True), Column("k", ("a", "b"))])


@pytest.mark.parametrize(
    ("name", "dim", "layers"),
    [
        ("mlp", 256, 4),
        ("mlp-32x2", 32, 2),
        ("kept", 132, 2),
        ("kept-8x1", 12, 1),
        ("maxout", 256, 7),
        ("maxout-2", 64, 7),
    ],
)
def test_names_say_width_and_depth(name: str, dim: int, layers: int) -> None:
    encoder = TableEncoder(name, COLUMNS)
    assert encoder.dim == dim
    assert sum(isinstance(m, torch.nn.Linear) for m in encoder.modules()) == layers
    assert encoder(encoder.example(3)).shape == (3, dim)


COVTYPE = Columns(
    [*(Column(f"{i}") for i in range(10)), Column("area", tuple("abcd")), Column("soil", tuple(map(str, range(40))))]
)


def layers(encoder: TableEncoder) -> list[tuple[int, ...] | str]:
    net = encoder.net
    return [(m.in_features, m.out_features) if isinstance(m, nn.Linear) else type(m).__name__ for m in net]


def test_maxout_is_the_papers_network_for_covtype_and_for_higgs() -> None:
    """Columns in three groups pass three linear layers without norm; one group passes one with norm and ReLU."""
    covtype, higgs = (TableEncoder("maxout", c) for c in (COVTYPE, Columns([Column(f"{i}") for i in range(28)])))
    rest = [part for w in ((256, 256), (256, 512), (512, 512)) for part in (w, "BatchNorm1d", "ReLU")]
    rest += [(512, 1024), "Maxout"]
    assert layers(covtype) == ["Groups", (192, 256), "BatchNorm1d", "ReLU", *rest]
    assert layers(higgs) == [(28, 64), "BatchNorm1d", "ReLU", (64, 256), "BatchNorm1d", "ReLU", *rest]
    first = covtype.net[0]
    assert isinstance(first, Groups)
    x = torch.randn(5, 54)
    parts = x[:, :10], x[:, 10:14], x[:, 14:]
    want = [layer(part) for layer, part in zip(first.layers, parts, strict=True)]
    torch.testing.assert_close(first(x), torch.cat(want, 1))


@pytest.mark.parametrize("columns", [COLUMNS, COVTYPE, Columns([Column("x", gaps=True)])])
@pytest.mark.parametrize("name", ["mlp-8x2", "kept-8x2", "maxout-1"])
def test_the_source_builds_the_same_network(name: str, columns: Columns) -> None:
    encoder = TableEncoder(name, columns)
    there: dict[str, Any] = {"torch": torch}
    exec("\n".join(encoder.source()[0]), there)
    there["net"].load_state_dict(encoder.net.state_dict())
    x = encoder.example(4)
    assert torch.equal(there["net"].eval()(x), encoder.eval()(x))


def test_kept_inputs_stand_beside_what_the_network_makes_of_them() -> None:
    encoder = TableEncoder("kept-8x2", COLUMNS)
    x = encoder.example(5)
    kept, made = encoder(x).split([4, 8], 1)
    torch.testing.assert_close(kept * x.norm(dim=1, keepdim=True), x)
    torch.testing.assert_close(made.norm(dim=1), torch.full((5,), 0.5))


def test_the_paper_s_maxout_network_has_its_size() -> None:
    weights = sum(p.numel() for p in TableEncoder("maxout-64", COVTYPE).parameters())
    assert weights == pytest.approx(63.6e6, rel=0.005)


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


@pytest.mark.parametrize("form", ["standard", "quantile", "piecewise"])
def test_the_export_prepares_numbers_of_each_form(form: NumberForm, tmp_path: Path) -> None:
    """Inside, between, on and beyond the points, and where nothing is known."""
    train = pa.table({"x": [0.0, 0.0, 0.0, *(1.5**i for i in range(40))], "k": [1, 2, 4] * 14 + [None]})
    columns, _ = Columns.learn(train, form=form)
    export_encoder(TableEncoder("mlp-8x1", columns), tmp_path)
    prepare = runpy.run_path(str(tmp_path / "encoder.py"))["prepare"]
    rows = {"x": [None, -3.0, 0.0, 1e-3, 1.5, 17.0, 1e9], "k": [None, 0.0, 1.0, 1.5, 3.0, 4.0, 9.0]}
    numbers, codes, _ = columns.encode(pa.table(rows))
    torch.testing.assert_close(prepare(rows), expand(columns, numbers, codes), rtol=1e-5, atol=1e-5)
