from __future__ import annotations

import functools
import inspect
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import nearfar
from nearfar import modalities
from nearfar.batch import MISSING, Batch
from nearfar.errors import Diverged
from nearfar.export.encoder import load_encoder
from nearfar.files import replace_json
from nearfar.method import Step
from nearfar.methods.supcon import SupCon
from nearfar.modalities.image.kind import pixel_statistics
from nearfar.modalities.image.samples import open_images
from nearfar.optim import warmup_cosine
from nearfar.settings import Settings
from nearfar.training import build as building
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training.checkpoints import Checkpoints, read
from nearfar.training.directory import read_environment
from nearfar.training.journal import Journal
from tests.tiny import SETTINGS, array_file, contents, folder, tiny_images
from tests.training.test_checkpoints import damage
from tests.training.test_loop import equal


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return array_file(tmp_path_factory.mktemp("data") / "images.npz")


def train(
    method: str, data: Any, out: Path, *, resume: bool = False, stop: int = -1, **flags: Any
) -> tuple[bool, list[str]]:
    """Train with the tiny settings; `stop` is the step after which Ctrl-C comes."""
    said: list[str] = []

    def watch(step: int, steps: int, numbers: dict[str, float]) -> None:
        if step == stop and "loss" in numbers:
            os.kill(os.getpid(), signal.SIGINT)

    plan = plans.make(method, data, None, SETTINGS | flags)
    with pytest.MonkeyPatch.context() as patch:
        if stop >= 0:
            patch.setattr(sys.modules["nearfar.training.log"], "DRAIN", 1)  # `watch` is then called after every step
        return training.train(plan, out, resume=resume, say=said.append, watch=watch), said


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "done"
    assert train("simclr", data, out)[0]
    return out


def test_a_finished_run_holds_what_it_should(done: Path) -> None:
    names = set(contents(done))
    assert names == {
        *("config.yaml", "environment.json", "metrics.jsonl", "samples.parquet", "views.png"),
        *("encoder.safetensors", "encoder.json", "encoder.py"),
        *("checkpoints/best.pt", "checkpoints/step-000000003.pt", "checkpoints/step-000000006.pt"),
    }
    config = yaml.safe_load((done / "config.yaml").read_text())
    assert (config["method"], config["made"]["steps"], config["settings"]["encoder"]) == ("simclr", 6, "conv4")
    environment = json.loads((done / "environment.json").read_text())
    assert environment["finished"]
    assert environment["seconds"] > 0
    lines = Journal(done / "metrics.jsonl").read()
    assert [line["step"] for line in lines] == [0, 3, 3, 6, 6]
    assert [set(line) >= {"loss", "chance", "lr"} for line in lines] == [False, True, False, True, False]
    assert [line["knn"] for line in lines[::2]]


def test_nothing_is_ever_overwritten(data: Path, done: Path) -> None:
    before = contents(done)
    with pytest.raises(FileExistsError, match=r"never overwritten: go on with --resume, or name another --out"):
        train("simclr", data, done)
    assert contents(done) == before


def test_resuming_a_finished_run_says_so_and_leaves_it(data: Path, done: Path) -> None:
    before = contents(done)
    finished, said = train("simclr", data, done, resume=True)
    assert finished
    assert said == [f"The run in {str(done)!r} is finished: there is nothing to go on with, and it stays as it is."]
    assert contents(done) == before


