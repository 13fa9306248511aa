"""Recipes: files below each kind's folder, in each a function for a method, of its name; `default` for the rest."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from nearfar.settings import Recipe


def names() -> list[str]:
    """The recipe files."""
    return sorted(_homes())


def _homes() -> dict[str, str]:
    """The module of each recipe file."""
    root = Path(__file__).parent
    return {
        path.stem: f"nearfar.modalities.{path.parts[-3]}.recipes.{path.stem}"
        for path in root.glob("*/recipes/[!_]*.py")
    }


def module(name: str) -> ModuleType:
    """The file of recipes that is called so. Raises ValueError where there is none."""
    homes = _homes()
    if name not in homes:
        raise ValueError(f"there is no recipe {name!r}; there are {', '.join(names())}")
    return import_module(homes[name])


def load(name: str, method: str) -> Recipe:
    """The recipe of a method in the file `name`, or that of another function as `name:function`."""
    file, _, function = name.partition(":")
    held = module(file)
    wanted = function or method
    found = wanted if function or hasattr(held, wanted) else "default"
    if not hasattr(held, found):
        raise ValueError(f"the recipes {file!r} have nothing for {wanted!r}; try --recipe small_images or photos")
    return getattr(held, found)()
