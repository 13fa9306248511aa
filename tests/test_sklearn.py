from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import nearfar
from nearfar.errors import AlreadyThere, UserError
from nearfar.sklearn import ContrastiveEncoder
from tests.tiny import tiny_images

SMALL: dict[str, Any] = {"epochs": 1, "encoder": "mlp-16x1", "random_state": 0}
IMAGES: dict[str, Any] = {
    "epochs": 1,
    "encoder": "conv4",
    "batch": 16,
    "random_state": 0,
    "flags": {"views": "drawing"},
}


def rows(n: int = 48, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of rows that lie apart."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return random.normal(size=(n, 5)) + 3 * np.eye(3, 5)[y], y


@parametrize_with_checks([ContrastiveEncoder(epochs=1, encoder="mlp-16x1")])
def test_what_scikit_learn_asks_of_an_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


def test_in_a_pipeline_and_a_grid_search() -> None:
    X, y = rows()
    line = make_pipeline(ContrastiveEncoder(**SMALL), LogisticRegression())
    grid = {"contrastiveencoder__flags": [{"temperature": 0.1}, {"temperature": 0.5}]}
    found = GridSearchCV(line, grid, cv=2).fit(X, y)
    assert len(found.cv_results_["params"]) == 2
    assert found.best_estimator_[0].config_["arguments"]["temperature"] in (0.1, 0.5)
    assert found.score(X, y) > 0.8
    assert [*line[:1].fit(X).get_feature_names_out()][:2] == ["contrastiveencoder0", "contrastiveencoder1"]


def test_a_fit_is_what_nearfar_makes_and_repeats_itself() -> None:
    X, _ = rows()
    one = ContrastiveEncoder(**SMALL).fit(X)
    two = clone(one).fit(X)
    assert np.array_equal(one.transform(X), two.transform(X))
    assert not np.array_equal(one.transform(X), clone(one).set_params(random_state=1).fit(X).transform(X))
    again = pickle.loads(pickle.dumps(one))
    assert np.array_equal(one.transform(X), again.transform(X))
    with tempfile.TemporaryDirectory() as folder:
        table = {f"x{i}": column for i, column in enumerate(X.T)}
        run = nearfar.fit(table, out=Path(folder) / "run", epochs=1, encoder="mlp-16x1", seed=0, say=lambda text: None)
        assert np.array_equal(run.embed(table).numpy(), one.transform(X))


def test_labels_are_seen_by_methods_that_learn_from_them_alone() -> None:
    X, y = rows()
    free = ContrastiveEncoder(**SMALL)
    assert np.array_equal(free.fit(X).transform(X), free.fit(X, y).transform(X))
    assert free.config_["made"]["labeled"] == 0
    taught = ContrastiveEncoder("supcon", **SMALL)
    with pytest.raises(ValueError, match="requires y"):
        taught.fit(X)
    assert taught.fit(X, np.array(["a", "b", "c"])[y]).config_["made"]["classes"] == ["a", "b", "c"]
    frame = pd.DataFrame(X, columns=[*"pqrst"]).assign(color=np.array(["red", "blue", "green"])[y])
    assert taught.fit(frame, y).config_["made"]["classes"] == ["0", "1", "2"]
    assert taught.config_["made"]["labeled"] == len(X)
    assert [*taught.feature_names_in_] == [*frame.columns]
    with pytest.raises(ValueError, match="feature names"):
        taught.transform(frame.rename(columns={"p": "other"}))


def test_images_in_every_order_of_axes() -> None:
    gray = tiny_images(32)
    color = np.stack([gray, 255 - gray, gray // 2], -1)
    last, first = (ContrastiveEncoder(**IMAGES).fit_transform(x) for x in (color, color.transpose(0, 3, 1, 2).copy()))
    assert last.shape == (32, 512)
    assert np.array_equal(last, first)
    made = ContrastiveEncoder("supcon", **IMAGES).fit(gray, np.arange(32) % 4)
    assert made.config_["made"]["labeled"] == 32
    assert np.allclose(made.transform(gray[:1])[0], made.transform(gray)[0], atol=1e-5)


def test_a_directory_is_written_only_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    X, _ = rows()
    ContrastiveEncoder(**SMALL).fit(X).transform(X)
    assert [*tmp_path.rglob("*")] == [tmp_path / "temporary"]
    kept = ContrastiveEncoder(**SMALL, out=tmp_path / "run").fit(X)
    assert np.array_equal(
        nearfar.load(tmp_path / "run").embed({f"x{i}": x for i, x in enumerate(X.T)}), kept.transform(X)
    )
    with pytest.raises(AlreadyThere):
        kept.fit(X)


def test_what_is_wrong_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = rows()
    with pytest.raises(UserError, match="epochs is given twice"):
        ContrastiveEncoder(epochs=1, flags={"epochs": 2}).fit(X)
    with pytest.raises(TypeError, match=r"'temprature'.*did you mean temperature"):
        ContrastiveEncoder(flags={"temprature": 2}).fit(X)
    with pytest.raises(ValueError, match="--epochs 0"):
        ContrastiveEncoder(epochs=0).fit(X)
    with pytest.raises(ValueError, match="NaN"):
        ContrastiveEncoder(**IMAGES).fit(np.full((8, 16, 16), np.nan))
    monkeypatch.setattr("nearfar.training.job.fit_built", lambda *given: False)  # as where Ctrl-C was pressed
    with pytest.raises(KeyboardInterrupt):
        ContrastiveEncoder(**SMALL).fit(X)


def test_gaps_and_other_data_pass() -> None:
    X, _ = rows()
    X[::5, 0] = np.nan
    assert np.isfinite(ContrastiveEncoder(**SMALL).fit_transform(X)).all()
    images = list(torch.from_numpy(tiny_images(16))[:, None])
    assert ContrastiveEncoder(**IMAGES).fit_transform(images).shape == (16, 512)
