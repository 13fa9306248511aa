from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.checkpoints import (
    LINES,
    SETS,
    Ask,
    Data,
    chosen,
    judged,
    kendall,
    main,
    over_runs,
    plot,
    spearman,
    told,
)

from benchmarks import checkpoints
from nearfar.evaluation.similarity import ranks
from nearfar.modalities.image.samples import open_images
from nearfar.report import choice
from tests.tiny import tiny_images


def result(data: str, line: int, **scores: list[float]) -> dict[str, Any]:
    """A run whose accuracy rises to the middle and falls; scores by name."""
    accuracy = [10 + line, 20 + line, 40 + line, 30 + line]
    made = [
        {"epoch": e, "loss": 5.0 - e, "linear": a, "knn": 50.0, "scores": {k: v[e - 1] for k, v in scores.items()}}
        for e, a in enumerate(accuracy, 1)
    ]
    return {"data": data, "line": f"line {line}", "checkpoints": made}


def test_a_score_that_tells_is_chosen_and_what_it_gains_is_told() -> None:
    right, wrong = [1.0, 2, 4, 3], [4.0, 3, 1, 2]
    results = [result(data, i, rankme=right, nesum=wrong) for data in ("cifar10", "omniglot") for i in range(3)]
    results.append({"data": "omniglot", "line": "none", "checkpoints": []})
    found = judged(results)
    own = found["linear"]
    assert (found["runs"], found["failed"]) == (6, 1)
    assert own["within"]["rankme"]["all"] == pytest.approx((1, 1, 1))
    assert own["kendall"]["rankme"]["omniglot"] == pytest.approx((1, 1, 1))
    assert own["within"]["nesum"]["all"].mean == pytest.approx(-1)
    assert own["within"]["last"]["all"].mean == own["within"]["loss"]["all"].mean == pytest.approx(0.8)
    assert own["gain"]["rankme"]["all"].mean == 10
    assert own["gain"]["nesum"]["all"].mean == -20
    assert own["regret"]["last"]["all"].mean == 10
    assert own["left out"]["picks"] == {"cifar10": "rankme", "omniglot": "rankme"}
    assert found["knn"]["within"]["rankme"]["all"].mean == 0  # what does not vary correlates with nothing
    facts = chosen(found)
    assert facts["scores"] == ["rankme"]
    assert facts["gain"] == {"mean": 10, "low": 10, "high": 10}
    assert (facts["regret"], facts["regret_last"]) == (0, 10)
    assert "| RankMe | 1.00" in told(found)
    assert plot(found).count("<circle") == 2 * len(own["within"]) + 2
    other = judged([result("cifar10", 0, nesum=wrong), result("omniglot", 0, nesum=wrong)])
    assert other["linear"]["left out"]["picks"] == {"cifar10": "last", "omniglot": "last"}
    assert (chosen(other)["scores"], chosen(other)["measured"]) == ([], True)
    assert chosen(other)["picks"] == {"cifar10": "last", "omniglot": "last"}
    with pytest.raises(ValueError, match="two data sets"):
        chosen(judged(results[:3]))


def test_a_score_that_helps_on_one_data_set_alone_is_not_chosen() -> None:
    good, bad = [1.0, 2, 4, 3], [4.0, 3, 1, 2]
    found = judged([result("cifar10", 0, rankme=good), result("omniglot", 0, rankme=bad)])
    assert found["linear"]["left out"]["picks"] == {"cifar10": "last", "omniglot": "rankme"}
    assert found["linear"]["left out"]["gain"].mean == -10
    assert chosen(found)["scores"] == []


def test_correlations_are_those_of_ranks() -> None:
    x, y = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, 3, 2, 9])
    assert spearman(x, y) == pytest.approx(1 - 6 * 2 / 60)
    assert kendall(x, y) == pytest.approx((5 - 1) / 6)
    tied = torch.tensor([-math.inf, 1.0, 1.0, 2.0])
    assert ranks(tied).tolist() == [1, 2.5, 2.5, 4]
    assert kendall(tied, tied) == pytest.approx(1)
    both = over_runs(torch.cat([x, x]), torch.cat([y, y]), torch.tensor([0] * 4 + [1] * 4))
    assert both.mean == pytest.approx(both.low) == pytest.approx(both.high)


def test_a_run_is_measured_and_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_images((tiny_images(96), torch.arange(96).numpy() % 4))
    part = Data(
        parts=lambda: (images.subset(range(64)), images.subset(range(64, 96))),
        flags={"size": 16, "epochs": 8, "batch": 32, "views": "drawing"},
    )
    monkeypatch.setattr(checkpoints, "SETS", {"tiny": part})
    monkeypatch.setattr(checkpoints, "LINES", {"simclr, fast": LINES["simclr, fast"]})
    monkeypatch.setattr(checkpoints, "RESULTS", tmp_path)
    main(Ask())
    kept = json.loads((tmp_path / "simclr-fast-tiny-seed0.json").read_text())
    assert [of["epoch"] for of in kept["checkpoints"]] == list(range(1, 9))
    assert all({"rankme", "clid", "lidar", "dense"} - {"clid"} <= of["scores"].keys() for of in kept["checkpoints"])
    assert all(0 <= of[by] <= 100 for of in kept["checkpoints"] for by in ("linear", "knn"))
    assert (tmp_path / "within.svg").exists()
    monkeypatch.setattr(checkpoints, "one", lambda *asked: pytest.fail("it was there"))
    main(Ask())
    with pytest.raises(ValueError, match="there is no 'x'"):
        main(Ask(lines=("x",)))


def test_lines_and_data_are_as_many_as_are_told() -> None:
    assert (len(LINES), len(SETS)) == (12, 3)
    assert all(of.flags["epochs"] % checkpoints.CHECKPOINTS == 0 for of in SETS.values())
    assert {*choice.validated()} >= {"measured", "scores"}
    assert choice.validated()["picks"].keys() == SETS.keys()
