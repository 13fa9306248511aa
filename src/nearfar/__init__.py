"""nearfar: contrastive representation learning, from a folder of files to an encoder you can trust."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nearfar.batch import MISSING, Batch
    from nearfar.classifier import Classifier
    from nearfar.data.drawings import drawings
    from nearfar.data.image import Images, open_images
    from nearfar.distillation import distill
    from nearfar.encoders.image import image_encoder
    from nearfar.finetuning import finetune
    from nearfar.method import Clock, Method, Step
    from nearfar.run import Run, fit, load
    from nearfar.settings import Recipe, Settings

_HOME = {
    "MISSING": "batch", "Batch": "batch", "Classifier": "classifier", "distill": "distillation",
    "drawings": "data.drawings", "Images": "data.image", "open_images": "data.image", "finetune": "finetuning",
    "image_encoder": "encoders.image", "Clock": "method", "Method": "method", "Step": "method", "Run": "run",
    "fit": "run", "load": "run", "Recipe": "settings", "Settings": "settings",
}  # fmt: skip

__all__ = [
    "MISSING", "Batch", "Classifier", "Clock", "Images", "Method", "Recipe", "Run", "Settings", "Step", "distill",
    "drawings", "finetune", "fit", "image_encoder", "load", "open_images",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Public names are imported when they are first used: `import nearfar` itself costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'nearfar' has no attribute {name!r}")
    value = getattr(import_module(f"nearfar.{_HOME[name]}"), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # Importing the file fit.py would otherwise put that module in the place of the function `nearfar.fit`.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
