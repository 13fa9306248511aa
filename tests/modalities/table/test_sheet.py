from __future__ import annotations

import pytest
import torch

from nearfar.modalities.table.samples import open_table
from nearfar.modalities.table.sheet import row_sheet
from nearfar.modalities.table.views import views


@pytest.mark.parametrize(("name", "colored"), [("scarf", True), ("mixed", False)])
def test_what_a_view_changes_stands_in_color(name: str, colored: bool) -> None:
    table = open_table({"number": [1.0, 2.5, 4.0, 8.0] * 5, "a very long name of a column": ["x", "y"] * 10})
    viewer = views(name, table.columns, (table.numbers, table.codes), corruption=0.5)
    index = torch.arange(4)
    sheet = row_sheet(table, viewer, index, viewer.draw(4, torch.Generator().manual_seed(0)))
    assert sheet.height > 4 * 3 * 20
    reddest = max(red - blue for _, (red, _, blue) in sheet.getcolors(1 << 20) or ())
    assert (reddest > 50) == colored
