"""Recipes: files below each kind's folder, in each a function for a method, of its name; `default` for the rest."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from nearfar import modalities
from nearfar.errors import UserError
from nearfar.files import load_function
from nearfar.settings import Recipe, Settings


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
        raise UserError(f"there is no recipe {name!r}; there are {', '.join(names())}")
    return import_module(homes[name])


def kind_of(name: str) -> str:
    """The kind of data that a file of recipes is for."""
    return module(name).__name__.split(".")[2]


def load(name: str, method: str, kind: str) -> Recipe:
    """The recipe of a method for a kind of data.

    name: a file of recipes, FILE:FUNCTION of it, or FILE.py:FUNCTION of the user's own; "" has the kind's own defaults.
    Raises ValueError where there is no such recipe, or it is for another kind of data.
    """
    wanted = modalities.entry(kind).Settings
    if not name:
        return Recipe(settings=wanted())
    if ".py:" in name:
        recipe = load_function(name, "--recipe")()
        if not isinstance(recipe, Recipe):
            raise UserError(f"--recipe {name!r} gave a {type(recipe).__name__}, and a nearfar.Recipe is wanted")
    else:
        file, _, function = name.partition(":")
        held = module(file)
        wanted_name = function or method
        function = function or (method if hasattr(held, method) else "default")
        if not hasattr(held, function):
            raise UserError(
                f"the recipes {file!r} have nothing for {wanted_name!r}; try --recipe small_images or photos"
            )
        recipe = getattr(held, function)()
    if type(recipe.settings) is Settings:  # those that all kinds have, of a user's own recipe
        own = {f.name: getattr(recipe.settings, f.name) for f in fields(Settings)}
        blank = Settings()
        changed = {name: value for name, value in own.items() if value != getattr(blank, name)}
        recipe = replace(recipe, settings=wanted(**changed))
    if not isinstance(recipe.settings, wanted):
        raise UserError(f"the recipe {name!r} is not for data of the kind {kind!r}: choose another --recipe or --kind")
    return recipe
