"""Every method in small: what the battery and the tests of each method are run on. No method is named here."""

from __future__ import annotations

import copy
import math
import random
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
from torch import Tensor, nn

from nearfar import methods, optim
from nearfar.batch import MISSING, Batch
from nearfar.distributed import local
from nearfar.method import Clock, Look, Method, Stage, Step, start_epoch
from nearfar.modalities import recipes
from nearfar.modalities.image import views as image
from nearfar.modalities.table import views as table
from nearfar.modalities.table.columns import Column, Columns
from nearfar.modalities.video import named as video_named
from nearfar.modalities.video import views as video
from nearfar.nn.apply import Apply
from nearfar.nn.captioner import Captioner
from nearfar.nn.towers import Towers
from nearfar.nn.wrapped import Wrapped
from nearfar.training import loop

SIDE = 8  # pixels
OLD = 64
"""An epoch at which all has started: a shrunk flag, be it a queue or an epoch to start at, is never larger."""


class TinyEncoder(nn.Module):
    """A hundred weights and a batch norm, for images of any side from 4 px: N x 3 x H x W -> N x 24."""

    dim = 24

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.norm(self.conv(x)).relu()).flatten(1)

    def stages(self) -> list[Stage]:
        """Each layer as a stage of its own."""
        layers = [self.conv, self.norm, nn.ReLU()]
        return [*(Stage(layer, dim=6) for layer in layers), Stage(self.pool, nn.Flatten(), dim=self.dim)]

    map_dim = 6

    def with_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What it makes, and the map that this is made of."""
        maps = self.norm(self.conv(x)).relu()
        return self.pool(maps).flatten(1), maps

    def example(self, n: int) -> Tensor:
        return torch.rand(n, 3, SIDE, SIDE)


class TinyStreams(nn.Module):
    """Two of them side by side: N x 48."""

    dim = 48

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList([TinyEncoder(), TinyEncoder()])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([net(x) for net in self.nets], 1)

    def streams(self) -> list[Stage]:
        return [Stage(net, dim=24) for net in self.nets]


class TinyClips(nn.Module):
    """The same for clips: N x T x 3 x H x W -> N x 24."""

    dim = 24

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 6, 3, stride=(1, 2, 2), padding=1, bias=False)
        self.norm = nn.BatchNorm3d(6)
        self.pool = nn.AdaptiveAvgPool3d((1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.norm(self.conv(x.transpose(1, 2))).relu()).flatten(1)

    def stages(self) -> list[Stage]:
        """The map of all places and times, and what becomes of it."""
        turned = Apply(lambda x: x.transpose(1, 2))
        return [
            Stage(turned, self.conv, self.norm, nn.ReLU(), dim=6),
            Stage(self.pool, nn.Flatten(), dim=self.dim),
        ]


FRAMES = 8
"""Of clips in small."""


SIDES: tuple[Literal["image"], Literal["table"]] = ("image", "table")
"""Of pairs in small."""


def each(view: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A view with each of its tensors changed."""
    if isinstance(view, Tensor):
        return change(view)
    if isinstance(view, dict):
        return {name: change(part) for name, part in view.items()}
    parts = {field.name: getattr(view, field.name) for field in fields(view)}
    return replace(view, **{name: change(part) for name, part in parts.items() if part is not None})


COLUMNS = Columns([*(Column(f"number {i}", gaps=i == 0) for i in range(6)), Column("kind", ("a", "b", "c"))])
"""Of the rows in small: ten inputs."""


class TinyRows(nn.Module):
    """The same for rows: N x 10 -> N x 24."""

    dim = 24

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(COLUMNS.width, self.dim, bias=False)
        self.norm = nn.BatchNorm1d(self.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.line(x)).relu()

    def captioner(self, reads: int, *, width: int, layers: int) -> Signs:
        return Signs(2, reads, COLUMNS.width, width=width, layers=layers)


class Signs(Captioner):
    """Writes which numbers of a row are above 0, as words; every other row ends a word early."""

    def written(self, view: Tensor) -> tuple[Tensor, Tensor]:
        return (view > 0).long(), view.shape[1] - torch.arange(len(view)) % 2


def captions(n: int, seed: int) -> list[str]:
    """N sentences with two nouns or more."""
    draw = random.Random(seed)
    nouns = ["dog", "boy", "hill", "boat", "lake", "car"]
    verbs = ["runs near", "jumps over", "sits by"]
    return [" ".join(["a", a, draw.choice(verbs), "the", b]) for a, b in (draw.sample(nouns, 2) for _ in range(n))]


def tiny_writer() -> Any:
    """A T5 of one layer of 16 without dropout, whose tokenizer knows these."""
    from nearfar.methods.calm import PROMPTS  # not at the top: transformers is an extra
    from nearfar.modalities.text.encoder import fresh
    from nearfar.modalities.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.learn([*captions(40, 0), *PROMPTS], 150, sentinels=4)
    return fresh("t5-1x16", tokenizer, pooler="avg", length=16, dropout=0.0)


