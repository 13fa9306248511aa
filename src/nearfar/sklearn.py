"""A scikit-learn transformer: representations learned by contrast, in a Pipeline or a grid search."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from numbers import Integral, Number
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.utils.data import Dataset

from nearfar import methods
from nearfar.data import tables
from nearfar.errors import UserError
from nearfar.run import Run, fit
from nearfar.training.claim import is_finished

LABELS = "nearfar labels"
"""The column of labels in a table that a method learns from."""
KEPT = ("config.yaml", "encoder.json", "encoder.safetensors")
"""The files of a run that embedding takes."""


class ContrastiveEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learn a representation without labels, or with them where the method does, and transform samples to it.

    X: N x D numbers, with NaN for gaps; a data frame, whose columns may be categories too; or images, N x H x W, N x C
        x H x W or N x H x W x C, uint8, or floats of 0 to 1. A number may be of one gray channel or several. Whatever
        else `nearfar.fit` takes is passed on as it is. In a data frame the columns split, group and label mean what
        they mean in every table of nearfar, and are no inputs.
    y: labels, of a method that learns from them, such as supcon; others never see them.

    Args:
        method: a name (`nearfar.methods.names()`) or the path of a .py file.
        epochs, batch, encoder, lr: as the settings of that name; None as the recipe says that suits the data.
        flags: any other setting of the kind of data, and any argument of the method, such as {"temperature": 0.2}.
        kind: of the data, recognized by default.
        out: the run directory, which must be new; None trains in a temporary one, which is removed at the end of `fit`.
        random_state: a number makes `fit` repeat itself bit for bit, on one machine and number of threads.
        verbose: print what training says.

    Attributes:
        config_: how it was trained, as in `config.yaml`.  n_features_in_, feature_names_in_: of tables and images.

    `transform` gives N x width, float32; a sample has the same row whatever it is transformed with.
    Raises ValueError for what cannot be trained on, before training. Interrupted training raises KeyboardInterrupt.
    """

    def __init__(
        self,
        method: str = "simclr",
        *,
        epochs: int | None = None,
        batch: int | None = None,
        encoder: str | torch.nn.Module | None = None,
        lr: float | None = None,
        flags: Mapping[str, Any] | None = None,
        kind: str = "",
        out: str | Path | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.method, self.epochs, self.batch, self.encoder, self.lr = method, epochs, batch, encoder, lr
        self.flags, self.kind, self.out, self.random_state, self.verbose = flags, kind, out, random_state, verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from samples.  y: see above."""
        data = self._data(X, reset=True)
        flags = {name: getattr(self, name) for name in ("epochs", "batch", "encoder", "lr")}
        given = {name: value for name, value in flags.items() if value is not None}
        if both := sorted(given.keys() & dict(self.flags or {}).keys()):
            raise UserError(f"{both[0]} is given twice, by itself and in flags: give one")
        given |= dict(self.flags or {})
        given.setdefault("seed", self._seed())
        if self._learns_labels():
            data, named = self._labeled(data, y)
            given |= named
        say = print if self.verbose else _nothing
        with tempfile.TemporaryDirectory() if self.out is None else contextlib.nullcontext() as place:
            out = Path(place) / "run" if place is not None else Path(str(self.out))
            run = fit(data, self.method, out=out, kind=self.kind, say=say, **given)
            if not is_finished(out):
                raise KeyboardInterrupt
            _ = run.encoder  # read now: the directory may be about to go
            self.config_ = run.config
            self._files = {name: (out / name).read_bytes() for name in KEPT}
        self._run = run
        self._n_features_out = int(run.encoder.dim)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The representation of samples: N x width, float32."""
        check_is_fitted(self, "config_")
        return self.run_.embed(self._data(X, reset=False)).numpy()

    @property
    def run_(self) -> Run:
        """The run, for `embed` and `encoder`; what reads or writes its directory takes `out`."""
        check_is_fitted(self, "config_")
        if self.__dict__.get("_run") is None:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in self._files.items():
                    (Path(folder) / name).write_bytes(content)
                own = self.encoder if isinstance(self.encoder, torch.nn.Module) else None
                run = Run(folder, network=own, trust=True)  # code files are those that the user gave to `fit`
                _ = run.encoder
            self._run = run
        return self._run

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_run"}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = self._learns_labels()
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags

    def _learns_labels(self) -> bool:
        return methods.load(self.method).needs_labels

    def _seed(self) -> int:
        """A seed of torch's, of what scikit-learn takes as random_state."""
        if isinstance(self.random_state, Integral) and not isinstance(self.random_state, bool):
            check_random_state(self.random_state)
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _data(self, X: Any, *, reset: bool) -> Any:
        """Samples as nearfar takes them. Raises ValueError for arrays that hold none, or others than in `fit`."""
        if not _is_array(X):
            return X
        frame = hasattr(X, "columns")
        checked: Any = validate_data(
            self,
            X,
            reset=reset,
            dtype=None if frame else "numeric",
            ensure_all_finite="allow-nan",
            allow_nd=True,
            ensure_min_samples=2 if reset else 1,
        )
        if frame:
            return X
        if checked.ndim == 2:
            return {f"x{i}": column for i, column in enumerate(np.asarray(checked, np.float64).T)}
        if np.issubdtype(checked.dtype, np.floating) and np.isnan(checked).any():
            raise UserError("X contains NaN, which stands for a gap in a table, and these are no rows of one")
        return checked

    def _labeled(self, data: Any, y: Any) -> tuple[Any, dict[str, Any]]:
        """Samples with their labels, and the settings that name them."""
        if y is None:
            raise UserError(f"requires y to be passed, but the target y is None: {self.method} learns from labels")
        if isinstance(data, np.ndarray):
            return (data, np.asarray(y)), {}
        if isinstance(data, Mapping):
            return {**data, LABELS: np.asarray(y)}, {"label_column": LABELS}
        if hasattr(data, "columns"):
            table, _ = tables.read(data)
            return table.append_column(LABELS, [np.asarray(y)]), {"label_column": LABELS}
        raise UserError("y is of arrays and data frames: data of other kinds bring their labels, or name them in flags")


def _is_array(X: Any) -> bool:
    """Whether samples are what scikit-learn checks: an array, a frame, or lists of numbers; not paths, say."""
    if isinstance(X, list | tuple):
        return not X or isinstance(X[0], Number | list | tuple | np.ndarray)
    if hasattr(X, "toarray"):  # sparse ones, some of which are mappings too
        return True
    return not isinstance(X, str | Path | Mapping | Dataset) and (hasattr(X, "__array__") or hasattr(X, "columns"))


def _nothing(text: str) -> None:
    """Instead of `print`."""
