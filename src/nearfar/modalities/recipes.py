"""Recipes: files below each kind's folder, in each a function for a method, of its name; `default` for the rest.

A function that takes an argument is given the facts of the samples, and so its recipe is settled when these are open.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from nearfar import modalities
from nearfar.errors import UserError
from nearfar.files import load_function
from nearfar.settings import Facts, Recipe, Settings

PAPER = "paper"
"""The name that stands for the recipes of papers, those of them that suit the data."""


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


def choose(name: str, method: str, data: Any, kind: str) -> str:
    """The name of the recipes to take.

    name: as given: "paper" for those of papers that suit the data, "" for those that were chosen by measurement, where
    the method is among them, else of papers.
    """
    entry = modalities.entry(kind)
    if name and name != PAPER:
        return name
    measured = entry.measured_for(data)
    if not name and measured and hasattr(module(measured), method):
        return measured
    return entry.recipe_for(data)


def goes_by_facts(name: str, method: str, kind: str) -> bool:
    """Whether a recipe depends on the samples. Raises as `load`."""
    return bool(name) and _takes_facts(_function(name, method))


def load(name: str, method: str, kind: str, facts: Facts | None = None) -> Recipe:
    """The recipe of a method for a kind of data.

    name: a file of recipes, FILE:FUNCTION of it, or FILE.py:FUNCTION of the user's own; "" has the kind's own defaults.
    facts: of the samples, for a recipe that depends on them; None for typical ones.
    Raises ValueError where there is no such recipe, or it is for another kind of data.
    """
    entry = modalities.entry(kind)
    wanted = entry.Settings
    if not name:
        return Recipe(settings=wanted())
    if ".py:" not in name and kind_of(name.partition(":")[0]) != kind:
        raise UserError(f"the recipe {name!r} is not for data of the kind {kind!r}: choose another --recipe or --kind")
    make = _function(name, method)
    recipe = make(facts or entry.Facts()) if _takes_facts(make) else make()
    if not isinstance(recipe, Recipe):
        raise UserError(f"--recipe {name!r} gave a {type(recipe).__name__}, and a nearfar.Recipe is wanted")
    if type(recipe.settings) is Settings:  # those that all kinds have, of a user's own recipe
        own = {f.name: getattr(recipe.settings, f.name) for f in fields(Settings)}
        blank = Settings()
        changed = {name: value for name, value in own.items() if value != getattr(blank, name)}
        recipe = replace(recipe, settings=wanted(**changed))
    if not isinstance(recipe.settings, wanted):
        raise UserError(f"the recipe {name!r} is not for data of the kind {kind!r}: choose another --recipe or --kind")
    return recipe


def _function(name: str, method: str) -> Callable[..., Recipe]:
    """The function that makes a recipe. Raises ValueError where there is none."""
    if ".py:" in name:
        return load_function(name, "--recipe")
    file, _, function = name.partition(":")
    held = module(file)
    wanted = function or method
    function = function or (method if hasattr(held, method) else "default")
    if not hasattr(held, function):
        raise UserError(f"the recipes {file!r} have nothing for {wanted!r}; try --recipe {PAPER}")
    return getattr(held, function)


def _takes_facts(make: Callable[..., Recipe]) -> bool:
    return bool(inspect.signature(make).parameters)
