from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.claims import (
    CLAIMS,
    Ask,
    Claim,
    Side,
    assigned,
    best_of,
    budgeted,
    ensure,
    measure,
    obstacle,
    table,
    verdict,
)

from benchmarks import claims
from nearfar import methods
from nearfar.modalities.image.drawings import drawings
from nearfar.modalities.image.encoder import ImageEncoder, image_encoder
from nearfar.modalities.image.samples import Images

TOY = Claim(says="it helps", method="simclr", flags={"temperature": 0.5}, against="simclr", data="drawings")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    return tmp_path


def write(side: Side, values: list[float], **changed: Any) -> None:
    for seed, value in enumerate(values):
        result = side.__dict__ | {"seed": seed, "value": value, "cpu_seconds": 60, "source": claims.source(side.method)}
        side.path(seed).write_text(json.dumps(result | changed))


@pytest.mark.parametrize("name", CLAIMS)
def test_both_sides_have_one_budget(name: str) -> None:
    ours, theirs = CLAIMS[name].sides()
    assert (ours.samples, ours.epochs, ours.data, ours.metric) == (
        theirs.samples, theirs.epochs, theirs.data, theirs.metric,
    )  # fmt: skip
    assert ours.path(0) != theirs.path(0)
    assert "arXiv" in CLAIMS[name].says
    if {ours.method, theirs.method} <= set(methods.names()):
        one, other = (side.plan("drawings", 3).settings for side in (ours, theirs))
        assert one == other
        assert (one.seed, one.epochs, one.encoder) == (3, ours.epochs, "conv4")


def test_a_method_that_is_not_there_yet_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    future = Claim(says="it will", method="timetravel", against="simclr", data="drawings")
    assert obstacle(future) == "there is no method 'timetravel'"
    assert obstacle(TOY) == ""
    assert "no_such_flag" in obstacle(Claim(says="", method="simclr", flags={"no_such_flag": 1}, against="simclr"))
    monkeypatch.setattr(claims, "CLAIMS", {"future": future})
    claims.main(Ask())
    printed = capsys.readouterr().out
    assert "future: left out, as there is no method 'timetravel'" in printed
    assert "0 of 6 runs" in printed
    with pytest.raises(ValueError, match="no claim 'past'; there are future"):
        claims.main(Ask(("past",)))


def test_missing_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "DATA", tmp_path)
    assert "NEARFAR_DATA" in obstacle(Claim(says="", method="simclr", against="moco"))


def test_only_what_is_missing_runs_and_runs_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def one(side: Side, seed: int) -> dict[str, Any]:
        ran.append((side.flags.get("temperature"), seed))
        return side.__dict__ | {"value": 1.0, "untrained": 0.5, "seconds": 2, "cpu_seconds": 2, "source": "of old"}

    other = Claim(says="so does this", method="simclr", flags={"temperature": 0.7}, against="simclr", data="drawings")
    monkeypatch.setattr(claims, "one", one)
    monkeypatch.setattr(claims, "CLAIMS", {"toy": TOY, "other": other})
    claims.main(Ask(("toy",), seeds=2))
    assert ran == [(0.5, 0), (None, 0), (0.5, 1), (None, 1)]
    claims.main(Ask(seeds=3))
    assert ran[4:] == [(0.5, 2), (None, 2), (0.7, 0), (0.7, 1), (0.7, 2)]
    claims.main(Ask(seeds=3))
    claims.main(Ask(seeds=9, table=True))
    assert len(ran) == 9
    claims.main(Ask(("toy",), seeds=1, epochs=7))  # another budget is another run
    assert len(ran) == 11


def test_the_table_tells_a_difference_from_none() -> None:
    ours, theirs = TOY.sides()
    write(ours, [50.0, 52.0, 51.0])
    assert "3 of 6 runs" in table({"toy": TOY}, 3)
    write(theirs, [40.0, 42.1, 40.9])  # moves with the seed, as ours does
    line = table({"toy": TOY}, 3).splitlines()[-1]
    assert "simclr temperature=0.5: 51.0 | simclr: 41.0 | +10.0 [+9.8, +10.2] | better at this budget |" in line
    assert "60, 60" in line
    write(theirs, [50.5, 49.0, 53.0])
    line = table({"toy": TOY}, 3).splitlines()[-1]
    assert "| no difference seen at this budget |" in line
    write(theirs, [50.5, 49.0, 53.0], source="of old")
    assert "no difference seen at this budget; a method was changed since" in table({"toy": TOY}, 3)
    assert "of 4 runs" in table({"toy": TOY}, 1)  # one seed has no spread


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.1, 2, "better"), (-2, -0.1, "worse"), (-1, 1, "no diff"), (0, 1, "no diff")]
)
def test_verdicts(low: float, high: float, said: str) -> None:
    assert verdict(low, high).startswith(said)
    assert verdict(low, high).endswith("at this budget")


