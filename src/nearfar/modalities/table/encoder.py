"""Encoders of the rows of tables."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.errors import UserError
from nearfar.method import Encoder
from nearfar.modalities.table.columns import FURTHEST, Columns
from nearfar.modalities.table.settings import insist_encoder


class Maxout(nn.Module):
    """The largest of every `pieces` numbers: N x (pieces D) -> N x D (arXiv 1302.4389)."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.pieces)).amax(2)


class Groups(nn.Module):
    """Each group of inputs through a linear layer of its own, side by side: N x D -> N x (groups dim)."""

    def __init__(self, widths: list[int], dim: int) -> None:
        super().__init__()
        self.widths = widths
        self.layers = nn.ModuleList(nn.Linear(width, dim) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self.widths, 1)
        return torch.cat([layer(part) for layer, part in zip(self.layers, parts, strict=True)], 1)


class Kept(nn.Module):
    """The inputs, of length 1, and beside them what a network makes of them, half as long: N x D -> N x (D + dim).

    So neighbors go mostly by what the row says, and a linear classifier, which scales its inputs, has both alike.
    """

    keeps_inputs = True

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.normalize(x, dim=1), F.normalize(self.net(x), dim=1) / 2], 1)


class TableEncoder(Encoder):
    """A network for the rows of a table, which `views.table` makes inputs of: N x D -> N x dim.

    net: the network itself.  columns: what the inputs mean.
    """

    def __init__(self, name: str, columns: Columns) -> None:
        super().__init__()
        self.net, self.dim = _build(name, columns.groups)
        self.columns = columns
        self.spec = {"kind": "table", "name": name, "columns": columns.spec()}

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.columns.width:
            raise UserError(
                f"the encoder takes rows N x {self.columns.width}, got {' x '.join(map(str, x.shape))}: make them by "
                "nearfar.modalities.table.views from the columns that it was trained on"
            )
        return self.net(x)

    def example(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Rows of noise: n x D."""
        return example(self.spec, n, generator)

    def network(self) -> nn.Module:
        return self.net

    def source(self) -> tuple[list[str], bool]:
        groups = self.columns.groups
        kind, sizes = _sizes(self.spec["name"], groups)
        layers = "torch.nn.Linear(a, b), torch.nn.ReLU()"
        net = f"torch.nn.Sequential(*(m for a, b in {list(pairwise(sizes))} for m in ({layers})))"
        if kind == "mlp":
            return [f"net = {net}"], False
        if kind == "kept":
            return [
                "class Kept(torch.nn.Module):",
                "    def __init__(self, net):",
                "        super().__init__()",
                "        self.net = net",
                "",
                "    def forward(self, x):",
                "        kept, made = (torch.nn.functional.normalize(part, dim=1) for part in (x, self.net(x)))",
                "        return torch.cat([kept, made / 2], 1)",
                "",
                "",
                f"net = Kept({net})",
            ], False
        layers = "torch.nn.Linear(a, b), torch.nn.BatchNorm1d(b), torch.nn.ReLU()"
        split = [
            "class Groups(torch.nn.Module):",
            "    def __init__(self, widths, dim):",
            "        super().__init__()",
            "        self.widths = widths",
            "        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, dim) for width in widths)",
            "",
            "    def forward(self, x):",
            "        parts = x.split(self.widths, 1)",
            "        return torch.cat([layer(part) for layer, part in zip(self.layers, parts)], 1)",
            "",
            "",
        ]
        first = f"Groups({groups}, {GROUP}), " if len(groups) > 1 else ""
        return [
            *(split if first else []),
            "class Maxout(torch.nn.Module):",
            "    def forward(self, x):",
            "        return x.unflatten(1, (-1, 4)).amax(2)",
            "",
            "",
            f"layers = [m for a, b in {list(pairwise(sizes[:-1]))} for m in ({layers})]",
            f"net = torch.nn.Sequential({first}*layers, torch.nn.Linear({sizes[-2]}, {sizes[-1]}), Maxout())",
        ], False

    def encode_lines(self) -> list[str]:
        """Also those that make the inputs from columns."""
        formed = any(column.form != "standard" for column in self.columns.numbers)
        return [
            'description = json.loads(Path(__file__).with_name("encoder.json").read_text(encoding="utf-8"))',
            'columns = description["encoder"]["columns"]',
            "",
            "",
            "def prepare(table):",
            '    """A mapping of column names to N values each, None where missing, times in seconds -> N x D."""',
            *(_FORMED if formed else _SCALED),
            "",
            '    numbers = [c for c in columns if c["values"] is None]',
            *(_FORMED_PARTS if formed else _SCALED_PARTS),
            '    parts += [[float(v is None) for v in table[c["name"]]] for c in numbers if c["gaps"]]',
            "    for c in columns:",
            '        if c["values"] is not None:',
            '            kinds = [*c["values"], None] if c["gaps"] else c["values"]',
            '            parts += [[float(v == kind) for v in table[c["name"]]] for kind in kinds]',
            "    return torch.tensor(parts).T",
            "",
            "",
            "def encode(x):",
            f'    """N x {self.columns.width} inputs, from prepare -> N x {self.dim}."""',
            "    return net(x)",
        ]

    def preparation(self) -> dict[str, Any]:
        return {"layout": "N x D, from the columns by `prepare` of encoder.py", "width": self.columns.width}


_SCALED = [
    "    def scaled(v, c):",
    '        return 0.0 if v is None else (v - c["mean"]) / c["std"]',
]
_SCALED_PARTS = ['    parts = [[scaled(v, c) for v in table[c["name"]]] for c in numbers]']
_FORMED = [
    "    from bisect import bisect_right",
    "    from statistics import NormalDist",
    "",
    "    def place(v, points, levels):",
    "        if v <= points[0] or v >= points[-1]:",
    "            return levels[0] if v <= points[0] else levels[-1]",
    "        i = bisect_right(points, v) - 1",
    "        along = (v - points[i]) / (points[i + 1] - points[i])",
    "        return levels[i] + along * (levels[i + 1] - levels[i])",
    "",
    "    def inputs(v, c):",
    '        form, points = c.get("form", "standard"), c.get("points", [])',
    '        if form == "standard":',
    '            return [0.0 if v is None else (v - c["mean"]) / c["std"]]',
    '        if form == "quantile":',
    f'            share = 0.5 if v is None else min(max(place(v, points, c["levels"]), {FURTHEST}), 1 - {FURTHEST})',
    "            return [NormalDist().inv_cdf(share)]",
    "        count = len(points) - 1",
    "        where = count / 2 if v is None else place(v, points, range(count + 1))",
    "        return [min(max(where - t, 0.0), 1.0) for t in range(count)]",
]
_FORMED_PARTS = [
    "    parts = []",
    "    for c in numbers:",
    '        parts += map(list, zip(*(inputs(v, c) for v in table[c["name"]])))',
]


def from_spec(spec: dict[str, Any]) -> TableEncoder:
    """The encoder that `TableEncoder.spec` describes, with random weights."""
    return TableEncoder(spec["name"], Columns.from_spec(spec["columns"]))


def inputs(data: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """What the spec of a user's own encoder says of the rows that it takes."""
    return {"columns": data.columns.spec()}


def example(spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Tensor:
    """Rows of noise for an encoder with that spec: n x D."""
    return torch.rand(n, Columns.from_spec(spec["columns"]).width, generator=generator)


GROUP = 64
"""What maxout's first layer makes of the inputs, or of each group of them."""


def _sizes(name: str, groups: list[int]) -> tuple[str, list[int]]:
    """The family of a network and the widths of its layers, from its name; of maxout those behind `Groups`."""
    insist_encoder(name)
    family, _, sizes = name.partition("-")
    if family in ("mlp", "kept"):
        wide, deep = map(int, (sizes or {"mlp": "256x4", "kept": "128x2"}[family]).split("x"))
        return family, [sum(groups), *[wide] * deep]
    first = [groups[0], GROUP] if len(groups) == 1 else [GROUP * len(groups)]
    return "maxout", [*first, *(int(sizes or 8) * w for w in (32, 32, 64, 64, 128))]


def _build(name: str, groups: list[int]) -> tuple[nn.Module, int]:
    """The network of that name, for inputs in groups of those widths, and how many numbers it gives.

    Of maxout, as in the released code of i-Mix: several groups pass a linear layer each, without norm; one passes one
    with norm and ReLU.
    """
    kind, sizes = _sizes(name, groups)
    layers: list[nn.Module] = []
    if kind in ("mlp", "kept"):
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        net = nn.Sequential(*layers)
        return (net, sizes[-1]) if kind == "mlp" else (Kept(net), sizes[0] + sizes[-1])
    if len(groups) > 1:
        layers.append(Groups(groups, GROUP))
    for before, after in pairwise(sizes[:-1]):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]), Maxout(4)), sizes[-1] // 4
