"""What is to be trained: flags laid over a recipe. Free of torch, but for files of the user's own."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearfar import methods, modalities
from nearfar.errors import UserError, WrongType, printable
from nearfar.files import code_digests, name_text, origin
from nearfar.modalities import recipes
from nearfar.ranges import check, flag
from nearfar.settings import GIVEN, Recipe, Settings, meant


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be trained: everything that was chosen, before anything is opened.

    given: what the user set, laid over the recipe.  reasons: why the recipe is as it is, by name of a setting.
    network: a user's own module as the encoder, of which `settings.encoder` is the name; None for one of ours.
    viewer: views that were given as an object, of which `settings.views` is the name; None for those that have one.
    """

    method: str
    data: Any
    recipe: str
    kind: str
    settings: Settings
    arguments: dict[str, Any]
    given: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    network: Any = None
    viewer: Any = None

    def saved(self) -> dict[str, Any]:
        """As `config.yaml` keeps it, in plain types."""
        data = origin(Path(self.data) if isinstance(self.data, str) else self.data)
        settings = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self.settings).items()}
        return {
            "method": self.method,
            "data": data,
            "recipe": self.recipe,
            "kind": self.kind,
            "settings": settings,
            "arguments": {k: list(v) if isinstance(v, tuple) else v for k, v in self.arguments.items()},
            "code": code_digests([self.method, self.recipe, self.kind, self.settings.views]),
        }


def make(method: str, data: Any, recipe: str | None, flags: dict[str, Any], *, kind: str = "") -> Plan:
    """Lay flags over a recipe. Raises TypeError for a flag that neither the run nor the method has.

    recipe, kind: by default those that suit the data. A recipe that depends on the samples is that of typical ones,
    until `settle`.
    """
    if isinstance(data, str | os.PathLike):
        modalities.insist_samples(data)
    kind = kind or modalities.kind_of(data, flags)
    recipe = recipes.choose(recipe or "", Path(method).stem, data, kind)
    typical = modalities.entry(kind).Facts(own_encoder=not isinstance(flags.get("encoder") or "", str))
    base: Recipe = recipes.load(recipe, Path(method).stem, kind, typical)
    own = own_flags(method)
    known = {f.name for f in dataclasses.fields(base.settings)}
    for name in flags:
        if name not in known and name not in own:
            insist_whole(name)
            elsewhere = [other for other in modalities.names() if name in settings_of(other)]
            if elsewhere:
                raise WrongType(f"{name!r} can be set for data of the kind {elsewhere[0]}, and these are {kind}")
            raise WrongType(f"neither a run nor {method!r} has an argument {name!r}{meant(name, [*known, *own])}")
    flags = {name: _as_flag(value) for name, value in flags.items()}
    network = flags.get("encoder")
    if network is not None and not isinstance(network, str):
        spec = getattr(network, "spec", None)
        named = spec.get("name") if isinstance(spec, dict) else None
        flags = flags | {"encoder": named or type(network).__name__}
    else:
        network = None
    viewer = flags.get("views")
    if viewer is None or isinstance(viewer, str):
        viewer = None
    else:
        flags = flags | {"views": f"{GIVEN}{getattr(viewer, '__name__', type(viewer).__name__)}"}
    plan = Plan(
        method=method,
        data=data,
        recipe=recipe,
        kind=kind,
        settings=base.settings,
        arguments=base.method,
        given=flags,
        network=network,
        viewer=viewer,
    )
    return settle(plan, base)