def test_a_run_is_trained_measured_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    train, _, test = claims.data("drawings")
    test = test.subset(range(60))
    monkeypatch.setattr(claims, "data", lambda name: (train, test, test))
    side, _ = budgeted(TOY, Ask(samples=32, epochs=2)).sides()
    ensure(side, 1, "the command")
    result = json.loads(side.path(1).read_text())
    assert (result["samples"], result["epochs"], result["seed"], result["command"]) == (32, 2, 1, "the command")
    assert result["flags"] == claims.SHARED | {"temperature": 0.5}
    assert result["protocol"] == {"bank": 60, "test": 60, "epoch": "last"}
    assert 0 < result["untrained"] < 100
    assert not claims.outdated(result)


@pytest.fixture(scope="module")
def few() -> tuple[ImageEncoder, Images]:
    images = drawings("test").subset([20 * c + d for c in range(5) for d in range(12)])
    images.label, images.classes = torch.arange(5).repeat_interleave(12), list("abcde")
    torch.manual_seed(0)
    return image_encoder("conv4", channels=1, size=32, mean=[0.5], std=[0.5]).eval(), images


def test_measures_are_above_chance_and_below_all(few: tuple[ImageEncoder, Images]) -> None:
    encoder, images = few
    assert 25 < measure("knn", encoder, images, images) < 100
    learned, asked = (images.subset(range(start, 60, 2)) for start in (0, 1))
    assert 25 < measure("knn", encoder, learned, asked) < 100
    assert 10 < measure("nmi", encoder, learned, images) < 100


def test_clusters_are_those_of_the_method_itself_where_it_assigns(
    few: tuple[ImageEncoder, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, images = few
    k_means = measure("clusters", encoder, images, images)
    assert 25 < k_means < 100
    train = drawings("train")
    monkeypatch.setattr(claims, "data", lambda name: (train, images, images))
    monkeypatch.setattr(claims, "assigned", lambda method, data: data.label)
    values = {}
    for method, flags in (("mice", {"experts": 5, "dim": 8, "queue": 16}), ("simclr", {})):
        claim = Claim(says="", method=method, flags=flags, against="simclr", data="drawings", metric="clusters")
        side, _ = budgeted(claim, Ask(samples=60, epochs=1)).sides()
        values[method] = claims.one(side, 0)["value"]
    assert values["mice"] == 100
    assert values["simclr"] < 100


def test_assigned_asks_for_every_image_in_order(few: tuple[ImageEncoder, Images]) -> None:
    class Brightness:
        def assign(self, view: torch.Tensor) -> torch.Tensor:
            return (view.mean((1, 2, 3)) * 1000).long()

    _, images = few
    many = images.subset([*range(60)] * 5)
    want = (images.pixels(torch.arange(60)).double().mean((1, 2, 3)) / 255 * 1000).long()
    torch.testing.assert_close(assigned(Brightness(), many), want.repeat(5), atol=1, rtol=0)


def test_the_best_of_several_k_means_is_kept() -> None:
    angle = torch.arange(4) * torch.pi / 2
    corners = torch.stack([angle.cos(), angle.sin()], 1).repeat_interleave(10, 0)
    rows = corners + 0.05 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    found = best_of(rows, 4)
    assert sorted(torch.bincount(found).tolist()) == [10] * 4
    assert all(len(torch.unique(part)) == 1 for part in found.split(10))


def test_an_attack_costs_accuracy_the_more_the_longer_it_is(
    few: tuple[ImageEncoder, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, images = few
    hits = []
    for epsilon in (0.0, 0.1, 0.2):
        monkeypatch.setattr(claims, "EPSILON", epsilon)
        hits.append(measure("fgsm", encoder, images, images))
    assert hits[0] > 90  # on what the classifier has learned from
    assert hits[0] > hits[1] > hits[2]


def test_the_test_parts_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def opening(path: Path) -> Images:
        opened.append(path.name)
        return drawings("train" if "train" in path.name else "test")

    monkeypatch.setattr(claims, "open_images", opening)
    fresh: Callable[[str], tuple[Images, Images, Images]] = claims.data.__wrapped__
    train, bank, test = fresh("cifar10")
    assert opened == ["cifar10_train.npz", "cifar10_test.npz"]
    assert bank.names == train.names[: claims.BANK]
    assert test.split[0] == "test"