@dataclass(frozen=True)
class Form:
    """A method with arguments small enough for a test, on one kind of data."""

    name: str
    arguments: dict[str, Any]
    changed: str = ""
    kind: Literal["image", "table", "pair", "text", "video"] = "image"

    def __str__(self) -> str:
        kind = f"-{self.kind}" if self.kind in ("table", "pair") else ""
        return f"{self.name}{self.changed and '-'}{self.changed}{kind}"

    def build(self, *, seed: int = 0, **arguments: Any) -> Method:
        """The method on a tiny encoder, in training mode, at epoch 0."""
        torch.manual_seed(seed)
        kind = methods.load(self.name)
        encoder, channels = (TinyStreams() if kind.needs_streams else TinyEncoder()), 3
        if self.kind == "table":
            encoder, channels = TinyRows(), COLUMNS.width
        if self.kind == "video":
            encoder = TinyClips()
        if self.kind == "pair":
            encoder, channels = Towers({"image": Wrapped(TinyEncoder(), {}), "table": Wrapped(TinyRows(), {})}), 0
        if self.kind == "text":
            encoder, channels = tiny_writer(), 0
        known = {"samples": 40, "classes": 3, "counts": (10, 10, 10), "channels": channels, "size": SIDE}
        method = methods.build(kind, encoder, self.arguments | arguments, **known)
        method.clock = clock(0)
        return method.train()

    def look(self, method: Method) -> Look:
        """A pass over the 40 samples of a training set."""
        dtype = next(method.parameters()).dtype
        view = each(self.plain_view(), lambda part: part.to(dtype) if part.is_floating_point() else part)
        index = torch.arange(40)
        return Look(lambda network: network(view), torch.where(index < 30, index % 3, MISSING), index % 2)

    def plain_view(self) -> Any:
        """Of the 40 samples."""
        if self.kind == "pair":
            return {side: replace(self, kind=side).plain_view() for side in SIDES}
        if self.kind == "text":
            return self.batch(40).views[0]
        of = {"image": image.plain(SIDE), "table": table.plain(COLUMNS), "video": video.plain(SIDE, FRAMES, 1)}
        plain = of[self.kind]
        (view,) = plain(*self.samples(40, torch.Generator().manual_seed(50)))
        return view

    def samples(self, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """N images of 3 x SIDE x SIDE, each noise about a color of its own, and aspects; or clips of such, or rows."""
        if self.kind == "table":
            numbers = torch.randn(n, 6, generator=generator)
            numbers[::7, 0] = math.nan
            return numbers, torch.randint(-1, 3, (n, 1), generator=generator)
        times = (FRAMES,) if self.kind == "video" else ()
        pixels = torch.randint(0, 200, (n, *times, 3, 1, 1), generator=generator)
        pixels = (pixels + torch.randint(0, 56, (n, *times, 3, SIDE, SIDE), generator=generator)).to(torch.uint8)
        return pixels, torch.ones(n, *(1 for _ in times))

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32, grouped: bool = False) -> Batch:
        """N samples, through the views that the method's recipe names; the last in four has no label.

        grouped: in threes, and every fifth alone.
        """
        # Views are most of what a step of a tiny method costs, and flags of a method change nothing in them.
        key = (self.name, self.kind, n, seed, grouped)
        if key not in _BATCHES:
            _BATCHES[key] = self._batch(n, seed, grouped)
        made = copy.deepcopy(_BATCHES[key])
        made.views = [each(view, lambda x: x.to(dtype) if x.is_floating_point() else x) for view in made.views]
        return made

    def _batch(self, n: int, seed: int, grouped: bool) -> Batch:
        if self.kind == "pair":
            made = {side: replace(self, kind=side).batch(n, seed=seed, grouped=grouped) for side in SIDES}
            views = zip(*(batch.views for batch in made.values()), strict=True)
            return replace(made["image"], views=[dict(zip(SIDES, view, strict=True)) for view in views])
        generator = torch.Generator().manual_seed(seed)
        views: Any = None
        given: tuple[Any, ...] = () if self.kind == "text" else self.samples(n, generator)
        if self.kind == "text":
            from nearfar.modalities.text.views import Sentences
            from nearfar.modalities.text.views import views as text_views

            views = text_views("concepts", tiny_writer().tokenizer, length=16)
            given = (Sentences(captions(n, seed)),)
        elif self.kind == "table":
            views = table.views("scarf", COLUMNS, self.samples(40, torch.Generator().manual_seed(50)))
        elif self.kind == "video":
            space = getattr(video_named, recipes.load("clips", self.name, "video").settings.views)(SIDE)
            views = video.ClipViews(space, frames=FRAMES, stride=1)
            given = *given[:1] * len(views), given[1].expand(-1, len(views))
        else:
            from nearfar.modalities.image.kind import (
                named_views,  # not at the top: the two ranks import this file and do without
            )

            views = named_views(recipes.load("small_images", self.name, "image").settings, SIDE)
        draws = views.draw(n, generator)
        seen = views(*given, draws=draws)
        places = views.places(*given, draws) if methods.load(self.name).needs_places else None
        label = torch.arange(n) % 3
        label[n - n // 4 :] = MISSING
        index = torch.arange(n)
        group = torch.where(index % 5 == 0, MISSING, index // 3) if grouped else None
        return Batch(seen, index, label, group, attribute=index % 2, places=places)


def forms() -> list[Form]:
    """Each method with its default flags, on each kind of data, and with each switch and choice set the other way."""
    return [form for name in methods.names() for form in _forms(name)]


def form(name: str, **arguments: Any) -> Form:
    """One method in small, with some arguments of one's own."""
    plain = next(_forms(name))
    return replace(plain, arguments=plain.arguments | arguments)


def _forms(name: str) -> Iterator[Form]:
    method, flags = methods.load(name), methods.flags(methods.load(name))
    plain = {flag: small(parameter.default) for flag, parameter in flags.items()}
    if method.needs_writer and not (find_spec("tokenizers") and find_spec("transformers")):
        return
    usual: Literal["image", "text", "pair", "video"] = "image"
    if method.needs_writer or method.needs_words or method.needs_frames:
        usual = "text" if method.needs_writer else "pair" if method.needs_words else "video"
    yield Form(name, plain, kind=usual)
    if method.needs_streams and not method.needs_words:
        yield Form(name, plain, kind="pair")
    elif not (method.needs_writer or method.needs_frames or method.needs_streams or method.needs_pixels):
        yield Form(name, plain, kind="table")
    for flag, parameter in flags.items():
        for value in others(parameter.default, parameter.annotation):
            yield Form(name, plain | {flag: value}, f"{flag}={value}", usual)


def small(value: Any) -> Any:
    """A whole number above 16 becomes four times its binary logarithm: small, and in the same order as before."""
    return 4 * round(math.log2(value)) if type(value) is int and value > 16 else value


def others(default: Any, annotation: Any) -> list[Any]:
    """What else a flag can be that makes another method of it: on for off, the other words, a number for none."""
    if isinstance(default, bool):
        return [not default]
    if get_origin(annotation) is Literal:
        return [word for word in get_args(annotation) if word != default]
    if default is None and get_origin(annotation) in (Union, types.UnionType):
        kind = next(kind for kind in get_args(annotation) if kind is not type(None))
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        return {float: [0.5], int: [4]}.get(kind, [])
    return [16] if type(default) is int and default == 0 else []


def clock(step: int) -> Clock:
    """Every step an epoch of its own, so that what starts at an epoch is soon met."""
    return Clock(step=step, steps=4 * OLD, epoch=step, epochs=4 * OLD, seed=1)


def sgd(method: Method, lr: float = 0.05) -> torch.optim.Optimizer:
    return optim.sgd([{"params": [p for p in method.parameters() if p.requires_grad]}], lr)


def step(method: Method, optimizer: torch.optim.Optimizer, batch: Batch, net: nn.Module | None = None) -> Step:
    """One step as `nearfar.training.loop` makes it, without the numbers; the clock is the caller's."""
    return loop.step(method, batch, optimizer, net=net).out


def grown(form: Form, *, dtype: torch.dtype = torch.float32) -> Method:
    """The method after a step in its first epoch and some when all has started and every small memory is full."""
    key = f"{form} {form.arguments}"
    if key not in _GROWN:
        _GROWN[key] = _grow(form)
    return copy.deepcopy(_GROWN[key]).to(dtype)


_GROWN: dict[str, Method] = {}
_BATCHES: dict[tuple[Any, ...], Batch] = {}


def _grow(form: Form) -> Method:
    method = form.build()
    optimizer = sgd(method)
    for number, time in enumerate([0, *range(OLD, OLD + 5)]):
        method.clock = clock(time)
        start_epoch(method, form.look(method))
        step(method, optimizer, form.batch(16, seed=100 + number))
    method.clock = clock(OLD + 5)
    return method


def copied_state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def norms(module: nn.Module) -> dict[str, nn.Module]:
    """The norm layers that keep running statistics, by path."""
    return {path: m for path, m in module.named_modules() if getattr(m, "running_mean", None) is not None}


def statistics(module: nn.Module) -> set[str]:
    """The keys of the state dict that hold running statistics."""
    return {f"{path}.{name}" for path, norm in norms(module).items() for name, _ in norm.named_buffers(recurse=False)}


def freeze_norms(method: Method) -> None:
    """Norm layers use their running statistics: no row feels another but through the loss."""
    for norm in norms(method).values():
        norm.eval()


def rows_of_rank(batch: Batch) -> Batch:
    known = [None if known is None else local(known) for known in (batch.group, batch.attribute)]
    views, places = [each(view, local) for view in batch.views], batch.places and [local(x) for x in batch.places]
    return Batch(views, local(batch.index), local(batch.label), *known, places)
