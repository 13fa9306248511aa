from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from benchmarks.bias import CLASSES, COLORS, LINES, MEASURES, SHARED, Bias, biased, main, measured, parts, table

from benchmarks import bias
from nearfar import methods
from nearfar.modalities.image.drawings import drawers
from nearfar.modalities.image.encoder import image_encoder
from nearfar.training import plan as plans


def test_of_each_class_so_many_have_their_own_color_and_the_rest_all_others() -> None:
    label = torch.arange(CLASSES).repeat(200)[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    color = biased(label, 0.95, seed=1)
    for c in range(CLASSES):
        count = torch.bincount(color[label == c], minlength=CLASSES)
        assert count[c] == 190
        others = torch.cat([count[:c], count[c + 1 :]])
        assert others.sum() == 10
        assert (others.min(), others.max()) == (1, 2)
    assert not torch.equal(color, biased(label, 0.95, seed=2))
    assert torch.equal(color, biased(label, 0.95, seed=1))


@pytest.mark.parametrize("pilot", [False, True])
def test_no_drawer_is_in_both_parts_and_each_tested_drawing_has_every_color(pilot: bool) -> None:
    train, test = parts(0, pilot)
    assert 0.94 < (train.label == train.attribute).float().mean() < 0.951
    assert (test.label == test.attribute).float().mean() == pytest.approx(1 / CLASSES)
    assert torch.bincount(test.attribute).unique().numel() == 1
    assert set(train.label.tolist()) == set(test.label.tolist()) == set(range(CLASSES))
    count = 409  # characters of the ten alphabets
    tested = math.ceil(3 * count / 4) if pilot else 5 * count
    assert (len(train), len(test)) == ((12 if pilot else 15) * count, tested * CLASSES)
    evenly = parts(0, pilot, 1 / CLASSES)[0]
    assert (evenly.label == evenly.attribute).float().mean() == pytest.approx(1 / CLASSES, abs=0.01)
    pixels = test.pixels(torch.arange(10))  # one drawing ten times
    brightest = pixels.flatten(2).amax(2)  # 10 x 3
    torch.testing.assert_close(brightest.long(), COLORS)


def test_untrained_features_are_measured_in_groups() -> None:
    train, test = parts(0, True)
    torch.manual_seed(0)
    few = torch.arange(0, len(train), 11), torch.arange(0, len(test), 11)
    found = measured(image_encoder("conv4", channels=3, size=32), train.subset(few[0]), test.subset(few[1]), seed=0)
    assert tuple(found) == MEASURES
    assert found["aligned"] > 75 > 25 > found["conflicting"]
    assert found["worst_group"] <= found["worst_class"] <= found["conflicting"] < found["accuracy"] < found["aligned"]


def test_lines_can_be_planned_and_differ_in_nothing_else() -> None:
    train = parts(0, True)[0]
    made = [
        plans.make(method, train, "small_images:default", SHARED | flags)
        for method, flags in LINES.values()
        if method in methods.names()
    ]
    assert all(plan.settings == made[0].settings for plan in made)


def test_table_and_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bias, "RESULTS", tmp_path)
    for line, value in (("supcon", 20.0), ("epsilon-SupInfoNCE + FairKL", 50.0)):
        for seed in range(2):
            numbers = dict.fromkeys(MEASURES, value + seed)
            kept = {"results": {line: numbers, "untrained": dict.fromkeys(MEASURES, 20.0 + seed)}}
            bias._path(line, seed, Bias()).write_text(json.dumps(kept))
    rows = table(Bias(seeds=2)).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| untrained", "| supcon", "| epsilon-SupInfoNCE + FairKL"]
    assert rows[2].endswith("| +0.0 [+0.0, +0.0]: no difference seen |")
    assert rows[3].endswith("|  |")
    assert "| 50.5 [44.1, 56.9] |" in rows[4]
    assert rows[4].endswith("| +30.0 [+30.0, +30.0] |")
    assert main(Bias(seeds=2, table=True)) == 0
    assert "+30.0" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no line 'magic'"):
        main(Bias(("magic",)))
    with pytest.raises(ValueError, match="--flags is for a --pilot"):
        main(Bias(flags='{"lr": 1}'))


def test_drawers_are_twenty() -> None:
    from nearfar.modalities.image.drawings import drawings

    assert set(drawers(drawings("train")).tolist()) == set(range(20))