def _as_flag(value: Any) -> Any:
    """A path as text; a mapping as NAME=VALUE words."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        ends = ((k, ",".join(map(str, v)) if isinstance(v, tuple | list) else v) for k, v in value.items())
        return tuple(f"{name}={one}" for name, one in ends)
    return value


def with_flags(plan: Plan, flags: dict[str, Any]) -> Plan:
    """The plan with further settings or arguments, as if the user had set them."""
    given = plan.given | flags
    base = Recipe(settings=plan.settings, method=plan.arguments, reasons=plan.reasons)
    return settle(dataclasses.replace(plan, given=given), base)


def settle(plan: Plan, recipe: Recipe) -> Plan:
    """The plan with another recipe below what the user set.

    Raises TypeError for an argument that the method does not have, ValueError for a value out of its range.
    """
    own = own_flags(plan.method)
    if ".py:" in plan.recipe and (strange := sorted(set(recipe.method) - set(own))):
        raise WrongType(
            f"the recipe {plan.recipe!r} has a method argument {strange[0]!r}, and {plan.method!r} has none of that "
            "name"
        )
    settings, arguments = _laid_over(recipe, plan.given, own)
    if plan.network is None:
        settings = settings.taken_over(plan.given)
        modalities.entry(plan.kind).insist_encoder(settings.encoder)
    return dataclasses.replace(plan, settings=settings, arguments=arguments, reasons=recipe.reasons)


def as_saved(plan: Plan, saved: dict[str, Any]) -> Plan:
    """The plan of a run that goes on: where its recipe depends on the samples, what the user does not set stays.

    saved: what its config.yaml holds.
    """
    if not recipes.goes_by_facts(plan.recipe, Path(plan.method).stem, plan.kind):
        return plan
    known = settings_of(plan.kind).union(own_flags(plan.method))
    settings, arguments = (
        {name: tuple(value) if isinstance(value, list) else value for name, value in part.items() if name in known}
        for part in (saved["settings"], saved["arguments"])
    )
    return settle(plan, Recipe(settings=dataclasses.replace(plan.settings, **settings), method=arguments))


def _laid_over(
    base: Recipe, flags: dict[str, Any], own: dict[str, inspect.Parameter]
) -> tuple[Settings, dict[str, Any]]:
    """Settings and method arguments. Raises ValueError for a value that is out of its range."""
    known = {f.name for f in dataclasses.fields(base.settings)}
    settings = dataclasses.replace(base.settings, **{k: v for k, v in flags.items() if k in known})
    arguments = {name: parameter.default for name, parameter in own.items()}
    arguments |= {k: v for k, v in (base.method | flags).items() if k in own}
    for name, value in arguments.items():
        check(flag(name), value, own[name].annotation)
    return settings, arguments


def settings_of(kind: str) -> set[str]:
    """The names of what can be set for a kind of data."""
    return {f.name for f in dataclasses.fields(modalities.entry(kind).Settings)}


def insist_whole(name: str) -> None:
    """Raise TypeError where a flag asks for gradient accumulation."""
    if "accum" in name:
        raise WrongType(
            f"{name!r}: adding up the gradients of small batches would contrast each sample with the few others of "
            "its small batch, which is another loss. For a large batch in little memory give batch, with micro_batch: "
            "it has the whole batch's negatives, and gradient"
        )


def own_flags(method: str) -> dict[str, inspect.Parameter]:
    """The arguments of a method, which no other flag may be called like. Raises ValueError where one is."""
    own = methods.read_flags(method)
    taken = {"data", "out", "resume", "recipe", "kind", "log", "callback"}.union(*map(settings_of, modalities.names()))
    if both := sorted(taken & set(own)):
        raise UserError(f"the method {method!r} has an argument {both[0]!r}, which every run has: rename it")
    return own


def free_directory(method: str, data: Any, root: Path = Path("runs")) -> Path:
    """A new, empty directory for a run, of the next unused name, such as runs/simclr-photos-2."""
    known = isinstance(data, str | os.PathLike)
    named = printable(name_text(Path(data).resolve().stem)).replace("\\", "") if known else "array"
    stem = f"{Path(method).stem}-{named}"
    number = 1
    while True:
        path = root / f"{stem}-{number}"
        try:
            path.mkdir(parents=True)  # not only looked for: another process may be choosing too
            return path
        except FileExistsError:
            number += 1
