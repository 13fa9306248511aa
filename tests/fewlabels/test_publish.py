from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import nearfar
from nearfar.errors import AlreadyThere, Damaged
from nearfar.fewlabels.classifier import Classifier
from nearfar.fewlabels.publish import new_directory
from nearfar.run import Run
from tests.fewlabels.conftest import QUIET, samples
from tests.tiny import SETTINGS, tiny_images


@pytest.mark.parametrize(("file", "stays"), [("metrics.jsonl", False), ("config.yaml", True)])
def test_a_new_directory_goes_if_nothing_came_of_it(tmp_path: Path, file: str, stays: bool) -> None:
    def fails() -> None:
        with new_directory(tmp_path / "new"):
            (tmp_path / "new" / file).write_text("{}")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert (tmp_path / "new").exists() == stays


def test_a_run_that_is_damaged_is_refused_before_data_are_opened(run: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "run"))
    (copy / "samples.parquet").write_bytes(b"PAR1")
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "1.png").write_bytes(b"no image")
    with pytest.raises(Damaged, match=r"samples\.parquet.*--resume"):
        nearfar.finetune(copy, str(tmp_path / "photos"), labels="folders", out=tmp_path / "c", **QUIET)
    assert not (tmp_path / "c").exists()


def test_training_cannot_go_on_in_the_directory_of_a_classifier(linear: Classifier, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(linear.path, tmp_path / "c"))
    (copy / "samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(AlreadyThere, match="holds a classifier"):
        nearfar.fit(tiny_images(), "simclr", out=copy, resume=True, dim=32, **QUIET, **SETTINGS)
    with pytest.raises(Damaged, match="make the classifier again"):
        nearfar.load(copy).seen(samples())
