"""`nearfar train METHOD DATA` and `nearfar views DATA`."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from nearfar import methods, recipes
from nearfar.settings import Settings

USAGE = """usage: nearfar train METHOD DATA [flags]

METHOD  {names}, or the path of a .py file of your own
DATA    a folder of pictures, a .npz file, or a list of paths (.txt, .csv)

`nearfar train METHOD --help` tells the flags, those of the method among them; `nearfar methods` what the methods do.

  nearfar train simclr photos/
  nearfar train supcon photos/ --labels labels.csv --epochs 50"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where to read and where to write."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder of pictures, a .npz file, or a list of paths (.txt, .csv)."""
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

    from nearfar import training
    from nearfar.cli.console import Console

    plan = training.Plan(
        method=method,
        data=place.data,
        recipe=place.recipe,
        settings=settings,
        arguments=arguments,
    )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not place.out:
        raise ValueError("several processes must agree on a directory: name it with --out")
    out = Path(place.out) if place.out else training.free_directory(method, place.data)
    with Console() as console:
        finished = training.train(plan, out, resume=place.resume, say=console.say, watch=console.watch)
    if console.leads and finished:
        from nearfar.run import load

        page = load(out).report()
        print(f"Run:      {out}\nEncoder:  {out / 'encoder.safetensors'} (and encoder.py, which loads it)\nReport:   {page}")
        print(f"Go on:    nearfar evaluate {out} DATA --labels FILE · nearfar embed {out} DATA · nearfar export {out}")
    elif console.leads:
        again = [word for word in argv if word != "--resume" and not word.startswith("--out")]
        again = [word for word, before in zip(again, ["", *again], strict=False) if before != "--out" and word != place.out]
        print(f"Stopped and saved. Go on with: nearfar train {' '.join(again)} --out {out} --resume")
    return 0 if finished else 130


def parse(method: str, argv: list[str]) -> tuple[Place, Settings, dict[str, Any]]:
    """The flags of `train METHOD`, laid over the recipe that suits the data."""
    from nearfar import training

    given = next((b for a, b in zip(argv, argv[1:], strict=False) if a == "--recipe"), "")
    given = next((a.partition("=")[2] for a in argv if a.startswith("--recipe=")), given)
    data = next((a for a, before in zip(argv, ["", *argv], strict=False) if not a.startswith("-") and not before.startswith("--")), "")
    recipe_name = given or training.suited_recipe(data)
    recipe = recipes.load(recipe_name, Path(method).stem)
    kind = methods.load(method)
    helps = flag_texts(methods.page(method).text, list(methods.flags(kind)))
    method_title = kind.__name__
    own = dataclasses.make_dataclass(
        "Own",
        [
            (
                name,
                Annotated[parameter.annotation, tyro.conf.arg(help=helps.get(name))],
                dataclasses.field(default=recipe.method.get(name, parameter.default)),
            )
            for name, parameter in methods.flags(kind).items()
        ],
        frozen=True,
        kw_only=True,
    )
    own.__doc__ = f"Arguments of {kind.__name__}."

    call_type = dataclasses.make_dataclass(
        "Call",
        [
            ("place", Place),
            (method_title, own),
            ("settings", Settings, dataclasses.field(default=recipe.settings)),
        ],
        frozen=True,
        kw_only=True,
    )
    call = tyro.cli(
        call_type,
        args=argv,
        prog=f"nearfar train {method}",
        description=f"{methods.page(method).summary}\n\nDefaults are those of the recipe {recipe_name}.",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    place = dataclasses.replace(call.place, recipe=recipe_name)
    return place, call.settings, {f.name: getattr(getattr(call, method_title), f.name) for f in dataclasses.fields(own)}


def flag_texts(text: str, names: list[str]) -> dict[str, str]:
    """What a method's docstring says of each flag: the words behind `name:` or `name, other:`."""
    texts: dict[str, str] = {}
    one = rf"(?:{'|'.join(map(re.escape, names))})" if names else r"(?!)"
    for paragraph in text.split("\n\n"):
        flat = " ".join(paragraph.split())
        found = list(re.finditer(rf"(?:^|(?<=[.:;] ))({one}(?:, {one})*): ", flat))
        for match, following in zip(found, [*found[1:], None], strict=False):
            said = flat[match.end() : following.start() if following else None].strip()
            for name in match[1].split(", "):
                texts[name] = said[:1].upper() + said[1:]
    return texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What a method would see: a contact sheet of samples and their views."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder of pictures, a .npz file, or a list of paths."""
    out: str = "views.png"
    """Where the picture goes."""
    method: str = "simclr"
    """Whose recipe names the views."""
    views: str = ""
    """Other views than the recipe's: simclr, moco_v1, moco_v2, byol, barlow, swav, supcon, drawing."""
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

    from nearfar import training
    from nearfar.files import replace
    from nearfar.views.sheet import contact_sheet

    flags: dict[str, Any] = {"size": look.size} | ({"views": look.views} if look.views else {})
    plan = training.plan(look.method, look.data, None, flags)
    data = training.open_pictures(look.data, plan.settings)
    viewer = training.make_views(plan.settings, training.view_size(plan.settings, data.side))
    some = torch.linspace(0, len(data) - 1, min(look.samples, len(data))).long().unique()
    draws = viewer.draw(len(some), torch.Generator().manual_seed(look.seed))
    sheet = contact_sheet(*data.fetch(some), viewer, draws, [data.names[i] for i in some.tolist()])
    path = replace(Path(look.out), lambda temporary: sheet.save(temporary, format="PNG"))
    for note in data.notes:
        print(note)
    print(f"{len(some)} of {len(data)} samples and their views ({plan.settings.views}): {path}")
    return 0


