"""`nearfar train METHOD DATA` and `nearfar views DATA`."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import shlex
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from nearfar import methods, modalities
from nearfar.cli.flags import command, from_here, gathered, parsed
from nearfar.cli.printing import print
from nearfar.errors import Elsewhere, UserError, counted
from nearfar.files import insist_text
from nearfar.modalities import recipes
from nearfar.modalities.recognize import looks_like_table
from nearfar.ranges import Checked, bounds
from nearfar.settings import Recipe, Settings
from nearfar.training import plan as plans

FEW_FILES, FEW_BYTES = 300, 10_000_000
"""Of DATA that are opened for a help text, at most."""

USAGE = """usage: nearfar train METHOD DATA [flags]

METHOD  {names}, or the path of a .py file of your own
DATA    a folder of images or videos, a .tar, .parquet or .npz file, a list (.txt, .csv), a table, sentences, graphs

`nearfar train METHOD --help` tells the flags, those of the method among them; `nearfar methods` what the methods do.

  nearfar train simclr photos/
  nearfar train supcon photos/ --labels labels.csv --epochs 50
  nearfar train simcse reviews.csv --text-column text
  nearfar train clip captions.csv --pair image=path,text=caption"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place(Checked):
    """Where to read and where to write."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder of images or videos, a .tar, .parquet or .npz file, a list, a table, sentences, graphs."""
    out: str = ""
    """The run directory; runs/METHOD-DATA-N by default. One that exists is never overwritten."""
    resume: bool = False
    """Go on with the run in --out, from its newest checkpoint."""
    recipe: str = ""
    """Where defaults come from: a name such as small_images, or FILE.py:FUNCTION. By default what suits DATA."""
    kind: str = ""
    """What the samples are: image, table, text, audio, graph, video, pair, or the path of your own; by default as DATA
    look."""
    log: str = ""
    """Programs to tell the numbers of metrics.jsonl too: tensorboard, wandb, mlflow, trackio, with commas between
    several. Each takes its own package, and writes to this machine alone."""


def train(argv: list[str]) -> int:
    """Train an encoder."""
    if not argv or argv[0].startswith("-"):
        print(USAGE.format(names=", ".join(methods.names())))
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # before torch is there: it would print a stack for each lost rank
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    method, rest = argv[0], argv[1:]
    place, settings, arguments = parse(method, rest)
    flags = {k: v for k, v in (dataclasses.asdict(settings) | arguments).items() if k in named_in(rest)}

    from nearfar.cli.console import Console
    from nearfar.training import job as training
    from nearfar.training.loggers import asked_for

    asked_for(place.log)

    plan = plans.make(method, place.data, place.recipe, flags, kind=place.kind)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not place.out:
        raise UserError("several processes must agree on a directory: name it with --out")
    insist_text(place.out, "--out")
    out = Path(place.out) if place.out else plans.free_directory(method, place.data)
    try:
        with Console() as console:
            how = {"say": console.say, "watch": console.watch, "log": place.log}
            finished = training.train(plan, out, resume=place.resume, **how)
    except Elsewhere:
        if os.environ.get("NEARFAR_TRACEBACK"):
            raise
        return 2  # what happened is printed once for all ranks
    if console.leads and finished:
        from nearfar.report.record import read
        from nearfar.report.verdict import spoken, unhelped
        from nearfar.run import load

        run = load(out, trust=True)  # the files of code are those that were given here
        page = run.report(print)
        record = read(out)
        print("\n".join(spoken(record)))
        loads = " (and encoder.py, which loads it)" if (out / "encoder.py").exists() else ""
        print(f"Run:      {out}\nEncoder:  {out / 'encoder.safetensors'}{loads}")
        print(f"Report:   {page}\nGo on:    " + "\n          ".join(next_steps(run.config, out, place.data)))
        if line := unhelped(record):
            print(line)
    elif console.leads:
        words = shlex.join(["nearfar", "train", *argv])
        words += "" if place.out else f" --out {shlex.quote(str(out))}"
        print(f"Stopped and saved. Go on with: {words}{'' if place.resume else ' --resume'}")
    return 0 if finished else 130


def next_steps(config: dict[str, Any], out: Path, data: str) -> list[str]:
    """What to do with a run, in calls that run as they stand. config: its own.  data: as they were given."""
    settings, made = config["settings"], config["made"]
    trust, labels = {"trust": bool(config["code"])}, settings["labels"] and from_here(settings["labels"])
    steps = [command("embed", out, data, flags=trust), command("export", out, flags=trust)]
    if len(made.get("encoder", {}).get("towers", {})) > 1 and settings.get(
        "space"
    ):  # each side finds the other, without labels
        return [command("evaluate", out, data, flags=trust), *steps]
    if max(made["counts"], default=0) > 1 and len(made["classes"]) > 1:
        return [command("evaluate", out, data, flags={"labels": labels} | trust), *steps]
    if free := made["samples"] - made["labeled"]:
        few = {"count": free if free < 20 else 0, "labels": labels}
        return [command("label-plan", out, data, flags=few | trust), *steps]
    return steps


