"""What an argument may be: its range is declared in its type, and checked where a value is given. Free of torch.

    def __init__(self, encoder, *, dim: PositiveInt = 128, lam: Annotated[float, Range(ge=0, lt=0.5)] = 0.2): ...

`checked` checks the arguments of a function, `Checked` the fields of a dataclass. Types other than numbers, flags,
texts and choices, such as modules and arrays, are not checked.
"""

from __future__ import annotations

import functools
import inspect
import os
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union

from nearfar.errors import UserError

LARGEST_INT = 2**31 - 1
"""The end of ranges of whole numbers that name none: nothing that is counted comes near it."""

SMALLEST, LARGEST = 2.0**-126, 3.4e38
"""The sizes of numbers in single precision: what is smaller is 0 there, and what is larger infinite."""

F = TypeVar("F", bound=Callable[..., Any])

_CHECKS = ContextVar("_CHECKS", default=True)


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `ge` or above `gt`, to `le` or below `lt`."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __contains__(self, value: Any) -> bool:
        if not abs(value) <= LARGEST:  # so is NaN
            return False
        value = 0 if abs(value) < SMALLEST else value
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        low = f"above {self.gt}" if self.gt is not None else f"{self.ge}" if self.ge is not None else ""
        high = f"below {self.lt}" if self.lt is not None else f"{self.le}" if self.le is not None else ""
        if low and high:
            return f"{low} to {high}"
        return f"{low} or more" if self.ge is not None else f"{high} or less" if self.le is not None else low or high


PositiveInt = Annotated[int, Range(ge=1)]
NonNegativeInt = Annotated[int, Range(ge=0)]
AtLeastTwo = Annotated[int, Range(ge=2)]
Seed = Annotated[int, Range(ge=0, le=2**63 - 1)]
FiniteFloat = Annotated[float, Range()]
PositiveFloat = Annotated[float, Range(gt=0)]
NonNegativeFloat = Annotated[float, Range(ge=0)]
UnitInterval = Annotated[float, Range(ge=0, le=1)]
AtMostHalf = Annotated[float, Range(ge=0, le=0.5)]
PositiveShare = Annotated[float, Range(gt=0, le=1)]
ShareBelowOne = Annotated[float, Range(ge=0, lt=1)]
Percent = Annotated[float, Range(ge=0, le=100)]
Cosine = Annotated[float, Range(ge=-1, le=1)]


def check(name: str, value: Any, hint: Any) -> None:
    """Raise ValueError where a value is not of a type and in its range. name: what the message calls it."""
    if not fits(value, hint):
        shown = repr(value)
        raise UserError(f"{name} {shown if len(shown) < 100 else f'{shown[:99]}…'}: {wanted(hint)} is needed")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type and in its range. Any value fits a type that is not checked."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        ranges = [part for part in inner[1:] if isinstance(part, Range)]
        if not fits(value, inner[0]) or not all(value in part for part in ranges):
            return False
        return inner[0] is not int or abs(value) <= LARGEST_INT or any(part.le is not None for part in ranges)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin in (tuple, list, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return False
        each = inner[:1] * len(value) if origin is not tuple or inner[1:] == (...,) else inner
        return len(each) == len(value) and all(map(fits, value, each))
    if hint in (int, float):
        kind = Integral if hint is int else Real
        return isinstance(value, kind) and not isinstance(value, bool) and (hint is int or value in Range())
    if hint is str:
        return isinstance(value, str | os.PathLike)
    return isinstance(value, hint) if hint in (bool, NoneType) else True


def wanted(hint: Any) -> str:
    """What a type takes, in words, such as "a number above 0"."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        if not (ends := bounds(hint)):
            return wanted(inner[0])
        words = "a number" if inner[0] is float else wanted(inner[0])
        return f"{words} {'' if ends.startswith(('above', 'below')) else 'of '}{ends}"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, UnionType):
        return " or ".join("none" if one is NoneType else wanted(one) for one in inner)
    if origin in (tuple, list, Sequence):
        return f"a list, each of it {wanted(inner[0])}," if inner else "a list"
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))


def bounds(hint: Any) -> str:
    """The range that a type declares, in words; "" where it declares none."""
    inner = typing.get_args(hint)
    parts = inner[1:] if typing.get_origin(hint) is Annotated else ()
    own = [str(part) for part in parts if isinstance(part, Range)]
    return " ".join(own) or next(filter(None, map(bounds, inner)), "")


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What a function takes, with types in place of their texts; Any where a type is known to type checkers alone."""

    def typed(parameter: inspect.Parameter) -> inspect.Parameter:
        hint = parameter.annotation
        try:
            hint = eval(hint, inspect.unwrap(function).__globals__) if isinstance(hint, str) else hint
        except NameError:
            hint = Any
        return parameter.replace(annotation=hint)

    return {name: typed(parameter) for name, parameter in inspect.signature(function).parameters.items()}


def constructor(kind: type) -> dict[str, inspect.Parameter]:
    """What a constructor takes; where it passes on `**others`, also what the constructor above it takes."""
    known: dict[str, inspect.Parameter] = {}
    for above in kind.__mro__:
        if "__init__" in vars(above):
            own = parameters(vars(above)["__init__"])
            passed_on = [name for name, p in own.items() if p.kind is p.VAR_KEYWORD]
            known |= {name: p for name, p in own.items() if name not in (*known, *passed_on)}
            if not passed_on:
                break
    return known


def _check_call(name: str, known: dict[str, inspect.Parameter], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    for argument, value in (dict(zip(known, args, strict=False)) | kwargs).items():
        parameter = known.get(argument)
        if parameter is not None and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            check(f"{name}: {argument}", value, parameter.annotation)


def checked(function: F) -> F:
    """The same function, which raises ValueError for an argument that is not in the range that its type declares."""
    name = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _check_call(name, parameters(function), args, kwargs)
        return function(*args, **kwargs)

    return call  # pyright: ignore[reportReturnType]


def checked_constructor(init: F) -> F:
    """The same constructor, which checks what the class that is built is given, and not what it passes on."""

    @functools.wraps(init)
    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        kind = type(self)
        if kind.__init__ is call:
            _check_call(kind.__name__, constructor(kind), (self, *args), kwargs)
        init(self, *args, **kwargs)

    return call  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A dataclass whose fields are checked when it is made. Messages call each by its flag."""

    def __post_init__(self) -> None:
        if _CHECKS.get():
            self.check()

    def check(self) -> None:
        """Raise ValueError where a field, or one of a field that is `Checked` itself, is not in its range."""
        known = _field_types(type(self))
        for field in fields(self):
            value = getattr(self, field.name)
            check(flag(field.name), value, known[field.name])
            if isinstance(value, Checked):
                value.check()


@contextmanager
def unchecked() -> Iterator[None]:
    """Within: what is `Checked` is not checked when it is made, but when `check` is called."""
    before = _CHECKS.set(False)
    try:
        yield
    finally:
        _CHECKS.reset(before)


@functools.cache
def _field_types(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def flag(name: str) -> str:
    """An argument as it stands on the command line."""
    return f"--{name.replace('_', '-')}"