def test_a_recipe_of_ones_own_names_arguments_that_there_are(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    text = "from nearfar import Recipe, Settings\ndef mine(): return Recipe(settings=Settings(), method={{{!r}: {}}})\n"
    file.write_text(text.format("temprature", 0.3))
    with pytest.raises(TypeError, match="has a method argument 'temprature', and 'simclr' has none of that name"):
        plans.make("simclr", "drawings", f"{file}:mine", {})
    file.write_text(text.format("temperature", 0.0))
    with pytest.raises(ValueError, match=r"--temperature 0\.0: a number above 0"):
        plans.make("simclr", "drawings", f"{file}:mine", {})
    assert plans.make("simclr", "drawings", None, {"from_run": tmp_path}).settings.from_run == str(tmp_path)


def test_a_recipe_may_go_by_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is settled once they are open; a run that goes on keeps what it was settled to, whatever the file says."""
    file = tmp_path / "mine.py"
    text = (
        "from nearfar import Recipe\nfrom nearfar.modalities.image.settings import Settings\ndef mine(facts):\n"
        "    epochs, batch = facts.epochs or 1, facts.samples // 4\n"
        "    settings = Settings(encoder='conv4', views='cmc', batch=batch, epochs=epochs, lr={})\n"
        "    return Recipe(settings=settings, method={{'dim': facts.channels * facts.side}})\n"
    )
    file.write_text(text.format(0.01))
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    for given, want in (({}, (6, 1, 48)), ({"batch": 8, "dim": 5, "epochs": 2}, (8, 2, 5))):
        out = tmp_path / f"run{len(given)}"
        run = nearfar.fit(images, "simclr", out=out, recipe=f"{file}:mine", say=lambda text: None, **given)
        settings, arguments = run.config["settings"], run.config["arguments"]
        assert (settings["batch"], settings["epochs"], arguments["dim"]) == want
    again = functools.partial(nearfar.fit, images, "simclr", out=out, recipe=f"{file}:mine", resume=True)
    assert again(epochs=3, say=lambda text: None).config["settings"] == settings | {"epochs": 3}
    with pytest.raises(ValueError, match="batch was 8 and is 12"):
        again(batch=12)
    monkeypatch.chdir(tmp_path)
    spelled = again(recipe="mine.py:mine", epochs=4, say=lambda text: None)  # the same file
    assert spelled.config["settings"] == settings | {"epochs": 4}


@pytest.mark.parametrize(
    ("few", "error", "told"),
    [
        ("numbers='standard'", ValueError, "numbers 'standard' for these samples, which were opened with 'quantile'"),
        ("device='cuda'", ValueError, "device 'cuda' for these samples, which were opened with 'auto'"),
        ("view_count=4", ValueError, "'simclr' takes 2 views of each sample, and --views corrupted --view-count 4"),
        ("encoder='resnet18'", ValueError, 'no encoder of tables is called "resnet18"'),
        ("method={'temprature': 0.3}", TypeError, "has a method argument 'temprature', and 'simclr' has none"),
        ("method={'temperature': 0.0}", ValueError, r"--temperature 0\.0: a number above 0"),
    ],
)
def test_a_recipe_by_the_samples_is_held_to_what_any_recipe_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: str, error: type[Exception], told: str
) -> None:
    """Of typical samples it is sound; what it has for these is refused before anything is built."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from nearfar import Recipe\nfrom nearfar.modalities.table.settings import Settings\ndef mine(facts):\n"
        "    own = {'numbers': 'quantile', 'epochs': 1, 'batch': 8, 'views': 'corrupted'}\n"
        f"    own |= dict({few}) if facts.samples < 100 else {{}}\n"
        "    return Recipe(method=own.pop('method', {}), settings=Settings(**own))\n"
    )
    table = {"a": [float(i) for i in range(24)], "b": [float(i % 5) for i in range(24)]}
    fit = functools.partial(nearfar.fit, table, "simclr", recipe=f"{file}:mine", say=lambda text: None)
    with monkeypatch.context() as patch:
        patch.setattr(training, "build", lambda *args: pytest.fail("it was built"))
        with pytest.raises(error, match=told):
            fit(out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    if few.startswith("numbers"):
        assert fit(out=tmp_path / "run", numbers="quantile").config["settings"]["numbers"] == "quantile"


def test_recipes_by_measurement_are_the_default_and_those_of_papers_have_a_name(data: Path) -> None:
    names = {
        name: plans.make(method, data, name, {}).recipe
        for method, name in (("simclr", None), ("simclr", "paper"), ("simclr", "imagenet"))
    }
    assert names == {None: "measured_images", "paper": "small_images", "imagenet": "imagenet"}
    assert plans.make("pcl", data, None, {}).recipe == "small_images"  # not measured
    assert plans.make("simclr", "drawings", None, {}).recipe == "drawings"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"lr": 0.7}, r"lr was [\d.]+ and is 0\.7"),
        ({"probe_every": 0}, "probe_every was 1 and is 0"),
        ({"precision": "bf16"}, "precision was 'float32' and is 'bf16'"),
        ({"temperature": 0.3}, r"temperature was [\d.]+ and is 0\.3"),
        ({"seed": 1, "optimizer": "sgd"}, "optimizer was '[a-z]+' and is 'sgd'; seed was 0 and is 1"),
        ({"crops": (2, 1)}, r"crops was \[2, 0\] and is \[2, 1\]"),
    ],
)
def test_other_flags_are_refused_by_name(data: Path, done: Path, flags: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=rf"cannot be resumed with other settings: {told}\. Give the same flags"):
        train("simclr", data, done, resume=True, **flags)


