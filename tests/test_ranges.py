from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pytest

from nearfar import methods, modalities
from nearfar.cli import demo, doctor, embeddings, evaluate, explore, generate, runs, studies, train, use, views
from nearfar.cli import fewlabels as cli
from nearfar.fewlabels import settings as few
from nearfar.memory.bank import Bank
from nearfar.memory.class_queue import ClassQueue
from nearfar.memory.prototypes import Prototypes
from nearfar.memory.queue import Queue
from nearfar.method import Encoder, Method
from nearfar.methods.mochi import MoCHi
from nearfar.methods.moco import MoCo
from nearfar.nn.heads import simclr_head
from nearfar.ranges import (
    Checked,
    FiniteFloat,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Range,
    Seed,
    UnitInterval,
    bounds,
    checked,
    fits,
    unchecked,
    wanted,
)
from nearfar.studies import asked
from nearfar.training import plan as plans
from tests.methods.small import TinyEncoder as Net
from tests.methods.small import form

if TYPE_CHECKING:
    from pathlib import PurePath


def numbers(hint: Any) -> list[Any]:
    """The types of numbers inside a type, each with its range, if it declares one."""
    if typing.get_origin(hint) is Annotated and typing.get_args(hint)[0] in (int, float):
        return [hint]
    return [hint] if hint in (int, float) else [n for inner in typing.get_args(hint) for n in numbers(inner)]


def outside(hint: Any) -> list[Any]:
    """Values that a declared number must not take: just beyond each end, none at all, and no number of this kind."""
    kind, *parts = typing.get_args(hint)
    (range_,) = [part for part in parts if isinstance(part, Range)]
    step = 1 if kind is int else 1e-3
    values: list[Any] = [] if range_.ge is None else [range_.ge - step]
    values += [] if range_.gt is None else [range_.gt, range_.gt - step]
    values += [] if range_.le is None else [range_.le + step]
    values += [] if range_.lt is None else [range_.lt, range_.lt + step]
    return [*values, math.nan, math.inf, -math.inf, 10**400, "many", True, *([1.5] if kind is int else [])]


def wrong(hint: Any) -> list[Any]:
    """Values that an argument must not take, whatever it is; a number without a range fails."""
    declared = numbers(hint)
    for number in declared:
        assert typing.get_origin(number) is Annotated, f"a number without a range: {hint}"
        assert any(isinstance(part, Range) for part in typing.get_args(number)[1:]), f"no range: {hint}"
    values = [value for number in declared for value in outside(number)]
    if typing.get_origin(hint) is tuple and declared:
        values = [(value,) * max(1, len(typing.get_args(hint)) - (... in typing.get_args(hint))) for value in values]
    if hint is bool:
        values = ["yes", 1, None]
    if typing.get_origin(hint) is Literal:
        values = ["something else", 7]
    return values


@pytest.mark.parametrize("name", methods.names())
def test_every_argument_of_every_method_declares_a_range_and_keeps_it(name: str) -> None:
    for flag, parameter in methods.flags(methods.load(name)).items():
        assert fits(parameter.default, parameter.annotation)
        for number, value in enumerate(wrong(parameter.annotation)):
            with pytest.raises(ValueError, match=rf"^--{flag.replace('_', '-')} "):
                plans.make(name, "drawings", "small_images", {flag: value})
            if not number:  # the constructor asks the same function
                with pytest.raises(ValueError, match=rf"\b{flag} "):
                    form(name, **{flag: value}).build()


