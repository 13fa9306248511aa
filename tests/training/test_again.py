from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.batch import MISSING
from nearfar.data.digests import digests, fingerprint
from nearfar.data.samples import Samples
from nearfar.files import file_digest
from nearfar.modalities.image import store
from nearfar.modalities.image.samples import Images, open_images
from nearfar.run import Run
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training.again import as_before
from nearfar.training.build import build, open_samples
from nearfar.training.checkpoints import Checkpoints
from nearfar.training.directory import read_skipped
from nearfar.training.record import write_samples
from tests.tiny import SETTINGS, folder, tiny_images
from tests.training.test_job import train
from tests.training.test_loop import equal


@pytest.fixture
def demand(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether the next images are decoded on demand: as where little memory is free."""
    return lambda on: monkeypatch.setattr(store, "free_memory", lambda: 0 if on else 2**40)


def weights(run: Path) -> Any:
    state, _ = Checkpoints(run / "checkpoints").newest()
    assert state is not None
    return state["method"]


def test_a_run_goes_on_with_less_or_more_memory_and_knows_its_samples(tmp_path: Path, demand: Any) -> None:
    data = folder(tmp_path / "p")
    demand(False)
    assert train("simclr", str(data), tmp_path / "whole", batch=8)[0]
    for before in (True, False):
        out = tmp_path / f"cut-{before}"
        demand(before)
        assert not train("simclr", str(data), out, stop=2, batch=8)[0]
        demand(not before)
        assert train("simclr", str(data), out, resume=True, batch=8)[0]
        assert equal(weights(out), weights(tmp_path / "whole"))
        shutil.copytree(data, tmp_path / f"again-{before}")
        shutil.move(tmp_path / f"again-{before}" / "003.png", tmp_path / f"again-{before}" / "other name.png")
        assert Run(out).seen(Run(out).open(tmp_path / f"again-{before}")).all()


def spoil(data: Path) -> None:
    """Gone, changed, and cut off."""
    (data / "004.png").unlink()
    shutil.copyfile(data / "006.png", data / "005.png")
    (data / "023.png").write_bytes((data / "023.png").read_bytes()[:50])


NAMES = ["004.png", "005.png", "023.png"]


def test_what_changes_in_the_middle_of_a_run_is_named_and_left_out(
    tmp_path: Path, demand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, said = folder(tmp_path / "p"), []
    demand(True)
    monkeypatch.setattr(sys.modules["nearfar.training.log"], "DRAIN", 1)
    plan = plans.make("simclr", str(data), None, SETTINGS | {"batch": 8, "max_bad": 0.15, "epochs": 4})
    at = iter([lambda: None] * 3 + [lambda: spoil(data)] + [lambda: None] * 20)
    assert training.train(plan, tmp_path / "run", say=said.append, watch=lambda *_: next(at)())
    lines = [line for line in said if "can be read no more" in line]
    assert all(any(repr(name) in line for line in lines) for name in NAMES)
    skipped = read_skipped(tmp_path / "run" / "skipped.csv")
    assert sorted(name for name, _ in skipped) == NAMES
    assert ("005.png", "its bytes have changed") in skipped


def test_a_run_goes_on_without_what_is_gone_if_that_is_allowed(tmp_path: Path, demand: Any) -> None:
    data, flags = folder(tmp_path / "p"), {"batch": 8}
    demand(True)
    assert not train("simclr", str(data), tmp_path / "run", stop=2, **flags)[0]
    spoil(data)
    Image.fromarray(tiny_images(25)[24]).save(data / "new.png")
    with pytest.raises(ValueError, match=r"3 of 24 are missing or changed: '004\.png' \(it is gone\).*--max-bad 0\.13"):
        train("simclr", str(data), tmp_path / "run", resume=True, **flags)
    finished, said = train("simclr", str(data), tmp_path / "run", resume=True, max_bad=0.13, **flags)
    assert finished
    text = "\n".join(said)
    assert "'005.png' (its bytes have changed)" in text
    assert "take no part in a run that goes on: 1, such as 'new.png'" in text
    assert "'023.png' (" in text
    assert "can be read no more" not in text
    assert sorted(name for name, _ in read_skipped(tmp_path / "run" / "skipped.csv")) == NAMES


def opened(n: int = 6) -> Images:
    names = np.array(["x", "y", "z"])
    images = open_images((tiny_images(n), names[np.arange(n) % 3]))
    return dataclasses.replace(images, names=[f"{i}.png" for i in range(n)], max_bad=0.5)


def again(now: Images, out: Path, was: Images) -> tuple[Samples, dict[int, tuple[str, str]], list[str]]:
    said: list[str] = []
    write_samples(out, was, digests(was))
    saved = {"made": {"classes": was.classes}, "files": {"samples.parquet": file_digest(out / "samples.parquet")}}
    samples, lost = as_before(now, saved, out, "data", said.append)
    return samples, lost, said


def test_samples_are_found_again_by_their_bytes_under_any_name(tmp_path: Path) -> None:
    was = opened()
    now = dataclasses.replace(opened(), names=[f"other-{i}.png" for i in range(6)])
    samples, lost, said = again(now, tmp_path, was)
    assert (samples.names, lost, said) == (was.names, {}, [])
    assert torch.equal(samples.fetch(torch.arange(6))[0], was.fetch(torch.arange(6))[0])


def test_of_equal_samples_the_one_that_is_gone_is_known_by_its_name(tmp_path: Path) -> None:
    was = opened().subset([0, 1, 1, 2])
    was.names = ["a", "b", "c", "d"]
    samples, lost, _ = again(was.subset([0, 2, 3]), tmp_path, was)
    assert lost == {1: ("b", "it is gone")}
    assert torch.equal(samples.label, was.label)
    assert fingerprint(digests(samples), samples) == fingerprint(digests(was), was)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda was: was.subset([0, 2, 1, 3, 4, 5]), "another order, from '1.png' on"),
        (lambda was: dataclasses.replace(was, classes=["x", "y", "w"]), "of 2 of 6 .* '2.png' was 'z' and is 'w'"),
        (lambda was: dataclasses.replace(was, group=torch.tensor([0, 0, 1, 2, 3, 4])), "groups are others"),
        (lambda was: was.subset([0, 1]), "4 of 6 are missing .* --max-bad 0.67"),
        (lambda was: dataclasses.replace(was.subset([0, 1, 2, 3, 4]), max_bad=None), "1 of 6 .* '5.png' .it is gone"),
    ],
)
def test_what_is_other_is_named(tmp_path: Path, change: Callable[[Images], Images], words: str) -> None:
    was = opened()
    with pytest.raises(ValueError, match=f"samples in 'data', or their labels, .*{words}.*another --out"):
        again(change(was), tmp_path, was)


def test_groups_that_are_only_numbered_otherwise_are_the_same(tmp_path: Path) -> None:
    was = dataclasses.replace(opened(), group=torch.tensor([0, 0, 1, MISSING, 2, 2]))
    now = dataclasses.replace(was, group=torch.tensor([7, 7, 0, MISSING, 1, 1]))
    assert torch.equal(again(now, tmp_path, was)[0].group, was.group)


def test_views_keep_their_size_where_another_machine_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "nearfar.modalities.image.kind.pick_device"
    data = [Image.fromarray(np.full((150, 150), shade, np.uint8)) for shade in (10, 90, 200)]
    plan = plans.make("simclr", data, None, {"encoder": "conv4", "views": "drawing"})

    def quiet(text: str) -> None:
        return

    sizes = {}
    for device in ("cuda", "cpu"):
        monkeypatch.setattr(kind, lambda name, device=device: torch.device(device))
        samples = open_samples(plan, quiet)
        built = build(plan, samples, 2, tmp_path, quiet)
        sizes[device] = samples.side, built.facts["size"]
    assert sizes == {"cuda": (150, 128), "cpu": (128, 64)}
    monkeypatch.setattr(kind, lambda name: torch.device("cuda"))
    again = build(plan, samples, 2, tmp_path, quiet, built.facts | {"encoder": built.encoder.spec})
    assert again.facts["size"] == 64
    assert [view.size for view in again.views.views] == [64, 64]
