"""Objects that find those of their class by what maps show of them."""

from __future__ import annotations

from pathlib import Path

import torch

from nearfar.cli import main
from nearfar.dense.instances import pooled
from nearfar.files import read_json
from tests.dense.test_segmentation import result


def test_a_mean_over_a_box_counts_cells_by_what_it_covers() -> None:
    m = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    fine = m.repeat_interleave(4, 1).repeat_interleave(4, 2)  # of 16 pixels
    boxes = torch.tensor([[0, 0, 16, 16], [3, 5, 10, 6], [15, 15, 16, 16], [2, 1, 3, 14]]).float()
    wanted = [fine[:, int(t) : int(b), int(l) : int(r)].mean((1, 2)) for l, t, r, b in boxes.tolist()]
    assert torch.allclose(pooled(m, boxes, 16), torch.stack(wanted), atol=1e-6)


def test_the_command_line_finds_objects_and_shows_them(run: Path, scenes: Path) -> None:
    boxes = ["--boxes", str(scenes / "boxes.csv"), "--box-origin", "1", "--retrieval", "--size", "32"]
    assert main(["evaluate", str(run), str(scenes / "index.csv"), *boxes]) == 0
    made = result(run, "instances")
    assert made["columns"] == ["recall@1 (%)", "recall@5 (%)", "mAP (%)"]
    assert [row["name"] for row in made["rows"]] == ["mean color", "untrained encoder", "trained encoder"]
    assert made["rows"][0]["values"]["recall@1 (%)"]["value"] == 100  # red or green
    assert "12 objects looks among 24" in made["note"]
    (grid,) = read_json(run / "results" / "found.json", "")["directions"]
    assert all(tile["thumbnail"].startswith("data:image") for tile in grid["queries"])
    assert "green, images/" in (run / "report.html").read_text()
