from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import nearfar
from nearfar.cli import main
from nearfar.errors import UserError
from nearfar.evaluation.calibration import COLDEST, HOTTEST, calibration_error
from nearfar.evaluation.intervals import of_answers
from nearfar.evaluation.novelty import auroc, fpr_at, mahalanobis, neighbor_distance
from nearfar.evaluation.protocol import packed
from nearfar.modalities.image.samples import Images
from nearfar.report.page import page
from nearfar.report.record import read
from nearfar.suite import labeled
from nearfar.suite import suite as suites
from nearfar.suite.case import Case, probe_of
from nearfar.suite.names import PARTS as TITLES
from nearfar.suite.names import chosen
from nearfar.suite.part import Number, Part, gain
from nearfar.suite.pictures import _mean_error
from nearfar.suite.suite import suite
from nearfar.suite.unlabeled import PARTS
from tests.tiny import SETTINGS, tiny_images

COUNT = 72
QUICK = tuple(name for name in TITLES if name != "finetune")
REASONED = ("longtail", "groups")
"""Parts that do not apply to these data."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("suite") / "run"
    images, label = tiny_images(COUNT), np.arange(COUNT) % 4
    nearfar.fit((images, label), "simclr", out=out, say=lambda text: None, dim=16, **SETTINGS)
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    place = np.arange(COUNT)
    np.savez(
        folder / "bars.npz",
        images=tiny_images(COUNT),
        labels=np.array(["a", "b", "c", "d"])[place % 4],
        attribute=place // 4 % 3,
        split=np.where(place < 48, "train", "test"),
    )
    np.savez(folder / "bare.npz", images=tiny_images(COUNT))
    noise = np.random.default_rng(1).integers(0, 256, (20, 16, 16), dtype=np.uint8)
    np.savez(folder / "noise.npz", images=noise)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> nearfar.Run:
    return nearfar.load(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def measured(trained: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[nearfar.Run, dict[str, Any]]:
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("measured") / "run")
    run = nearfar.load(folder).on("cpu", 16)
    return run, suite(run, data / "bars.npz", parts=QUICK, ood=data / "noise.npz")


def part_of(table: dict[str, Any], name: str) -> dict[str, Any]:
    (part,) = (part for part in table["suite"]["parts"] if part["name"] == name)
    return part


def number(table: dict[str, Any], name: str, title: str, encoder: str = "trained encoder") -> float:
    (row,) = (row for row in part_of(table, name)["rows"] if row["title"] == title)
    return row["cells"][encoder]["value"]


def counted(monkeypatch: pytest.MonkeyPatch, stop: str = "") -> list[tuple[str, str]]:
    """What is measured from now on, part and encoder; at the part `stop` the process is as good as killed."""
    made: list[tuple[str, str]] = []

    def watched(part: Part) -> Callable[..., Any]:
        def measure(case: Case, row: Any, before: Any) -> Any:
            if part.name == stop:
                raise KeyboardInterrupt
            made.append((part.name, row.name))
            return part.measure(case, row, before)

        return measure

    parts = {
        name: Part(name=name, source=part.source, unfit=part.unfit, seconds=part.seconds, measure=watched(part))
        for name, part in PARTS.items()
    }
    monkeypatch.setattr(suites, "PARTS", parts)
    return made


def test_there_is_a_part_for_every_name() -> None:
    assert PARTS.keys() == TITLES.keys()
    assert chosen(()) == chosen(("all",)) == tuple(TITLES)
    assert chosen(("cka", "knn,linear")) == ("knn", "linear", "cka")


def test_an_unknown_part_is_refused_with_the_list_before_anything_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "no-such-run", "no-such-data", "--suite", "knn", "speed"]) == 2
    said = capsys.readouterr().err
    assert "'speed'" in said
    assert all(name in said for name in TITLES)
    with pytest.raises(UserError, match="'speed'"):
        chosen(["speed"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--ood", "x"], "--ood goes with --suite"),
        (["--force"], "--force goes with --suite"),
        (["--suite", "--svm"], "--suite and --svm"),
        (["--test", "x", "--suite", "knn"], "--suite and --test"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "no-such-run", "no-such-data", *flags]) == 2
    assert said in capsys.readouterr().err


def test_all_parts_are_told_or_left_out_with_a_reason(measured: tuple[nearfar.Run, dict[str, Any]]) -> None:
    _, table = measured
    told = [part["name"] for part in table["suite"]["parts"]]
    left = {one["name"]: one["why"] for one in table["suite"]["left_out"]}
    assert told == [name for name in QUICK if name not in REASONED]
    assert left.keys() == {*REASONED, "finetune"}
    assert left["finetune"] == "not asked for"
    assert "12 to 12" in left["longtail"]
    assert "20 tested" in left["groups"]
    for part in table["suite"]["parts"]:
        for row in part["rows"]:
            assert row["cells"].keys() == {"untrained encoder", "trained encoder"}
            assert all(np.isfinite(cell["value"]) for cell in row["cells"].values())


def test_neighbors_linear_and_few_labels_are_those_of_evaluate(
    measured: tuple[nearfar.Run, dict[str, Any]], run: nearfar.Run, data: Path
) -> None:
    _, table = measured
    plain = run.evaluate(data / "bars.npz")
    for row in plain["rows"][-2:]:  # untrained and trained
        own = next(one for one in table["rows"] if one["name"] == row["name"])
        assert {title: cell["value"] for title, cell in own["values"].items()} == {
            title: cell["value"] for title, cell in row["values"].items()
        }
    gains = plain["gains"]["untrained encoder"]
    assert table["gains"]["untrained encoder"] == gains
    (knn,) = (row for row in part_of(table, "knn")["rows"] if row["title"] == "accuracy (%)")
    assert knn["gains"]["untrained encoder"]["value"] == pytest.approx(gains["kNN (%)"]["value"])


def test_mean_corruption_error_is_relative_to_the_untrained_encoder(
    measured: tuple[nearfar.Run, dict[str, Any]],
) -> None:
    run, table = measured
    title = "mCE, untrained encoder = 100"
    kept = {
        told["encoder"]: np.array(told["told"]["kept"]["errors"], float).sum(0)
        for path in (run.path / "suite").glob("told-corruptions-*.json")
        for told in [json.loads(path.read_text())]
    }
    ours, base = kept["trained encoder"], kept["untrained encoder"]
    mean = 100 - 100 * float(ours.sum()) / (24 * 30)
    assert number(table, "corruptions", "mean over corruptions (%)") == pytest.approx(mean)
    titles = [row["title"] for row in part_of(table, "corruptions")["rows"]]
    assert (title in titles) == bool((base > 0).all())
    assert ("no mCE" in " ".join(part_of(table, "corruptions")["notes"])) == bool((base == 0).any())


def test_mean_corruption_error_by_hand() -> None:
    case: Any = SimpleNamespace(group=None, seed=0)
    base, ours = torch.zeros(40, 6), torch.zeros(40, 6)
    base[:20], ours[:10] = 4, 2  # of each corruption 80 errors, and 20
    ours[:10, 0] = 4  # and of the first 40
    made = _mean_error(ours, base, case, torch.arange(40), own=False)
    assert made.value == pytest.approx(100 * (40 / 80 + 5 * 20 / 80) / 6)
    assert made.low is not None
    assert made.high is not None
    assert made.low < made.value < made.high
    assert _mean_error(base, base, case, torch.arange(40), own=True).value == 100


def test_attacks_leave_no_more_than_the_clean_answers_and_less_as_they_grow(
    measured: tuple[nearfar.Run, dict[str, Any]],
) -> None:
    _, table = measured
    left = [number(table, "attacks", title) for title in ("clean (%)", "PGD 2/255 (%)", "PGD 8/255 (%)")]
    assert left == sorted(left, reverse=True)


def test_other_data_and_likeness_are_those_of_the_features(
    measured: tuple[nearfar.Run, dict[str, Any]], data: Path
) -> None:
    run, table = measured
    own, other = run.embed(data / "bars.npz"), run.embed(data / "noise.npz")
    bank, label = own[:48], torch.arange(48) % 4
    for name, score in (
        ("kNN", lambda x: neighbor_distance(x, bank, 2)),  # a twentieth of 48
        ("Mahalanobis", lambda x: mahalanobis(x, bank, label)),
    ):
        inside, outside = score(own[48:]), score(other)
        assert number(table, "ood", f"AUROC, {name} (%)") == pytest.approx(100 * auroc(inside, outside), abs=0.3)
        assert number(table, "ood", f"FPR95, {name} (%)") == pytest.approx(100 * fpr_at(inside, outside), abs=5.1)
    assert number(table, "cka", "with trained encoder") == pytest.approx(1)
    assert number(table, "cka", "with untrained encoder") == pytest.approx(
        number(table, "cka", "with trained encoder", "untrained encoder")
    )


def test_the_result_is_one_section_of_the_report(measured: tuple[nearfar.Run, dict[str, Any]]) -> None:
    run, table = measured
    (path,) = (run.path / "results").glob("suite-*.json")
    assert path.stem == table["name"]
    record = read(run.path)
    assert not record.damage
    html = page(record)
    for name in QUICK:
        assert TITLES[name] in html
    assert html.count('<section id="results-') == 1


def test_a_killed_suite_goes_on_and_force_measures_anew(
    run: nearfar.Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = ("knn", "retrieval", "cka")
    with monkeypatch.context() as patch:
        made = counted(patch, stop="cka")
        with pytest.raises(KeyboardInterrupt):
            suite(run, data / "bars.npz", parts=parts)
        assert [name for name, _ in made] == ["knn", "knn", "retrieval", "retrieval"]
    assert not list((run.path / "results").glob("suite-*"))
    said: list[str] = []
    made = counted(monkeypatch)
    table = suite(run, data / "bars.npz", parts=parts, say=said.append)
    assert made == [("cka", "untrained encoder"), ("cka", "trained encoder")]
    assert any("4 of 6" in text for text in said)
    made.clear()
    assert suite(run, data / "bars.npz", parts=("knn",))["suite"]["parts"] == table["suite"]["parts"]
    assert not made  # and what was measured before is told too
    suite(run, data / "bars.npz", parts=("knn",), seed=1)
    assert len(made) == 2  # other draws
    made.clear()
    suite(run, data / "bars.npz", parts=("knn",), force=True)
    assert len(made) == 2


def test_what_is_damaged_is_measured_anew(run: nearfar.Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = suite(run, data / "bars.npz", parts=("retrieval",))
    for path in (run.path / "suite").iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    made = counted(monkeypatch)
    second = suite(run, data / "bars.npz", parts=("retrieval",))
    assert len(made) == 2
    assert second["suite"]["parts"] == first["suite"]["parts"]


def test_the_encoder_before_training_is_the_baseline_also_where_it_alone_is_damaged(
    run: nearfar.Run, data: Path
) -> None:
    first = suite(run, data / "bars.npz", parts=("corruptions",))
    for path in (run.path / "suite").glob("told-corruptions-*"):
        if json.loads(path.read_text())["encoder"] == "untrained encoder":
            path.write_bytes(path.read_bytes()[:-40])
    assert suite(run, data / "bars.npz", parts=("corruptions",))["suite"]["parts"] == first["suite"]["parts"]


def test_features_are_computed_once(run: nearfar.Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite(run, data / "bars.npz", parts=("knn",))
    monkeypatch.setattr("nearfar.training.probe.passed", None)  # whoever calls it now fails
    suite(run, data / "bars.npz", parts=("retrieval", "clusters"))


def test_without_labels_the_parts_that_take_none_are_left(run: nearfar.Run, data: Path) -> None:
    table = suite(run, data / "bare.npz", parts=("knn", "geometry", "cka"))
    assert [part["name"] for part in table["suite"]["parts"]] == ["geometry", "cka"]
    assert {one["name"]: one["why"] for one in table["suite"]["left_out"]}["knn"] == "no labels are known"
    record = read(run.path)
    assert not record.tables
    assert TITLES["geometry"] in page(record)
    with pytest.raises(UserError, match="no labels are known"):
        suite(run, data / "bare.npz", parts=("knn",))


def test_another_run_is_compared_on_the_same_samples(run: nearfar.Run, data: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(run.path, tmp_path / "twin")
    table = suite(run, data / "bars.npz", parts=("cka",), beside=[twin])
    assert number(table, "cka", "with twin") == pytest.approx(1)
    with pytest.raises(UserError, match="the run itself"):
        suite(run, data / "bars.npz", parts=("cka",), beside=[run.path])


def test_fine_tuning_on_few_labels_beats_chance(run: nearfar.Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labeled, "STEPS", 10)
    table = suite(run, data / "bars.npz", parts=("finetune",))
    (first, second) = part_of(table, "finetune")["rows"]
    assert first["title"].startswith("1% of labels, 1 a class")
    assert first["cells"] == second["cells"]  # 10 % of 12 is one as well
    assert number(table, "finetune", first["title"]) > 25


def test_no_more_images_than_a_batch_are_fetched(run: nearfar.Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    fetch = Images.fetch

    def watched(self: Images, index: torch.Tensor) -> Any:
        sizes.append(len(index))
        return fetch(self, index)

    monkeypatch.setattr(Images, "fetch", watched)
    suite(run.on("cpu", 8), data / "bars.npz", parts=("knn", "corruptions", "attacks", "geometry"))
    assert max(sizes) == 8


@pytest.mark.parametrize("ridge", [False, True])
def test_the_probe_tells_classes_and_is_calibrated_on_training_rows(
    ridge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearfar.suite.case.LARGE", 0 if ridge else 10**9)
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(300) % 3 * 2  # classes 0, 2 and 4
    x = torch.randn(300, 5, generator=generator) + torch.eye(5)[label] * 3
    probe = probe_of(x, label, None, 0)
    assert probe.present.tolist() == [0, 2, 4]
    assert probe.facts["classifier"] == ("ridge" if ridge else "logistic")
    assert (probe.present[probe.logits(x).argmax(1)] == label).float().mean() > 0.9
    assert probe.numbers(torch.tensor([4, 1, 0, 5])).tolist() == [2, 3, 0, 3]
    assert probe.calibration.rows == probe.facts["calibrated_on"] == 60
    assert (probe.plain == 1) is not ridge


def test_gains_are_paired() -> None:
    ours, theirs = torch.tensor([1, 1, 0, 1, 0, 1]), torch.tensor([1, 0, 0, 1, 0, 0])
    made = gain(Number(value=0, right=packed(ours)), Number(value=0, right=packed(theirs)), 3)
    assert made == {
        "value": pytest.approx(100 / 3),
        "low": of_answers(ours, over=theirs, seed=3).low,
        "high": of_answers(ours, over=theirs, seed=3).high,
    }
    each = gain(Number(value=0, each=[1.0, 2.0, 3.0]), Number(value=0, each=[0.0, 1.0, 2.0]), 0)
    assert each == {"value": pytest.approx(1), "low": pytest.approx(1), "high": pytest.approx(1)}
    assert gain(Number(value=0, each=[1.0]), Number(value=0, each=[1.0, 2.0]), 0) is None
    assert gain(Number(value=1), Number(value=0), 0) is None


def test_scores_of_ridge_regression_over_many_classes_find_their_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearfar.suite.case.LARGE", 0)
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(3000) % 300
    centers = torch.randn(300, 40, generator=generator)
    x = centers[label] + 0.6 * torch.randn(3000, 40, generator=generator)
    probe = probe_of(x, label, None, 0)
    heat = probe.calibration.temperature
    assert heat is not None
    assert 2 * COLDEST < min(heat, probe.plain) < max(heat, probe.plain) < HOTTEST / 2
    fresh = centers[label] + 0.6 * torch.randn(3000, 40, generator=generator)
    errors = [calibration_error((probe.logits(fresh) / one).softmax(1), label) for one in (heat, probe.plain, 1.0)]
    assert errors[0] < 0.1
    assert errors[0] <= min(errors[1:]) + 0.02


def test_a_damaged_result_costs_no_more_than_its_section(run: nearfar.Run, data: Path) -> None:
    table = suite(run, data / "bars.npz", parts=("cka",))
    run.write(table["name"], table | {"suite": {"encoders": ["a"], "parts": [{"title": "no rows"}], "left_out": []}})
    record = read(run.path)
    assert any(table["name"] in sentence for sentence in record.damage)
    assert TITLES["cka"] not in page(record)


def test_a_part_that_finds_out_late_that_it_cannot_is_left_out(
    run: nearfar.Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(case: Case, row: Any, before: Any) -> Any:
        raise UserError("nothing to see")

    part = PARTS["knn"]
    late = Part(name="knn", source="", unfit=part.unfit, seconds=part.seconds, measure=refuse)
    monkeypatch.setattr(suites, "PARTS", PARTS | {"knn": late})
    table = suite(run, data / "bars.npz", parts=("knn", "cka"))
    assert [part["name"] for part in table["suite"]["parts"]] == ["cka"]
    assert {one["name"]: one["why"] for one in table["suite"]["left_out"]}["knn"] == "nothing to see"