def parse(method: str, argv: list[str]) -> tuple[Place, Settings, dict[str, Any]]:
    """The flags of `train METHOD`, laid over the recipe that suits the data."""
    argv = gathered(argv)
    for word in argv:
        if word.startswith("--") and word[2:].partition("=")[0].replace("-", "_") not in plans.own_flags(method):
            plans.insist_whole(word.partition("=")[0])
    guess = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    guess.add_argument("data", nargs="?", default="")
    guess.add_argument("--recipe", nargs="?", default="", const="")
    guess.add_argument("--kind", nargs="?", default="", const="")
    place = guess.parse_known_args(argv)[0]
    if not {"-h", "--help"} & set(argv) and (not argv or argv[0].startswith("-")):
        # Which word is DATA, and so the kind, is known only once all flags are; a first word that is no flag is DATA.
        every = modalities.entry(place.kind).Settings if place.kind else _any_settings()
        place = _parse(method, argv, every, Recipe(settings=every()), "").place
    kind = place.kind or modalities.kind_of(place.data, named_in(argv))
    entry = modalities.entry(kind)
    recipe_name = recipes.choose(place.recipe, Path(method).stem, place.data, kind)
    recipe = recipes.load(recipe_name, Path(method).stem, kind)
    for word in argv:
        name = word[2:].partition("=")[0].replace("-", "_").removeprefix("no_")
        of = [other for other in modalities.names() if name in plans.settings_of(other)]
        if word.startswith("--") and of and kind not in of and not hasattr(recipe.settings, name):
            raise UserError(f"{word.partition('=')[0]} is for data of the kind {of[0]}, and these are {kind}")
    shown = recipe_name
    if {"-h", "--help"} & set(argv) and recipes.goes_by_facts(recipe_name, Path(method).stem, kind):
        recipe, shown = _settled(method, argv, place.data, recipe_name, kind)
    call = _parse(method, argv, entry.Settings, recipe, shown)
    place = dataclasses.replace(call.place, recipe=recipe_name, kind=kind)
    return place, call.settings, dataclasses.asdict(call.method)


def _settled(method: str, argv: list[str], data: str, recipe_name: str, kind: str) -> tuple[Recipe, str]:
    """A recipe that goes by the samples, for those of DATA, where these are open in a moment, else for typical ones;
    and its name, with what it goes by."""
    typical = modalities.entry(kind).Facts()
    if not opens_quickly(data):
        recipe = recipes.load(recipe_name, Path(method).stem, kind, typical)
        return recipe, f"{recipe_name}, which goes by the data: shown are those for {typical.samples:,} samples"
    from nearfar.training.build import open_samples, settled

    words = [word for word in argv if word not in ("-h", "--help")]
    place, settings, arguments = parse(method, words)
    given = {k: v for k, v in (dataclasses.asdict(settings) | arguments).items() if k in named_in(words)}
    plan = plans.make(method, place.data, recipe_name, given, kind=kind)
    samples = open_samples(plan, lambda text: None)
    plan = settled(plan, samples)
    known = f"{recipe_name} for these {counted(len(samples), 'samples')}"
    return Recipe(settings=plan.settings, method=plan.arguments), known


def opens_quickly(data: str) -> bool:
    """Whether DATA are a file or a folder so small that a help text may wait until they are open."""
    path = Path(data)
    if not data or not path.exists():
        return False
    files = list(itertools.islice((file for file in path.rglob("*") if file.is_file()), FEW_FILES + 1))
    lines = path.suffix.lower() in (".txt", ".csv") and not looks_like_table(path)
    count = path.read_bytes().count(b"\n") if lines else len(files)
    size = sum(file.stat().st_size for file in files or [path])
    return count <= FEW_FILES and size <= FEW_BYTES


def named_in(argv: list[str]) -> set[str]:
    """The names of the flags that the words of a call give."""
    words = {word[2:].partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    return words | {word.removeprefix("no_") for word in words}


def _any_settings() -> type[Settings]:
    """What can be set for any kind of data, to find DATA among the words of a call."""
    fields = {f.name: f for name in modalities.names() for f in dataclasses.fields(modalities.entry(name).Settings)}
    hints = {n: t for name in modalities.names() for n, t in get_type_hints(modalities.entry(name).Settings).items()}
    own = [(name, hints[name], dataclasses.field(default=f.default)) for name, f in fields.items()]
    return dataclasses.make_dataclass("AnySettings", own, frozen=True, kw_only=True)  # pyright: ignore[reportReturnType]


def _parse(method: str, argv: list[str], settings: type[Settings], recipe: Recipe, recipe_name: str) -> Any:
    """A call of `train METHOD`: place, method and settings."""
    flags = plans.own_flags(method)
    page = methods.page(method)
    helps = methods.flag_texts(method)
    own = dataclasses.make_dataclass(
        "Own",
        [
            (
                name,
                Annotated[parameter.annotation, tyro.conf.arg(help=_help(helps.get(name, ""), parameter.annotation))],
                dataclasses.field(default=recipe.method.get(name, parameter.default)),
            )
            for name, parameter in flags.items()
        ],
        bases=(Checked,),
        frozen=True,
        kw_only=True,
    )
    own.__doc__ = f"Arguments of {page.class_name}."
    call_type = dataclasses.make_dataclass(
        "Call",
        [("place", Place), ("method", own), ("settings", settings, dataclasses.field(default=recipe.settings))],
        bases=(Checked,),
        frozen=True,
        kw_only=True,
    )
    about = f"{page.title}\n\n{page.summary}\n\nDefaults are those of the recipe {recipe_name}."
    return parsed(call_type, f"train {method}", argv, description=about)


def _help(text: str, hint: Any) -> str:
    """What is said of a flag, and its range where it has one."""
    return f"{text} Range: {ends}." if (ends := bounds(hint)) else text
