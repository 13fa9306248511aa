"""An encoder as an ONNX file, for any batch, compared with onnxruntime before success is reported."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.errors import NotInstalled, UserError
from nearfar.export.encoder import TOLERANCE
from nearfar.files import replace, staging
from nearfar.method import Encoder

BATCHES = (1, 5)
"""Sizes at which the file is compared with the encoder; it is traced at neither."""


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


def export_onnx(encoder: Encoder, folder: str | Path) -> tuple[Path, float]:
    """Write encoder.onnx to `folder`: from `input`, one tensor for N samples, to `features`, N x dim, for any N.

    Gives the path, and the largest difference to the encoder, over the largest output. Raises ModuleNotFoundError where
    the extra "export" is not installed, and ValueError for an encoder whose view is no single tensor, and where
    onnxruntime computes something else than torch.
    """
    encoder = copy.deepcopy(encoder).to("cpu", torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    traced = encoder.example(3, generator)
    if not isinstance(traced, Tensor):
        raise UserError(
            f"ONNX export is for encoders that take one tensor, and {encoder.spec.get('name', type(encoder).__name__)} "
            f"takes a {type(traced).__name__}: export without --onnx, or one of its towers (--tower NAME)"
        )
    onnxruntime = insist_onnx()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with staging(folder) as name:
        staged = name / "encoder.onnx"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            torch.onnx.export(
                encoder,
                (traced,),
                staged,
                input_names=["input"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1 << 20)},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(staged, providers=["CPUExecutionProvider"])
        worst = 0.0
        for batch in BATCHES:
            view = encoder.example(batch, generator)
            with torch.no_grad():
                own = encoder(view)
            other = torch.from_numpy(session.run(["features"], {"input": view.numpy()})[0])
            if other.shape != own.shape:
                raise UserError(f"the ONNX file gives {tuple(other.shape)} for a batch of {batch}, the encoder not")
            worst = max(worst, float((other - own).abs().max() / own.abs().max().clamp(min=1e-12)))
        if not worst <= TOLERANCE:
            raise UserError(f"the ONNX file differs from the encoder by {worst:.2g} of the largest output: not written")
        return replace(folder / "encoder.onnx", lambda temporary: os.replace(staged, temporary)), worst