SETTINGS = [
    *(modalities.entry(kind).Settings for kind in modalities.names()),
    *(few.FinetuneSettings, few.DistillSettings, few.LabelPlanSettings, asked.Compare, asked.Helps, asked.Transfer),
    *(use.Embed, evaluate.Evaluate, use.Report, use.Export, cli.Predict, train.Place, views.Sheet, doctor.Doctor),
    *(demo.Demo, cli.Finetune, cli.Distill, cli.PlanLabels, studies.Compare, studies.Helps, studies.Transfer),
    *(use.Checkpoints, use.LookAt, generate.Generate, embeddings.Search, embeddings.Duplicates, embeddings.Outliers),
    *(embeddings.Curate, embeddings.FindSuspects, explore.Explore, runs.Runs, runs.Card),
]
GIVEN = {"data": "x", "methods": ("simclr", "moco"), "run": "x", "classifier": "x", "directory": "x", "query": "x"} | {
    "keep": 5,
    "runs": ("x",),
    "to": "x",
    "out": "x",
}


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_setting_declares_a_range_and_keeps_it(kind: type[Checked]) -> None:
    assert issubclass(kind, Checked)
    hints = typing.get_type_hints(kind, include_extras=True)
    given = GIVEN | ({"data": ("x",)} if kind is cli.Predict else {})
    needed = {f.name: given.get(f.name) for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    for field in dataclasses.fields(kind):
        for value in wrong(hints[field.name]):
            with pytest.raises(ValueError, match=rf"^--{field.name.replace('_', '-')} "):
                kind(**needed | {field.name: value})


def test_every_class_of_flags_is_among_them() -> None:
    modules = (demo, doctor, embeddings, evaluate, explore, generate, runs, studies, train, use, views, cli, few, asked)
    for module in modules:
        own = {v for v in vars(module).values() if dataclasses.is_dataclass(v) and v.__module__ == module.__name__}
        above = {base for kind in SETTINGS for base in kind.__mro__}
        assert own - {doctor.Advised} <= above  # which holds no flags


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: MoCo(Net(), temperature=0), "MoCo: temperature 0: a number above 0"),
        (lambda: MoCo(Net(), head="mpl"), "MoCo: head 'mpl': one of mlp, linear"),  # pyright: ignore[reportArgumentType]
        (lambda: MoCHi(Net(), momentum=2), "MoCHi: momentum 2: a number of 0 to 1"),
        (lambda: Queue(-1, 4), "Queue: size -1"),
        (lambda: Queue(4, 0), "Queue: dim 0"),
        (lambda: ClassQueue(0, 1, 4), "ClassQueue: classes 0"),
        (lambda: Bank(3, 0), "Bank: dim 0"),
        (lambda: Prototypes(0, 3), "Prototypes: count 0"),
        (lambda: simclr_head(4, out=0), r"mlp: dims \(4, 4, 0\)"),
    ],
)
def test_parts_that_are_built_by_hand(make: Callable[[], Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}"):
        make()


def test_a_method_of_ones_own_gets_it_for_nothing() -> None:
    class Mine(Method):
        def __init__(
            self, encoder: Encoder, *, path: PurePath | None = None, scale: PositiveFloat = 1.0, loose: float = 1.0
        ) -> None:
            super().__init__(encoder)
            self.scale = scale

    assert Mine(Net(), path=3, scale=np.float32(2)).scale == 2  # a type that only type checkers see passes
    with pytest.raises(ValueError, match=r"^Mine: scale 0"):
        Mine(Net(), scale=0)
    with pytest.raises(ValueError, match=r"^Mine: loose nan"):
        Mine(Net(), loose=math.nan)
    with pytest.raises(TypeError, match="unexpected keyword argument 'scael'"):
        Mine(Net(), scael=1)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (PositiveFloat, [1, 1e-30, np.float64(0.5), 3e38], [0, -1, 1e-40, 1e39, math.nan, "1", None, True]),
        (NonNegativeFloat, [10**12], [-(10**12)]),
        (UnitInterval, [0, 1, 0.5], [-1e-9, 1.0000001]),
        (PositiveInt, [1, np.int64(3), 2**31 - 1], [0, 1.0, True, 2**31]),
        (Seed, [0, 2**63 - 1], [-1, 2**63]),
        (FiniteFloat, [-5, 0.0], [math.inf]),
        (Annotated[float, Range(lt=3)], [2.9, -7], [3]),
        (PositiveFloat | None, [None, 1], [0, "x"]),
        (tuple[PositiveInt, NonNegativeFloat], [(1, 0), [2, 0.5]], [(1,), (0, 1), 3, "ab"]),
        (tuple[PositiveInt, ...], [(), (1, 2)], [(1, 0)]),
        (Literal["a", 1], ["a", 1], ["b", True, 1.0]),
        (bool, [True], [1, "no", None]),
        (str, ["x"], [3, None]),
        (Any, [object()], []),
    ],
)
def test_what_fits(hint: Any, good: list[Any], bad: list[Any]) -> None:
    assert all(fits(value, hint) for value in good)
    assert not any(fits(value, hint) for value in bad)
    assert wanted(hint)


@pytest.mark.parametrize(
    ("hint", "words"),
    [(PositiveFloat | None, "above 0"), (UnitInterval, "0 to 1"), (PositiveInt, "1 or more"), (float, "")],
)
def test_ranges_in_words(hint: Any, words: str) -> None:
    assert bounds(hint) == words


def test_functions_and_fields_are_checked_when_it_is_time() -> None:
    @checked
    def add(a: PositiveInt, /, b: UnitInterval = 0.5, *rest: int, **more: Any) -> float:
        return a + b + len(rest) + len(more)

    assert add(1, 0.5, -7, x=-3) == 3.5
    with pytest.raises(ValueError, match=r"^add: b 2: a number of 0 to 1"):
        add(1, b=2)

    with unchecked():
        bad = few.FinetuneSettings(lr=-1.0)
    with pytest.raises(ValueError, match=r"^--lr -1\.0"):
        bad.check()
    with pytest.raises(ValueError, match=r"^--lr -2\.0"):
        dataclasses.replace(bad, lr=-2.0)
