"""The classifiers that come of a run and a few labels, and the directory they are kept in."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nearfar
from nearfar.batch import MISSING
from nearfar.fewlabels import publish as publishing
from nearfar.fewlabels.classifier import Classifier
from nearfar.fewlabels.finetuning import finetune
from nearfar.methods.simclr import SimCLR
from nearfar.modalities.image.samples import Images
from nearfar.run import Run
from nearfar.training.claim import step_reached
from tests.fewlabels.conftest import QUIET, VARYING, Stop, samples, with_val
from tests.modalities.table.test_table import table
from tests.tiny import SETTINGS, contents, tiny_images


def weights(classifier: Classifier) -> torch.Tensor:
    return classifier.layers[-1].state_dict()["weight"]


def of_split(data: Images, *names: str) -> Images:
    return data.subset(data.of_split(*names).nonzero()[:, 0])


def result(classifier: Classifier) -> dict[str, Any]:
    return json.loads((classifier.path / "results" / "finetune.json").read_text())


def test_the_facts_of_a_linear_layer_on_frozen_features(run: Run, linear: Classifier) -> None:
    facts = json.loads((linear.path / "classifier.json").read_text())["facts"]
    expected = {"run": str(run.path), "checkpoint": "last", "data": "Images in memory", "labels": ""}
    expected |= {"train": "frozen", "layer": 1, "weights": "trained", "share": 0.0, "per_class": 0, "seed": 0}
    expected |= {"learned": 48, "held_out": 0, "calibration_rows": 48, "calibrated_by_teacher": False}
    assert {name: facts[name] for name in expected} == expected
    assert max(facts["held_out_accuracy"]) > 50
    learned = of_split(samples(), "")
    assert linear.evidence.names == learned.names
    assert linear.evidence.label.tolist() == learned.label.tolist()
    assert not linear.evidence.held.any()  # each was held out in turn
    assert linear.run.config["classifier"] == facts
    assert (linear.run.config["method"], linear.run.config["samples"]) == ("simclr", 48)


def test_the_facts_of_a_whole_network(run: Run, tuned: Classifier) -> None:
    facts = tuned.facts
    expected = {"train": "full", "epochs": 2, "batch": 16, "lr": 1e-3, "views": "drawing", "tries": 2}
    expected |= {"learned": 36, "held_out": 12, "calibration_rows": 12}
    assert {name: facts[name] for name in expected} == expected
    assert facts["epoch"] in (1, 2)
    assert tuned.temperature is None  # twelve rows are too few
    data = with_val()
    assert tuned.evidence.names == of_split(data, "", "train", "val").names
    held = {name for name, is_held in zip(tuned.evidence.names, tuned.evidence.held, strict=True) if is_held}
    assert held == set(of_split(data, "val").names)
    config = tuned.run.config
    assert {name: config[name] for name in ("method", "samples", "epochs", "batch")} == {
        "method": "simclr, fine-tuned",
        "samples": 48,
        "epochs": 2,
        "batch": 16,
    }
    lines = [json.loads(line) for line in (tuned.path / "metrics.jsonl").read_text().splitlines()]
    assert sum("held_out_accuracy" in line for line in lines) == 2


def test_what_moved_and_what_did_not(run: Run, linear: Classifier, tuned: Classifier) -> None:
    before = nearfar.load(run.path).encoder.state_dict()
    for encoder, same in ((run.encoder, True), (linear.run.encoder, True), (tuned.run.encoder, False)):
        state = encoder.state_dict()
        assert all(torch.equal(value, before[name]) for name, value in state.items()) == same


def test_it_is_measured_on_the_test_split_alone(linear: Classifier, tuned: Classifier) -> None:
    for classifier, data in ((linear, samples()), (tuned, with_val())):
        test = of_split(data, "test")
        label = [test.classes[int(c)] for c in test.label]
        right = [answer == c for answer, c in zip(classifier.predict(test).label, label, strict=True)]
        table = result(classifier)
        assert table["rows"][0]["values"]["accuracy (%)"]["value"] == pytest.approx(100 * np.mean(right))
        assert sum(count for *_, count in table["confusion"]["counts"]) == len(test)
        assert table["protocol"]["test"] == len(test)
        assert table["protocol"]["temperature"] == classifier.temperature
        # The run was trained on the first 48 samples, of whatever split.
        seen = sum(int(name) < 48 for name in test.names)
        assert 0 < seen < len(test)
        assert table["protocol"]["test_seen_in_training"] == seen
        assert table["protocol"]["seen_in_training"] is True
        assert classifier.run.seen(test).sum() == seen


def test_what_moved_the_encoder_counts_as_seen(run: Run, tmp_path: Path) -> None:
    data = samples(96, split=("",) * 12 + ("test",) * 12)  # the test split is new to the run
    assert not run.seen(of_split(data, "test")).any()
    new = dataclasses.replace(of_split(data, "test"), split=[""] * 24 + ["test"] * 24)
    classifier = finetune(run, new, train="full", epochs=1, out=tmp_path / "c", **QUIET)
    assert classifier.run.seen(data).tolist() == [True] * 72 + [False] * 24
    assert result(classifier)["protocol"]["seen_in_training"] is False
    assert classifier.facts["held_out"] == 0  # 24 labels of four classes are too few to hold some out
    again = nearfar.load(classifier.path)
    assert again.report().is_file()
    assert again.export().dim == run.encoder.dim
    for tested, seen in ((new, False), (data, True)):  # of data's test split, 24 were learned from
        assert again.evaluate(tested)["protocol"]["knn"]["seen_in_training"] is seen


def test_a_classifier_keeps_what_its_run_began_with_and_leaves_the_run_as_it_is(run: Run, tmp_path: Path) -> None:
    given = {"weights": str(run.path / "encoder.safetensors"), "recipe": "paper", "dim": 32}
    went_on = nearfar.fit(tiny_images(), "simclr", out=tmp_path / "on", **given, **QUIET, **SETTINGS | {"epochs": 1})
    went_on.on("cpu", 16)
    classifier = finetune(went_on, samples(), out=tmp_path / "c", **QUIET)
    assert (went_on.batch, str(went_on.device)) == (16, "cpu")
    kept = nearfar.load(classifier.path).beginnings()
    assert list(kept) == ["untrained encoder", "given weights"]
    start, first = kept["given weights"].state_dict(), run.encoder.state_dict()
    assert all(torch.equal(start[name], first[name]) for name in first)


def test_the_middle_of_the_projector_is_the_methods(run: Run, linear: Classifier) -> None:
    method = run.method
    assert isinstance(method, SimCLR)
    (view,) = run.kind.plain(run.encoder)(*samples().fetch(torch.arange(6)))
    layer, norm = method.projector[0], method.projector[1]
    with torch.no_grad():
        torch.testing.assert_close(linear.network(view), norm(layer(method.encoder(view))).relu())


@pytest.mark.parametrize("train", ["frozen", "full"])
def test_seeds_make_it_again(run: Run, tmp_path: Path, train: str) -> None:
    asked: dict[str, Any] = {"train": train, "per_class": 3, "epochs": 1, "batch": 12}
    a, b, c = (
        finetune(run, samples(48), seed=seed, out=tmp_path / f"{i}", **asked, **QUIET)
        for i, seed in enumerate((5, 5, 6))
    )
    assert torch.equal(weights(a), weights(b))
    assert not torch.equal(weights(a), weights(c))
    assert a.evidence.names == b.evidence.names != c.evidence.names
    assert len(a.evidence) == a.facts["learned"] == 12


def test_stopped_and_resumed_it_ends_with_the_same_bits(run: Run, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"train": "full", "epochs": 4, "batch": 16, "lr": 1e-3, **QUIET}
    finetune(run, with_val(), out=tmp_path / "whole", **asked)
    out, said = tmp_path / "cut", []
    for calls, number in ((3, signal.SIGTERM), (2, signal.SIGINT)):  # a call an epoch, and one for each probe
        with pytest.raises(KeyboardInterrupt):
            finetune(run, with_val(), out=out, resume=out.exists(), watch=Stop(calls, number), **asked)
        assert not (out / "config.yaml").exists()
        assert step_reached(out) > 0
    with pytest.raises(FileExistsError, match="go on with --resume"):
        finetune(run, with_val(), out=out, **asked)
    for change, told in (({"lr": 0.5}, r"lr was 0\.001 and is 0\.5"), ({"seed": 1}, "seed was 0 and is 1")):
        with pytest.raises(ValueError, match=told):
            finetune(run, with_val(), out=out, resume=True, **asked | change)
    with pytest.raises(ValueError, match=r"the samples in .*, or their labels, are not those"):
        finetune(run, samples(), out=out, resume=True, **asked)
    finetune(run, with_val(), out=out, resume=True, **asked | {"say": said.append, "device": "cpu"})
    assert any(sentence.startswith("Going on from step") for sentence in said)
    assert contents(out, VARYING) == contents(tmp_path / "whole", VARYING)
    finetune(run, with_val(), out=out, resume=True, **asked | {"say": said.append})
    assert said[-1].endswith("it stays as it is.")


def test_what_was_killed_before_it_saved_begins_again(run: Run, tmp_path: Path) -> None:
    finetune(run, samples(), out=tmp_path / "whole", **QUIET)
    out = tmp_path / "cut"

    def killed() -> None:  # by kill -9, when all is written but the last
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "measure", lambda *_: killed())
        with pytest.raises(SystemExit):
            finetune(run, samples(), out=out, **QUIET)
    (out / ".classifier.json.4711.tmp").write_text("{")
    assert (out / "config.yaml").exists()
    finetune(run, samples(), out=out, resume=True, **QUIET)
    assert contents(out, VARYING) == contents(tmp_path / "whole", VARYING)


def test_classes_without_a_label_to_learn_from_count_as_wrong(run: Run, tmp_path: Path) -> None:
    data = samples(48)
    unknown = (data.label == 3) & data.of_split("")
    data = dataclasses.replace(data, label=torch.where(unknown, MISSING, data.label))
    table = result(finetune(run, data, out=tmp_path / "c", **QUIET))
    assert table["confusion"]["classes"] == ["angle0", "angle1", "angle2", "angle3"]
    assert table["protocol"]["test_of_unknown_classes"] == 6
    each = {row["name"]: row["values"]["accuracy (%)"]["value"] for row in table["per_class"]["rows"]}
    assert each["angle3"] == 0
    assert sum(count for truth, answer, count in table["confusion"]["counts"] if truth == 3) == 6
    assert all(answer != 3 for _, answer, _ in table["confusion"]["counts"])


def test_untrained_weights_are_those_of_the_beginning(run: Run, tmp_path: Path) -> None:
    classifier = finetune(run, samples(48), weights="untrained", out=tmp_path / "c", **QUIET)
    first = run.untrained().state_dict()
    assert all(torch.equal(value, first[name]) for name, value in classifier.run.encoder.state_dict().items())


def test_nothing_is_overwritten_and_nothing_is_left_of_what_failed(
    run: Run, linear: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="name another --out"):
        finetune(run, samples(), out=tmp_path / "mine", **QUIET)
    assert (tmp_path / "mine" / "note.txt").read_text() == "precious"
    for source, asked in ((run, {"per_class": -1}), (run, {"layer": 9}), (linear.run, {"layer": 1})):
        with pytest.raises(ValueError, match=r"--per-class|layer"):
            finetune(source, samples(), out=tmp_path / "new", **asked, **QUIET)
    assert not (tmp_path / "new").exists()


def test_rows_of_a_table(tmp_path: Path) -> None:
    data = str(table(tmp_path / "things.csv"))
    settings = {"epochs": 2, "batch": 16, "encoder": "mlp-16x2", "label_column": "kind", "device": "cpu"}
    run = nearfar.fit(data, "simclr", out=tmp_path / "run", recipe="paper", **QUIET, **settings)
    for train in ("frozen", "full"):
        classifier = finetune(run, data, train=train, epochs=3, batch=16, lr=1e-3, out=tmp_path / train, **QUIET)
        answer = classifier.predict(data).label
        assert classifier.classes == ["a", "b", "c"]
        assert np.mean([label == "abc"[i % 3] for i, label in enumerate(answer)]) > 0.5
    assert classifier.facts["views"] == "scarf"  # of which the first view is the row itself
    with pytest.raises(ValueError, match="2 files for a classifier of rows"):
        classifier.open([data, data])