def test_another_method_is_refused(data: Path, done: Path) -> None:
    with pytest.raises(ValueError, match="method was 'simclr' and is 'moco'"):
        train("moco", data, done, resume=True)


def change(path: Path, what: str) -> None:
    with np.load(path) as held:
        images, labels = held["images"].copy(), held["labels"].copy()
    if what == "one pixel":
        images[17, 3, 3] ^= 1
    elif what == "the order":
        images, labels = images[::-1], labels[::-1]
    elif what == "one label":
        labels[0] = 3
    np.savez(path, images=images, labels=labels)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("one pixel", r"1 of 48 .*'17' \(its bytes have changed\)"),
        ("the order", "another order"),
        ("one label", "1 of 48 .*'0' was '0' and is '3'"),
    ],
)
def test_other_data_are_refused(tmp_path: Path, what: str, words: str) -> None:
    data = array_file(tmp_path / "images.npz")
    assert not train("simclr", data, tmp_path / "run", stop=3)[0]
    before = contents(tmp_path / "run")
    change(data, what)
    with pytest.raises(ValueError, match=rf"samples in '.*images.npz', or their labels, .*{words}"):
        train("simclr", data, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before


def test_the_same_folder_written_otherwise_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    assert not train("simclr", "photos", Path("run"), stop=1)[0]
    assert train("simclr", "photos/", Path("run"), resume=True)[0]


def test_what_changes_no_mathematics_may_change(data: Path, done: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "run"
    monkeypatch.chdir(data.parent)
    assert not train("simclr", data.name, out, stop=4, labels="", keep=1)[0]
    monkeypatch.chdir(tmp_path)
    threads, environment = torch.get_num_threads(), read_environment(out)
    replace_json(out / "environment.json", environment | {"threads": threads + 1})
    finished, said = train("simclr", data, out, resume=True, keep=3, device="cpu", timeout=9.0, save_every=2)
    assert finished
    for sentence in ("keep was 1 and is 3.", "device was 'auto' and is 'cpu': results", "timeout was 30.0 and is 9.0."):
        assert any(line.startswith(sentence) for line in said), sentence
    assert any(line.startswith(f"threads was {threads + 1} and is {threads}: sums") for line in said)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert {name: config["settings"][name] for name in ("keep", "device", "timeout")} == {
        "keep": 3,
        "device": "cpu",
        "timeout": 9.0,
    }
    (note,) = config["changed"]
    assert (note["step"], note["keep"], note["threads"]) == (4, [1, 3], [threads + 1, threads])
    assert json.loads((out / "environment.json").read_text())["threads"] == threads
    assert contents(out)["encoder.safetensors"] == contents(done)["encoder.safetensors"]


def test_the_device_that_is_written_down_is_the_machines(data: Path, tmp_path: Path) -> None:
    assert not train("simclr", data, tmp_path, stop=2, device="cpu")[0]
    assert train("simclr", data, tmp_path, resume=True, device="auto")[0]
    assert read_environment(tmp_path)["device"] == "cpu"


def test_the_same_file_by_another_path_is_no_change(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(data.parent)
    assert not train("simclr", data.name, tmp_path / "run", stop=4)[0]
    before = (tmp_path / "run" / "config.yaml").read_text()
    finished, said = train("simclr", data, tmp_path / "run", resume=True)
    assert finished
    assert not any(" was " in sentence for sentence in said)
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_data_that_moved_are_known_by_their_contents(data: Path, done: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here.npz", tmp_path / "there.npz"
    shutil.copy(data, here)
    assert not train("simclr", here, tmp_path / "run", stop=4)[0]
    here.rename(there)
    finished, said = train("simclr", there, tmp_path / "run", resume=True)
    assert finished
    assert f"data was {str(here)!r} and is {str(there)!r}: samples are compared by their contents." in said
    assert contents(tmp_path / "run")["encoder.safetensors"] == contents(done)["encoder.safetensors"]


def test_a_finished_run_may_have_more_epochs(data: Path, done: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(done, out)
    with pytest.raises(ValueError, match=r"--epochs 1: 2 are done"):
        train("simclr", data, out, resume=True, epochs=1)
    assert contents(out) == contents(done)
    finished, said = train("simclr", data, out, resume=True, epochs=4, stop=8)
    assert not finished
    assert any(line.startswith("epochs was 2 and is 4: from here on") for line in said)
    rate = warmup_cosine(6, steps=12, warmup=1)
    assert f"At step 6 the learning rate is {rate:.1%} of its peak; it would have been 0.0%." in said
    lines = Journal(out / "metrics.jsonl").read()
    peak = yaml.safe_load((out / "config.yaml").read_text())["made"]["lr"]
    assert next(line["lr"] for line in lines if line["step"] == 7) == pytest.approx(rate * peak)
    finished, said = train("simclr", data, out, resume=True, epochs=4)
    assert finished
    assert "Going on from step 8 of 12." in said
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["epochs"], config["settings"]["epochs"], config["made"]["steps"]) == (4, 4, 12)
    assert [line["step"] for line in Journal(out / "metrics.jsonl").read() if "knn" in line] == [0, 3, 6, 9, 12]
    assert train("simclr", data, out, resume=True, epochs=4)[1][0].startswith("The run in")


@pytest.mark.parametrize("how", ["new", "resumed"])
def test_a_second_owner_is_refused_with_the_number_of_the_first(data: Path, tmp_path: Path, how: str) -> None:
    out, refused = tmp_path / "run", []

    def second() -> None:
        with pytest.raises(ValueError, match=rf"process {os.getpid()} \(.*\) is at work in '.*run'.*another directory"):
            train("simclr", data, out, resume=how == "resumed")
        refused.append(True)

    def watch(step: int, steps: int, numbers: dict[str, float]) -> None:
        if not refused:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    assert training.train(plans.make("simclr", data, None, SETTINGS), out, say=lambda text: None, watch=watch)
    assert refused
    assert not (out / ".lock").exists()
    assert [line["step"] for line in Journal(out / "metrics.jsonl").read()] == [0, 3, 3, 6, 6]


@pytest.mark.parametrize("method", ["simclr", "moco", "swav"])
def test_stop_and_resume_end_with_the_same_bits(data: Path, tmp_path: Path, method: str) -> None:
    small = {"queue": 32} if method == "moco" else {}
    assert train(method, data, tmp_path / "whole", **small)[0]
    finished, _ = train(method, data, tmp_path / "cut", stop=4, **small)
    assert not finished
    assert not json.loads((tmp_path / "cut" / "environment.json").read_text())["finished"]
    assert (tmp_path / "cut" / "encoder.safetensors").exists()
    finished, said = train(method, data, tmp_path / "cut", resume=True, **small)
    assert finished
    assert "Going on from step 4 of 6." in said
    whole, cut = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    assert whole["encoder.safetensors"] == cut["encoder.safetensors"]
    last = [read(tmp_path / name / "checkpoints" / "step-000000006.pt") for name in ("whole", "cut")]
    assert equal(*last)
    lines = [Journal(tmp_path / name / "metrics.jsonl").read() for name in ("whole", "cut")]
    assert [line["knn"] for line in lines[0] if "knn" in line] == [line["knn"] for line in lines[1] if "knn" in line]


def test_a_damaged_checkpoint_falls_back(data: Path, tmp_path: Path, done: Path) -> None:
    assert not train("simclr", data, tmp_path / "run", stop=4)[0]
    damage(Checkpoints(tmp_path / "run" / "checkpoints").all()[-1], "truncated")
    finished, said = train("simclr", data, tmp_path / "run", resume=True)
    assert finished
    assert any("step-000000004.pt' is damaged" in sentence for sentence in said)
    assert "Going on from step 3 of 6." in said
    assert contents(tmp_path / "run")["encoder.safetensors"] == contents(done)["encoder.safetensors"]


def test_only_damaged_checkpoints_are_refused(data: Path, tmp_path: Path) -> None:
    assert not train("simclr", data, tmp_path / "run", stop=3)[0]
    for path in Checkpoints(tmp_path / "run" / "checkpoints").all():
        damage(path, "empty")
    with pytest.raises(ValueError, match=r"checkpoints in '.*' are damaged"):
        train("simclr", data, tmp_path / "run", resume=True)


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a run that was killed early"])
def test_resuming_nothing_starts_and_says_so(data: Path, tmp_path: Path, done: Path, there: str) -> None:
    out = tmp_path / "run"
    if there != "nothing":
        out.mkdir()
    if there.startswith("a run"):
        for name in ("environment.json", "samples.parquet", ".config.yaml.4711.tmp", ".views.png.4711.tmp"):
            (out / name).write_text("{")
    finished, said = train("simclr", data, out, resume=True)
    assert finished
    assert said[0] == f"Nothing to resume in {str(out)!r}: starting from the beginning."
    assert not list(out.glob(".*"))
    assert contents(out)["encoder.safetensors"] == contents(done)["encoder.safetensors"]


@pytest.mark.parametrize("name", ["holiday.jpg", "checkpoints"])
def test_a_folder_that_is_no_run_is_left_alone(data: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(FileExistsError, match=f"has no config.yaml, and holds {name!r}"):
        train("simclr", data, tmp_path, resume=True)
    with pytest.raises(FileExistsError, match="never overwritten"):
        train("simclr", data, tmp_path)
    assert os.listdir(tmp_path) == [name]


def test_a_call_that_fails_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing at"):
        train("simclr", tmp_path / "missing", tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_a_run_that_diverges_says_where_and_what_to_do(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        Diverged, match=r"step \d; the last finite checkpoint is '.*step-00000000\d\.pt'.*a lower --lr, or --clip 1"
    ):
        train("simclr", data, tmp_path / "run", optimizer="sgd", lr=1e30)
    saved = Checkpoints(tmp_path / "run" / "checkpoints").all()
    assert saved
    assert all(v.isfinite().all() for path in saved for v in read(path)["method"].values())
    assert not (tmp_path / "run" / "encoder.safetensors").exists()


def test_flags_that_nobody_has() -> None:
    with pytest.raises(
        TypeError, match="neither a run nor 'simclr' has an argument 'temprature'; did you mean temperature"
    ):
        plans.make("simclr", "drawings", None, {"temprature": 0.1})


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"views": "moco"}, "--views 'moco' is none of simclr, moco_v1"),
        ({"precision": "half"}, "--precision 'half': one of float32, bf16, fp16"),
        ({"epochs": 0}, "--epochs 0: a whole number of 1 or more"),
        ({"lr": float("nan")}, "--lr nan: a number of 0 or more"),
        ({"clip": -1.0}, r"--clip -1\.0: a number of 0 or more"),
        ({"lr_1d": -1.0}, r"--lr-1d -1\.0"),
    ],
)
def test_settings_that_cannot_be(flags: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plans.make("simclr", "drawings", None, flags)


def test_a_method_must_not_call_its_argument_like_one_of_the_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from nearfar import Method\n"
        "class Mine(Method):\n"
        "    def __init__(self, encoder, *, batch: int = 3) -> None:\n"
        "        super().__init__(encoder)\n"
        "    def forward(self, batch): ...\n"
    )
    with pytest.raises(ValueError, match="has an argument 'batch', which every run has: rename it"):
        plans.make(str(file), "drawings", None, {})


def test_every_method_of_the_library_can_be_planned() -> None:
    from nearfar import methods

    for name in methods.names():
        plan = plans.make(name, "drawings", None, {"seed": 3})
        assert plan.settings.seed == 3
        assert yaml.safe_load(yaml.safe_dump(plan.saved())) == plan.saved()


@pytest.mark.parametrize(
    ("data", "recipe"),
    [("drawings", "drawings"), ("x.npz", "small_images"), ("x.csv", "photos"), (".", "photos"), (3, "small_images")],
)
def test_the_recipe_suits_the_data(data: Any, recipe: str) -> None:
    assert modalities.entry(modalities.kind_of(data)).recipe_for(data) == recipe


def test_too_few_for_the_batch(tmp_path: Path) -> None:
    data = array_file(tmp_path / "few.npz", 10)
    finished, said = train("simclr", data, tmp_path / "run")
    assert finished
    assert "The batch is 10, not 16: there are 10 samples and 1 process." in said


@pytest.mark.parametrize("batch", [0, 1])
def test_a_batch_of_one_is_refused(data: Path, tmp_path: Path, batch: int) -> None:
    with pytest.raises(ValueError, match=f"--batch {batch}: a whole number of 2 or more"):
        train("simclr", data, tmp_path / "run", batch=batch)


def settings_of(**flags: Any) -> Settings:
    return plans.make("simclr", "drawings", None, SETTINGS | flags).settings


def test_the_probe_holds_labels_out(data: Path) -> None:
    images = open_images(data)
    seen, bank, queries = training.hold_out(images, settings_of(), print)
    assert queries is not None
    held = [images.names.index(name) for name in queries.names]
    assert (seen.label[held] == MISSING).all()
    assert (queries.label != MISSING).all()
    assert not set(bank.names) & set(queries.names)
    assert len(bank) + len(queries) == len(images) == len(seen)
    assert (images.label != MISSING).all(), "the data themselves must not change"


@pytest.mark.parametrize("labels", [np.zeros(6, int), np.full(6, 3), np.arange(6)])
def test_no_probe_where_labels_say_too_little(labels: np.ndarray) -> None:
    images = open_images((tiny_images(6), labels))
    seen, _, queries = training.hold_out(images, settings_of(), print)
    assert queries is None
    assert torch.equal(seen.label, images.label)


def test_pixel_statistics_are_those_of_all_pixels() -> None:
    array = np.random.default_rng(0).integers(0, 256, (70, 9, 9, 3), dtype=np.uint8)
    mean, std = pixel_statistics(open_images(array))
    flat = array.reshape(-1, 3) / 255
    assert mean == pytest.approx(flat.mean(0), abs=1e-4)
    assert std == pytest.approx(flat.std(0), abs=1e-4)


def test_free_directories_are_numbered(tmp_path: Path) -> None:
    assert plans.free_directory("simclr", "a/photos/", tmp_path) == tmp_path / "simclr-photos-1"
    (tmp_path / "mine-photos-1").mkdir()
    assert plans.free_directory("./mine.py", "photos.npz", tmp_path) == tmp_path / "mine-photos-2"
    assert plans.free_directory("moco", np.zeros(3), tmp_path) == tmp_path / "moco-array-1"


def test_micro_batches_are_found_where_memory_is_short(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(building, "free_memory", lambda device: 400_000)
    finished, said = train("simclr", data, tmp_path / "run")
    assert finished
    found = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["made"]["micro_batch"]
    assert 2 <= found < 32
    assert any(f"the encoder takes {found} at a time" in line for line in said)
    assert any(f"batch norm sees {found} views at a time" in line for line in said)


def test_a_resumed_run_keeps_its_micro_batch(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(building, "free_memory", lambda device: 400_000)
    train("simclr", data, tmp_path / "whole")
    train("simclr", data, tmp_path / "run", stop=3)
    monkeypatch.setattr(building, "free_memory", lambda device: 2**40)
    train("simclr", data, tmp_path / "run", resume=True)
    saved = [read(Checkpoints(tmp_path / name / "checkpoints").all()[-1]) for name in ("whole", "run")]
    assert equal(*saved)


def test_micro_batches_are_taken_as_asked_for(data: Path, tmp_path: Path) -> None:
    _, said = train("simclr", data, tmp_path / "some", micro_batch=8)
    assert any("batch norm sees 8 views at a time" in line for line in said)
    _, said = train("simclr", data, tmp_path / "all", micro_batch=32)
    assert not any("at a time" in line for line in said)
    with pytest.raises(ValueError, match="--micro-batch 1: 2 or more"):
        train("simclr", data, tmp_path / "one", micro_batch=1)


@pytest.mark.parametrize("flag", ["accumulate", "gradient_accumulation_steps", "accum_iter"])
def test_accumulation_is_refused_with_the_reason(flag: str) -> None:
    with pytest.raises(TypeError, match=f"'{flag}'.*another loss.*micro_batch"):
        plans.make("simclr", "drawings", None, {flag: 4})


def test_settings_have_help() -> None:
    text = Path(inspect.getfile(Settings)).read_text()
    for name in Settings.__dataclass_fields__:
        assert f"    {name}: " in text


def test_training_may_begin_with_another_runs_encoder(data: Path, done: Path, tmp_path: Path) -> None:
    start = str(done)
    assert train("supcon", data, tmp_path / "run", from_run=start, epochs=1, lr=0.0, lr_1d=0.0)[0]
    first = read(tmp_path / "run" / "checkpoints" / "step-000000003.pt")["method"]
    weights = load_encoder(done).state_dict()
    moving = [name for name in weights if "running" in name or "tracked" in name]
    for name, value in weights.items():
        assert torch.equal(first[f"encoder.{name}"], value) or name in moving, name
    with pytest.raises(ValueError, match=r"--from-run '.*' has the encoder 'conv4' .* do not fit 'resnet10t' here"):
        train("supcon", data, tmp_path / "other", from_run=start, encoder="resnet10t")
    with pytest.raises(FileNotFoundError, match=r"--from-run '.*' holds no encoder.safetensors"):
        train("supcon", data, tmp_path / "none", from_run=str(tmp_path))
    assert not (tmp_path / "other").exists()


def test_without_a_probe_no_label_is_held_back(data: Path, tmp_path: Path) -> None:
    counted = []

    class Counts(SupCon):
        def forward(self, batch: Batch) -> Step:
            counted.append(int((batch.label != MISSING).sum()))
            return super().forward(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["nearfar.methods.supcon"], "SupCon", Counts)
        patch.setattr(Counts, "__module__", "nearfar.methods.supcon")
        train("supcon", data, tmp_path / "all", probe_every=0, epochs=1)
        whole = sum(counted)
        counted.clear()
        train("supcon", data, tmp_path / "some", epochs=1)
    assert sum(counted) < whole == 48
    assert not (tmp_path / "all" / "checkpoints" / "best.pt").exists()


def test_how_samples_are_drawn_is_said(data: Path, tmp_path: Path) -> None:
    said = train("supcon", data, tmp_path / "run", sampler="pk", per_class=3, epochs=1)[1]
    assert any("drawn by class, 3 of each" in line for line in said)
    assert not any("drawn" in line for line in train("supcon", data, tmp_path / "plain", epochs=1)[1])


def test_a_view_may_be_enough(data: Path, tmp_path: Path) -> None:
    said = train("crossentropy", data, tmp_path / "run", view_count=1, epochs=1)[1]
    assert any(" 1 view a step" in line for line in said)
