"""Recipes: one file for a kind of data, in it a function for each method, of its name; `default` for the rest."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from nearfar.settings import Recipe


def names() -> list[str]:
    """The recipe files."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def load(name: str, method: str) -> Recipe:
    """The recipe of a method in the file `name`, or that of another function as `name:function`."""
    file, _, function = name.partition(":")
    if file not in names():
        raise ValueError(f"there is no recipe {file!r}; there are {', '.join(names())}")
    module = import_module(f"nearfar.recipes.{file}")
    wanted = function or method
    found = wanted if function or hasattr(module, wanted) else "default"
    if not hasattr(module, found):
        raise ValueError(f"the recipes {file!r} have nothing for {wanted!r}; try --recipe small_images or photos")
    return getattr(module, found)()
