"""`nearfar train METHOD DATA` and `nearfar views DATA`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import tyro

from nearfar import methods
from nearfar.modalities import recipes
from nearfar.settings import Settings
from nearfar.training import plan as plans

USAGE = """usage: nearfar train METHOD DATA [flags]

METHOD  {names}, or the path of a .py file of your own
DATA    a folder of images, a .tar, .parquet or .npz file, or a list of paths (.txt, .csv)

`nearfar train METHOD --help` tells the flags, those of the method among them; `nearfar methods` what the methods do.

  nearfar train simclr photos/
  nearfar train supcon photos/ --labels labels.csv --epochs 50"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where to read and where to write."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder of images, a .tar, .parquet or .npz file, or a list of paths (.txt, .csv)."""
    out: str = ""
    """The run directory; runs/METHOD-DATA-N by default. One that exists is never overwritten."""
    resume: bool = False
    """Go on with the run in --out, from its newest checkpoint."""
    recipe: str = ""
    """Where defaults come from: small_images, photos, imagenet, or FILE:FUNCTION. By default by the kind of data."""


def train(argv: list[str]) -> int:
    """Train an encoder."""
    if not argv or argv[0].startswith("-"):
        print(USAGE.format(names=", ".join(methods.names())))
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    method, rest = argv[0], argv[1:]
    place, settings, arguments = parse(method, rest)

    from nearfar.cli.console import Console
    from nearfar.training import job as training

    plan = plans.make(method, place.data, place.recipe, dataclasses.asdict(settings) | arguments)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not place.out:
        raise ValueError("several processes must agree on a directory: name it with --out")
    out = Path(place.out) if place.out else plans.free_directory(method, place.data)
    with Console() as console:
        finished = training.train(plan, out, resume=place.resume, say=console.say, watch=console.watch)
    if console.leads and finished:
        from nearfar.run import load

        page = load(out).report()
        print(f"Run:      {out}\nEncoder:  {out / 'encoder.safetensors'} (and encoder.py, which loads it)")
        print(f"Report:   {page}")
        print(f"Go on:    nearfar evaluate {out} DATA --labels FILE · nearfar embed {out} DATA · nearfar export {out}")
    elif console.leads:
        words = shlex.join(["nearfar", "train", *argv])
        words += "" if place.out else f" --out {shlex.quote(str(out))}"
        print(f"Stopped and saved. Go on with: {words}{'' if place.resume else ' --resume'}")
    return 0 if finished else 130


def parse(method: str, argv: list[str]) -> tuple[Place, Settings, dict[str, Any]]:
    """The flags of `train METHOD`, laid over the recipe that suits the data."""
    if {"-h", "--help"} & set(argv):
        guess = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        guess.add_argument("data", nargs="?", default="")
        guess.add_argument("--recipe", default="")
        place, _ = guess.parse_known_args(argv)
    else:  # which word is DATA, and so the recipe, is known only once all flags are
        place, *_ = _parse(method, argv, "small_images")
    recipe = place.recipe or plans.suited_recipe(place.data)
    place, settings, arguments = _parse(method, argv, recipe)
    return dataclasses.replace(place, recipe=recipe), settings, arguments


def _parse(method: str, argv: list[str], recipe_name: str) -> tuple[Place, Settings, dict[str, Any]]:
    recipe = recipes.load(recipe_name, Path(method).stem)
    flags = plans.own_flags(method)
    for word in argv:
        if word.startswith("--") and word[2:].partition("=")[0].replace("-", "_") not in flags:
            plans.insist_whole(word.partition("=")[0])
    page = methods.page(method)
    helps = methods.flag_texts(method)
    own = dataclasses.make_dataclass(
        "Own",
        [
            (
                name,
                Annotated[parameter.annotation, tyro.conf.arg(help=helps.get(name))],
                dataclasses.field(default=recipe.method.get(name, parameter.default)),
            )
            for name, parameter in flags.items()
        ],
        frozen=True,
        kw_only=True,
    )
    own.__doc__ = f"Arguments of {page.class_name}."
    call_type = dataclasses.make_dataclass(
        "Call",
        [
            ("place", Place),
            (page.class_name, own),
            ("settings", Settings, dataclasses.field(default=recipe.settings)),
        ],
        frozen=True,
        kw_only=True,
    )
    call = tyro.cli(
        call_type,
        args=argv,
        prog=f"nearfar train {method}",
        description=f"{page.title}\n\n{page.summary}\n\nDefaults are those of the recipe {recipe_name}.",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    return call.place, call.settings, dataclasses.asdict(getattr(call, page.class_name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What a method would see: a contact sheet of samples and their views."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder of images, a .tar, .parquet or .npz file, or a list of paths."""
    out: str = "views.png"
    """Where the image goes."""
    method: str = "simclr"
    """Whose recipe names the views."""
    views: str = ""
    """Other views than the recipe's; `nearfar train METHOD --help` names them all."""
    label_column: str = "label"
    """The column of a table that holds the labels, and is no input."""
    size: int = 0
    """Side of the views in pixels; 0 as in training."""
    samples: int = 8
    """How many samples, spread over the data."""
    seed: int = 0
    """Of the draws."""


def views(argv: list[str]) -> int:
    """Draw a contact sheet."""
    look = tyro.cli(Look, args=argv, prog="nearfar views", config=(tyro.conf.OmitArgPrefixes,))
    import torch

    from nearfar.files import replace
    from nearfar.modalities import kind as kinds

    flags: dict[str, Any] = {"size": look.size, "label_column": look.label_column} | (
        {"views": look.views} if look.views else {}
    )
    plan = plans.make(look.method, look.data, None, flags)
    kind = kinds.of(plan.settings.kind)
    data = kind.open_samples(look.data, plan.settings)
    viewer = kind.make_views(data, plan.settings, kind.facts(data, plan.settings))
    some = torch.linspace(0, len(data) - 1, min(look.samples, len(data))).long().unique()
    draws = viewer.draw(len(some), torch.Generator().manual_seed(look.seed))
    sheet = kind.sheet(data, viewer, some, draws)
    path = replace(Path(look.out), lambda temporary: sheet.save(temporary, format="PNG"))
    for note in data.notes:
        print(note)
    print(f"{len(some)} of {len(data)} samples and their views ({plan.settings.views}): {path}")
    return 0
