"""An encoder as an ONNX file, for any batch and any length of sentences, compared with onnxruntime first."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import NotInstalled, UserError
from nearfar.export.encoder import TOLERANCE
from nearfar.files import replace, staging
from nearfar.method import Encoder, Traced

MOST = 1 << 20
"""Of a dimension that may be of any size."""


def insist_onnx() -> Any:
    """The module onnxruntime. Raises ModuleNotFoundError where the extra "export" is not installed."""
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports] (torch's exporter is built on it)
    except ImportError as error:
        raise NotInstalled(
            f"--onnx wants {error.name}, which is not installed: pip install 'nearfar[export]'"
        ) from error
    return onnxruntime


def export_onnx(encoder: Encoder, folder: str | Path) -> tuple[Path, float, list[str]]:
    """Write encoder.onnx to `folder`: from the tensors of `Encoder.traced`, of N samples, to `features`, N x dim.

    Gives the path, the largest difference to the encoder, over the largest output, and the shapes of the first tensor
    at which the two were compared. Raises ModuleNotFoundError where the extra "export" is not installed, and ValueError
    for an encoder whose view is no tensor, and where onnxruntime computes something else than torch.
    """
    encoder = copy.deepcopy(encoder).to("cpu", torch.float32).eval()
    traced = encoder.traced()
    first, *others = traced.views(torch.Generator().manual_seed(0))
    given = traced.tensors(first)
    onnxruntime = insist_onnx()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dims = {name: torch.export.Dim(name, min=1, max=MOST) for axes in traced.axes.values() for name in axes.values()}
    with staging(folder) as name:
        staged = name / "encoder.onnx"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            torch.onnx.export(
                _Graph(traced),
                given,
                staged,
                input_names=list(traced.axes),
                output_names=["features"],
                dynamic_shapes=(tuple({i: dims[n] for i, n in axes.items()} for axes in traced.axes.values()),),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(staged, providers=["CPUExecutionProvider"])
        worst, shapes = 0.0, []
        for view in others:
            with torch.no_grad():
                own = encoder(view)
            inputs = {n: x.numpy() for n, x in zip(traced.axes, traced.tensors(view), strict=True)}
            other = torch.from_numpy(session.run(["features"], inputs)[0])
            if other.shape != own.shape:
                raise UserError(f"the ONNX file gives {tuple(other.shape)}, and the encoder {tuple(own.shape)}")
            worst = max(worst, float((other - own).abs().max() / own.abs().max().clamp(min=1e-12)))
            shapes.append(" x ".join(map(str, next(iter(inputs.values())).shape)))
        if not worst <= TOLERANCE:
            raise UserError(f"the ONNX file differs from the encoder by {worst:.2g} of the largest output: not written")
        path = replace(folder / "encoder.onnx", lambda temporary: os.replace(staged, temporary))
        return path, worst, shapes


class _Graph(nn.Module):
    """All that is written to the file."""

    def __init__(self, traced: Traced) -> None:
        super().__init__()
        self.net, self.behind = traced.net, nn.Sequential(*traced.behind)

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.behind(self.net(*tensors))
