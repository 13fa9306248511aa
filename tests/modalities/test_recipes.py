"""Every recipe there is: it names what exists, and those of ImageNet, which are not run here, are stepped once."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

from nearfar import methods, modalities
from nearfar.modalities import kind as kinds
from nearfar.modalities import recipes
from nearfar.modalities.image import kind as image_kind
from nearfar.modalities.image.samples import open_images
from nearfar.modalities.image.views import Views
from nearfar.modalities.table import views as table
from nearfar.modalities.table.columns import Column, Columns
from nearfar.settings import Recipe
from nearfar.training import job as training
from nearfar.training import plan as plans
from nearfar.training.journal import Journal


def functions(file: str) -> list[str]:
    """The recipes in a file: its public functions."""
    module = recipes.module(file)
    own = inspect.getmembers(module, lambda f: inspect.isfunction(f) and f.__module__ == module.__name__)
    return [name for name, _ in own if not name.startswith("_")]


def method_of(function: str) -> str:
    """The method that a recipe is for: `moco_v1` is for moco, and `default` for any."""
    if function == "default":
        return methods.names()[0]
    return max((name for name in methods.names() if f"{function}_".startswith(f"{name}_")), key=len)


@pytest.mark.parametrize("file", recipes.names())
def test_every_recipe_names_what_exists(file: str) -> None:
    assert functions(file)
    for function in functions(file):
        hold_existing(file, function)


def hold_existing(file: str, function: str) -> None:
    method, kind = method_of(function), recipes.kind_of(file)
    own = modalities.entry(kind).Settings
    recipe = recipes.load(f"{file}:{function}", method, kind)
    assert isinstance(recipe, Recipe)
    assert type(recipe.settings) is own
    types = get_type_hints(own)
    for field in fields(own):
        value = getattr(recipe.settings, field.name)
        if get_origin(types[field.name]) is Literal:
            assert value in get_args(types[field.name]), field.name
        elif types[field.name] is float:
            assert isinstance(value, float | int), field.name
        elif isinstance(types[field.name], type):
            assert type(value) is types[field.name], field.name
    flags = methods.flags(methods.load(method))
    assert set(recipe.method) <= set(flags)
    for name, value in recipe.method.items():
        annotation = flags[name].annotation
        assert value in get_args(annotation) if get_origin(annotation) is Literal else True
        assert type(value) is type(flags[name].default) or flags[name].default is None, name
    plan = plans.make(method, "anywhere.npz", f"{file}:{function}", {}, kind=kind)
    assert plan.settings == recipe.settings
    assert plan.arguments.items() >= recipe.method.items()
    if not kinds.of(kind).pixels:
        count, known = kinds.of(kind).view_count(plan.settings), methods.load(method)
        assert known.fewest_views <= count <= (known.most_views or 2)
    if kind == "table":
        rows = torch.zeros(4, 1), torch.zeros(4, 0, dtype=torch.int64)
        assert len(table.views(plan.settings.views, Columns([Column("x")]), rows)) == 2
    if kind == "image":
        assert isinstance(image_kind.named_views(plan.settings, plan.settings.size or 32), Views)


@pytest.mark.parametrize("file", recipes.names())
def test_flags_are_laid_over_a_recipe(file: str) -> None:
    there, kind = set(functions(file)), recipes.kind_of(file)
    for method in [name for name in methods.names() if name in there or "default" in there][::9]:
        plan = plans.make(method, "anywhere.npz", file, {"epochs": 3, "lr": 0.5}, kind=kind)
        assert plan.settings == replace(recipes.load(file, method, kind).settings, epochs=3, lr=0.5)
    for method in [name for name in methods.names() if not {name, "default"} & there][::9]:
        with pytest.raises(ValueError, match=rf"{file}.*{method}.*--recipe"):
            recipes.load(file, method, kind)


SAID: dict[str, dict[str, Any]] = {
    "small_images:excon": {"temperature": 0.1, "base_temperature": 0.07, "lr": 0.5, "epochs": 200, "after": 0.25},
    "drawings:excon": {"temperature": 0.1, "base_temperature": 0.07},
    "photos:excon": {"temperature": 0.1, "base_temperature": 0.07, "stage": 4},
    "small_images:spcl": {"optimizer": "adam", "lr": 3.5e-4 * 256 / 64, "batch": 64, "weight_decay": 5e-4},
    "small_images:debiased": {"optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-6, "decay_1d": True, "epochs": 400},
    "small_images:hcl": {"optimizer": "adam", "lr": 1e-3, "beta": 1.0, "temperature": 0.5, "floor": 1.0},
    "small_images:bregman": {"optimizer": "adam", "lr": 5e-3, "weight_decay": 1e-6, "decay_1d": True},
    "small_images:clae": {"optimizer": "adam", "lr": 3e-4, "dim": 64, "temperature": 0.5, "epochs": 100},
    "small_images:cpc": {"optimizer": "adam"},
    "small_images:instdisc": {"epochs": 200, "lr": 0.06, "batch": 128, "proximal": 0.0},
    "small_images:sce": {"epochs": 200, "warmup": 5, "queue": 4096, "momentum": 0.99, "temperature": 0.1},
    "small_images:imix": {"lr": 0.125, "warmup": 5, "temperature": 0.2, "alpha": 1.0, "norm": True},
    "small_images:crossentropy": {"lr": 0.8 * 256 / 1024, "floor": 0.1**3},
    "small_images:opencon": {"views": "supcon", "lr": 0.02 * 256 / 512, "rise": 100, "tau_u": 0.4},
    "small_images:rescom": {"lr": 0.2, "temperature": 0.2, "slots": 10, "negatives": 400, "effective": 0.999999},
    "small_images:paco": {"lr": 0.1, "temperature": 0.05, "alpha": 0.01, "queue": 1024, "dim": 32},
    "imagenet:imix": {"norm": False, "lr": 0.03, "batch": 512, "warmup": 10, "queue": 65536, "temperature": 0.2},
    "imagenet:opencon": {"views": "supcon", "lr": 0.01 * 256 / 512, "rise": 100, "tau_u": 0.6, "tau_n": 0.7},
    "tables:imix": {
        "encoder": "maxout", "views": "blanked", "optimizer": "sgd", "lr": 0.125, "weight_decay": 1e-4, "batch": 512,
        "warmup": 5, "temperature": 0.1, "alpha": 2.0, "extra_alpha": 1.0, "base": "npair",
    },
}  # fmt: skip
"""Numbers of papers, or of the commands that their authors give. Rates are for a batch of 256."""


@pytest.mark.parametrize("recipe", SAID)
def test_recipes_have_the_numbers_of_papers_and_of_authors_commands(recipe: str) -> None:
    file, function = recipe.split(":")
    plan = plans.make(method_of(function), "anywhere.npz", recipe, {}, kind=recipes.kind_of(file))
    have = {field.name: getattr(plan.settings, field.name) for field in fields(plan.settings)} | plan.arguments
    assert {name: have[name] for name in SAID[recipe]} == pytest.approx(SAID[recipe])


def test_unknown_recipes_are_named() -> None:
    with pytest.raises(ValueError, match=r"no recipe 'imagenot'; there are .*imagenet"):
        recipes.load("imagenot", "moco", "image")
    with pytest.raises(ValueError, match="nothing for 'moco_v9'"):
        recipes.load("imagenet:moco_v9", "moco", "image")


SHRUNK = 32
"""Every width, queue and number of prototypes above it is cut to it."""


@pytest.mark.parametrize("function", functions("imagenet"))
def test_the_recipes_of_imagenet_take_a_step(tmp_path: Path, function: str) -> None:
    """With everything as it is, views at 224 px and the optimizer too, but a batch of 2, a tiny encoder and widths."""
    said = (getattr(recipes.module("imagenet"), function).__doc__ or "").lower()
    assert "not run" in said
    assert "arxiv" in said
    method, recipe = method_of(function), f"imagenet:{function}"
    whole = plans.make(method, "anywhere.npz", recipe, {})
    widths = {name: min(value, SHRUNK) for name, value in whole.arguments.items() if type(value) is int}
    streams, colon, _ = whole.settings.encoder.rpartition(":")
    small: dict[str, Any] = {"batch": 2, "encoder": f"{streams}{colon}test_resnet", "epochs": 1, "device": "cpu"}
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    data = open_images((images, [0, 1]))
    plan = plans.make(method, data, recipe, small | widths)
    assert training.train(plan, tmp_path / "run", say=lambda text: None)
    lines = Journal(tmp_path / "run" / "metrics.jsonl").read()
    assert [line["step"] for line in lines if "loss" in line] == [1]
    assert all(np.isfinite(value) for line in lines for name, value in line.items() if name != "knn_right")
