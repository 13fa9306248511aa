"""From a plan to what is trained: samples, encoder, method and views, and the facts about them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from nearfar import distributed, methods, modalities
from nearfar.batch import MISSING, to
from nearfar.data.digests import digests, fingerprint
from nearfar.data.labels import LabelColumn
from nearfar.data.samples import LEARNED, Samples
from nearfar.data.source import Views
from nearfar.errors import NotFound, UserError, counted
from nearfar.export.encoder import load_encoder, read_description
from nearfar.machine import free_memory
from nearfar.method import Encoder, Method, derive_seed
from nearfar.modalities import kind as kinds
from nearfar.modalities import recipes
from nearfar.modalities.encoder import is_own, own_encoder
from nearfar.modalities.kind import Kind
from nearfar.nn.micro_batch import activation_bytes, fitting
from nearfar.nn.towers import pick_tower, trunk
from nearfar.nn.wrapped import sees_steps
from nearfar.ops.mixing import insist_fit
from nearfar.training.directory import GIVEN, UNTRAINED, read_config, unchanged
from nearfar.training.plan import Plan, settle
from nearfar.training.probe import insist_alive

Say = Callable[[str], None]

BEFORE = frozenset({"device", "timeout"})
"""Settings by which processes begin, before any data are opened, besides those by which data are."""


@dataclass(kw_only=True)
class Built:
    """What a plan comes to.

    digests: of each sample's contents.  facts: what `config.yaml` keeps under "made", beside encoder and classes.
    first_weights: those that a user's own encoder begins with, on the CPU; none for an encoder of ours.
    given_weights: those that the encoder begins with instead of random ones; none where it begins at random.
    lost: samples that can be read no more, by position, with name and reason.
    """

    kind: Kind
    samples: Samples
    encoder: Encoder
    method: Method
    views: Views
    digests: list[str]
    facts: dict[str, Any]
    first_weights: dict[str, Tensor]
    given_weights: dict[str, Tensor]
    lost: dict[int, tuple[str, str]] = field(default_factory=dict)


def open_samples(plan: Plan, say: Say, made: dict[str, Any] | None = None) -> Samples:
    """The samples to train on. made: of a run that goes on, what its config keeps.

    Raises ValueError where the method cannot learn from them.
    """
    settings, method, kind = plan.settings, methods.load(plan.method), kinds.of(plan.kind)
    everything = kind.samples(plan.data, settings, made)
    for note in everything.notes:
        say(note)
    samples = everything
    if settings.split == "train" and set(everything.split) - {"", "train"}:
        samples = everything.subset(everything.of_split(*LEARNED).nonzero()[:, 0])
        say(f"Training on {len(samples)} of {len(everything)} samples: those that are not in another split.")
    if len(samples) < 2:
        raise UserError(
            f"{counted(len(samples), 'samples')} to train on in {str(plan.data)!r}: contrast needs at least 2"
        )
    if method.learns_from_labels(plan.arguments) and not (samples.label != MISSING).any():
        raise UserError(f"{plan.method!r} learns from labels and none are known: {kind.unlabeled}")
    return samples


def settled(plan: Plan, samples: Samples) -> Plan:
    """The plan, now that the samples are open: a recipe may go by what they are.

    Raises ValueError where it would have had them opened otherwise, or chooses for them what cannot be trained.
    """
    method, kind = Path(plan.method).stem, kinds.of(plan.kind)
    if not recipes.goes_by_facts(plan.recipe, method, plan.kind):
        return plan
    facts = replace(kind.recipe_facts(samples, plan.settings, plan.given), own_encoder=plan.network is not None)
    final = settle(plan, recipes.load(plan.recipe, method, plan.kind, facts))
    changed = {
        f.name for f in fields(final.settings) if getattr(plan.settings, f.name) != getattr(final.settings, f.name)
    }
    for name in sorted(changed & (kind.read | BEFORE)):
        raise UserError(
            f"the recipe {plan.recipe!r} has {name} {getattr(final.settings, name)!r} for these samples, which were "
            f"opened with {getattr(plan.settings, name)!r}: {name} is used before the samples are known, so that it "
            "cannot depend on them"
        )
    if changed & {"views", "view_count"}:
        insist_possible(final)
    return final


def insist_ready(plan: Plan) -> None:
    """Raise ValueError for what cannot be trained, as far as that is known before the data are opened."""
    if why := unfit(plan):
        others = f"; `nearfar methods --kind {plan.kind}` lists the others" if plan.kind in modalities.names() else ""
        raise UserError(why + others)
    settings, method, kind = plan.settings, methods.load(plan.method), kinds.of(plan.kind)
    labels = method.learns_from_labels(plan.arguments)
    wanted = f"{plan.method!r} learns from labels and none are known: {kind.unlabeled}" if labels else ""
    kind.insist_there(plan.data, settings.labels, LabelColumn.of(settings.label_column), wanted=wanted)
    insist_possible(plan)


def unfit(plan: Plan) -> str:
    """Why a method is not for this kind of data and this encoder, whatever the samples; "" where it is."""
    settings, method, kind = plan.settings, methods.load(plan.method), kinds.of(plan.kind)
    name, own = repr(plan.method), plan.network is not None
    steps = sees_steps(plan.network) if plan.network is not None else kind.sequential(settings)
    if method.needs_pixels and not kind.pixels and not (method.takes_steps and steps):
        also = f", nor does {settings.encoder!r} see steps of a sequence" if method.takes_steps else ""
        return f"{name} takes views apart as pixels, and views of {kind.noun} have none{also}: give images" + (
            ", or recordings and --encoder melgru" if method.takes_steps else ""
        )
    if method.needs_maps and not own and not kind.mapped(settings):
        return (
            f"{name} learns what is where from the maps of the encoder, and {settings.encoder!r} for {kind.noun} has "
            "none: give images and --encoder conv4, or a network of timm"
        )
    if method.needs_frames and not kind.frames:
        return (
            f"{name} takes views apart as frames, and views of {kind.noun} have none: give videos; folders of which "
            "each holds the frames of one are videos by --kind video"
        )
    if method.needs_streams and not own and not kind.several(settings):
        return (
            f"{name} contrasts what several networks see, and {settings.encoder!r} is one: give pairs of kinds, such "
            "as --pair image=path,text=caption, or for images an encoder such as ycbcr:resnet18"
        )
    if method.needs_writer and not own and not kind.writes(settings):
        return (
            f"{name} learns to write, and {settings.encoder!r} for {kind.noun} has no decoder: give sentences and "
            "--encoder t5, or a folder with a T5"
        )
    if method.changes and method.changes not in kind.allows:
        return (
            f"{name} changes the numbers that views are made of, and views of {kind.noun} are not numbers alone: "
            "choose another method"
        )
    return ""


def insist_possible(plan: Plan) -> None:
    """Raise ValueError for an encoder or views that cannot be, or are not for the method, whatever the data."""
    settings, kind = plan.settings, kinds.of(plan.kind)
    if plan.viewer is not None and type(kind).own_views is Kind.own_views:
        raise UserError(
            f"views of {kind.noun} are not given as an object, {type(plan.viewer).__name__}: write a function that "
            "makes them into a file, and name it, FILE.py:FUNCTION"
        )
    if plan.network is None:
        kind.insist_settings(settings)
    weights = getattr(settings, "weights", "")
    if plan.network is not None and weights:
        raise UserError(f"--weights {weights!r}: a module of your own brings its own; load them before you give it")
    for flag, value in (("start-pull", settings.start_pull), ("frozen", settings.frozen)):
        if value and plan.network is None and not kind.given_weights(settings):
            by = "; the recipe 'continue' is for given weights" if plan.recipe == "continue" else ""
            raise UserError(
                f"--{flag} {value:g} keeps what the encoder begins with, and that are random weights: give others by "
                f"--weights or --from-run{by}"
            )
    for run, network in kind.starts(settings).values():
        _insist_same_network(run, network)
    method = methods.load(plan.method)
    locked = plan.arguments.get(method.locks, "")
    if locked and plan.network is None and not kind.begins_trained(settings, locked):
        raise UserError(
            f"--{method.locks} {locked!r}: its network would keep the random weights it begins with, which know "
            f"nothing: give it those of a run by --sides {locked}.from_run=RUN, or leave it free to learn"
        )
    if (count := kind.view_count(settings)) is not None:
        insist_views(plan, method, count)


def insist_views(plan: Plan, method: Method | type[Method], count: int) -> None:
    """Raise ValueError where a method does not take so many views of each sample."""
    fewest, most = method.fewest_views, method.most_views
    if fewest <= count <= (most or count):
        return
    wanted = counted(fewest, "views") if most == fewest else f"{fewest} {f'to {most}' if most else 'or more'} views"
    large_and_small = getattr(plan.settings, "crops", ()) if getattr(plan.settings, "cropped", False) else ()
    crops = " ".join(map(str, large_and_small))
    named = {"--views": plan.settings.views, "--view-count": plan.settings.view_count, "--crops": crops}
    of = " ".join(f"{flag} {value}" for flag, value in named.items() if value)
    remedy = f"give --view-count {most or fewest}, or other --views"
    if crops:
        able = [
            name
            for name in methods.names()
            if takes_any_number(methods.load(name)) and not unfit(replace(plan, method=name))
        ]
        remedy = f"leave --crops out, or take a method of any number of views: {', '.join(able)}"
    raise UserError(f"{plan.method!r} takes {wanted} of each sample, and {of} makes {count}: {remedy}")


def takes_any_number(method: type[Method]) -> bool:
    """Whether a method that needs nothing but views takes any number of them, large and small."""
    return method.most_views == 0 and method.fewest_views <= 2 and not (method.needs_streams or method.one_size)


def batch_size(asked: int, samples: int, say: Say) -> int:
    """The global batch: as asked for, or less where there are fewer samples, in equal parts for all ranks."""
    ranks = distributed.world()
    batch = min(asked, samples) // ranks * ranks
    if batch < max(2, ranks):
        raise UserError(f"{samples} samples are too few for {ranks} processes")
    if batch != asked:
        say(f"The batch is {batch}, not {asked}: there are {samples} samples and {counted(ranks, 'processes')}.")
    return batch


def build(plan: Plan, samples: Samples, batch: int, out: Path, say: Say, made: dict[str, Any] | None = None) -> Built:
    """Encoder, method and views for these samples, with weights that follow from the seed; all on the CPU.

    out: the run directory, where a run that is resumed keeps the first weights of a user's own encoder.
    made: of a run that goes on, what its config keeps: its encoder is that one, whatever is measured on the samples.
    """
    settings, kind = plan.settings, kinds.of(plan.kind)
    torch.manual_seed(settings.seed)
    own, first_weights = kind.facts(samples, settings), {}
    if made is not None:  # as they are in the run, whatever another machine would take
        own |= {name: made[name] for name in own}
    if plan.network is None:
        encoder = kind.encoder(samples, settings, own) if made is None else kind.encoder_from_spec(made["encoder"])
    else:
        encoder = own_encoder(plan.network, plan.kind, samples, own)
        if (out / "config.yaml").exists():  # whatever the module holds now
            encoder.load_state_dict(load_file(unchanged(out, UNTRAINED, read_config(out))))
        first_weights = _copied(encoder)
    given, given_weights = kind.given_weights(settings), {}
    if plan.network is not None and not kind.starts(settings):
        given = ""
    if given and made is not None and GIVEN in (saved := read_config(out))["files"]:
        encoder.load_state_dict(load_file(unchanged(out, GIVEN, saved)))  # whatever the file that was given holds now
    else:
        for tower, (run, _) in kind.starts(settings).items():
            start_from(run, pick_tower(encoder, tower), plan.kind)
    if given:
        insist_alive(encoder, given)
        given_weights = _copied(encoder)
        torch.manual_seed(derive_seed(settings.seed, 6))  # the same heads, wherever the weights were read from
    counts = torch.bincount(samples.label[samples.label != MISSING], minlength=len(samples.classes)).tolist()
    method = methods.build(
        methods.load(plan.method),
        encoder,
        plan.arguments,
        samples=len(samples),
        classes=len(samples.classes),
        counts=tuple(counts),
        channels=own["channels"],
        size=own.get("size", 0),
    )
    if settings.layer_decay != 1:
        method.encoder.depths()  # or an error: they are in no known order
    views = made_views(plan, samples, own, made)
    for note in getattr(views, "notes", []):
        say(note)
    insist_views(plan, method, len(views))
    if method.needs_places and not (hasattr(views, "places") and getattr(views, "placed", True)):
        raise UserError(
            f"{plan.method!r} must know where in the sample each view lies, and --views {settings.views} do not tell: "
            "choose other views of images"
        )
    if method.one_size and len({getattr(view, "size", 0) for view in getattr(views, "views", ())}) > 1:
        raise UserError(
            f"{plan.method!r} wants views of one size, and --views {plan.settings.views} make large and small ones: "
            "leave --crops out, or choose other views"
        )
    kind.insist_fitting(encoder, views)
    if method.changes:
        with contextlib.suppress(NotImplementedError):  # of a user's own module, which knows no example
            insist_fit(encoder.example(2), method.changes, plan.method)
    for note in encoder.notes:
        say(note)
    known = digests(samples)
    facts = own | {
        "samples": len(samples),
        "labeled": int((samples.label != MISSING).sum()),
        "groups": len(torch.unique(samples.group[samples.group != MISSING])),
        "classes": len(samples.classes),
        "counts": counts,
        "needs_labels": method.learns_from_labels(plan.arguments),
        "batch": batch,
        "steps": settings.epochs * (len(samples) // batch),
        "lr": settings.lr * batch / 256,
        "views": len(views),
        "micro_batch": 0,
        "processes": distributed.world(),
        "fingerprint": fingerprint(known, samples),
        "given": given,
    }
    if found := getattr(views, "found", None):
        facts["views_found"] = found
    return Built(
        kind=kind,
        samples=samples,
        encoder=encoder,
        method=method,
        views=views,
        digests=known,
        facts=facts,
        first_weights=first_weights,
        given_weights=given_weights,
    )


def made_views(plan: Plan, samples: Samples, facts: dict[str, Any], made: dict[str, Any] | None) -> Views:
    """The views of a plan.  facts: of the samples.  made: of a run that goes on, what its config keeps.

    Raises ValueError where they are given as an object, and are others than those of the run.
    """
    kind = kinds.of(plan.kind)
    if plan.viewer is None:
        return kind.views(samples, plan.settings, facts)
    views = kind.own_views(plan.viewer, samples, plan.settings, facts)
    now, before = (
        known.get("transforms") for known in (getattr(views, "found", {}), (made or {}).get("views_found", {}))
    )
    if made is not None and now != before:
        raise UserError(
            f"a run goes on only with its views, which were {before}, and are {now}: give those, or start a new run"
        )
    return views


def _copied(encoder: Encoder) -> dict[str, Tensor]:
    return {key: value.cpu().contiguous().clone() for key, value in encoder.state_dict().items()}


def start_from(run: str, encoder: Encoder, kind: str) -> None:
    """Give an encoder for samples of a kind the weights of another run's.

    Raises FileNotFoundError where that run has none, ValueError where they are of another network.
    """
    given = load_encoder(run, network=encoder.network() if is_own(encoder.spec) else None, trust=kind)
    insist_alive(given, run)
    wanted = encoder if "joint" in given.spec else trunk(encoder)
    try:
        wanted.load_state_dict(given.state_dict())
    except RuntimeError as error:
        raise _other_network(run, given.spec, encoder.spec.get("name")) from error


def _insist_same_network(run: str, name: str) -> None:
    """Raise FileNotFoundError where a run has no encoder, ValueError where it is another than the one of that name."""
    if not (Path(run) / "encoder.safetensors").is_file():
        raise NotFound(f"--from-run {run!r} holds no encoder.safetensors: name the directory of a finished run")
    spec = read_description(Path(run))["encoder"]
    if not is_own(spec) and spec.get("name", name) != name:
        raise _other_network(run, spec, name)


def _other_network(run: str, spec: dict[str, Any], name: str | None) -> UserError:
    return UserError(
        f"--from-run {run!r} has the encoder {spec.get('name')!r} for {spec.get('channels', 'other')} channels, "
        f"whose weights do not fit {name!r} here: give the same --encoder, and inputs of the same kind and form"
    )


def micro_batch(asked: int, built: Built, device: torch.device, say: Say) -> int:
    """Samples that pass the encoder at a time: as asked for, else what fits in memory; 0 for all of them.

    The encoder is on the device.
    """
    rows = built.facts["views"] * built.facts["batch"] // distributed.world()
    if asked:
        return asked if asked < rows else 0
    needed = activation_bytes(built.encoder.train(), to(built.encoder.example(min(rows, 4)), device))
    fits = fitting(needed, rows, free_memory(device)) or rows
    least = int(-distributed.highest(torch.tensor(-fits, device=device)))
    if least == rows:
        return 0
    say(
        f"The activations of {rows:,} views would take {needed * rows / 2**30:.1f} GiB, more than there is: "
        f"the encoder takes {least:,} at a time."
    )
    return least
