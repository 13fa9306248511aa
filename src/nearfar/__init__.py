"""nearfar: contrastive representation learning, from a folder of files to an encoder you can trust."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nearfar.batch import MISSING, Batch
    from nearfar.fewlabels.classifier import Classifier
    from nearfar.fewlabels.distillation import distill
    from nearfar.fewlabels.finetuning import finetune
    from nearfar.method import Clock, Encoder, Method, Step
    from nearfar.modalities.image.drawings import drawings
    from nearfar.modalities.image.encoder import image_encoder
    from nearfar.modalities.image.samples import Images, open_images
    from nearfar.modalities.kind import Kind
    from nearfar.run import Run, fit, load
    from nearfar.settings import Recipe, Settings

_HOME = {
    "MISSING": "batch", "Batch": "batch", "Classifier": "fewlabels.classifier", "distill": "fewlabels.distillation",
    "drawings": "modalities.image.drawings", "Images": "modalities.image.samples",
    "open_images": "modalities.image.samples", "finetune": "fewlabels.finetuning",
    "image_encoder": "modalities.image.encoder", "Clock": "method", "Encoder": "method", "Kind": "modalities.kind",
    "Method": "method", "Step": "method", "Run": "run",
    "fit": "run", "load": "run", "Recipe": "settings", "Settings": "settings",
}  # fmt: skip

__all__ = [
    "MISSING", "Batch", "Classifier", "Clock", "Encoder", "Images", "Kind", "Method", "Recipe", "Run", "Settings",
    "Step", "distill", "drawings", "finetune", "fit", "image_encoder", "load", "open_images",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Public names are imported when they are first used: `import nearfar` itself costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'nearfar' has no attribute {name!r}")
    value = getattr(import_module(f"nearfar.{_HOME[name]}"), name)
    globals()[name] = value
    return value
