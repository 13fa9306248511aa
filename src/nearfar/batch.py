"""What a method sees of the data: the views of some samples, and what is known of each sample.

A view is a tensor, or a dict or dataclass of views: text is token numbers and a mask, a graph is nodes and edges. The
functions below are all that the library asks of one, besides the encoder that takes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nearfar.errors import UserError, WrongType

MISSING = -1
"""The label, group or attribute of a sample without one. Users' own labels, -1 included, are names, numbered from 0."""


@dataclass(slots=True)
class Batch:
    """Some samples, seen V times.

    views: V views; a view is whatever the encoder takes, with N samples along its first dimension.
    index: N, int64, the position of each sample in its data set.
    label: N, int64, the class of each sample, or MISSING.
    group: N, int64, what must not be pushed apart (clip, patient, duplicates), or MISSING; None where there are none.
    attribute: N, int64, a second label (a bias, a camera, a domain), or MISSING; None where there are none.
    places: of each view, for methods that ask for it, where in the sample it lies: N x 2 x 3, the affine map from
        places in the view, -1 to 1 across and down, to those in the sample, where a unit is as long across as down.
    """

    views: list[Any]
    index: Tensor
    label: Tensor
    group: Tensor | None = None
    attribute: Tensor | None = None
    places: list[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.index)


class View(Protocol):
    """What a class of views may do in its own way. Every method is optional.

    Without them, each field is a view with N samples along the first dimension of its tensors, or None. A class that
    pads sentences needs a `cat` that pads them alike. A class of graphs, whose tensors hold a row for each node, needs
    `count`, `cat` and `select`, which shift the indices of nodes; `split` then follows from `select`.
    """

    def count(self) -> int:
        """N, the number of samples."""
        ...

    def cat(self, others: Sequence[Any]) -> Any:
        """The samples of this view and those of others, as one view."""
        ...

    def select(self, index: Tensor) -> Any:
        """Some samples, in the order of `index` (int64), which may name one twice."""
        ...

    def split(self, sizes: Sequence[int]) -> Sequence[Any]:
        """The samples as several views that hold so many each."""
        ...

    def to(self, device: torch.device) -> Any:
        """The view on another device."""
        ...

    def pin(self) -> Any:
        """The view in pinned memory, from which a copy to a GPU need not be waited for."""
        ...


def size(view: Any) -> int:
    """The number of samples in a view. Raises ValueError where its parts disagree."""
    if isinstance(view, Tensor):
        return len(view)
    if _own(view, "count"):
        return view.count()
    sizes = {name: size(part) for name, part in _parts(view).items() if part is not None}
    if len(set(sizes.values())) != 1:
        counts = ", ".join(f"{name} {count}" for name, count in sizes.items()) or "it has no parts"
        raise UserError(f"the parts of a view must hold the same samples along their first dimension, not {counts}")
    return next(iter(sizes.values()))


def cat(views: Sequence[Any]) -> Any:
    """The samples of several views as one view. Raises ValueError where they cannot be joined: see `layout`."""
    first = views[0]
    if len({layout(view) for view in views}) > 1:
        kinds = "; ".join(str(layout(view)) for view in views)
        raise UserError(
            f"views of different shapes cannot be joined: {kinds}. Pad them alike, or give their class a method `cat`"
        )
    if isinstance(first, Tensor):
        return torch.cat(list(views))
    if _own(first, "cat"):
        return first.cat(views[1:])
    parts = {name: [_parts(view)[name] for view in views] for name in _parts(first)}
    return _with(first, {name: None if part[0] is None else cat(part) for name, part in parts.items()})


def layout(view: Any) -> Hashable:
    """What views have in common that `cat` can join: their form, and the shapes of their tensors but for N."""
    if view is None or isinstance(view, Tensor):
        return None if view is None else (tuple(view.shape[1:]), view.dtype)
    if _own(view, "cat"):
        return type(view)
    return type(view), tuple((name, layout(part)) for name, part in _parts(view).items())


def split(view: Any, parts: int | Sequence[int]) -> list[Any]:
    """The samples of a view as several views: as so many of nearly equal size, or of the sizes given."""
    if isinstance(parts, int):
        least, more = divmod(size(view), parts)
        parts = [least + (number < more) for number in range(parts)]
    if isinstance(view, Tensor):
        return list(view.split(list(parts)))
    if _own(view, "split"):
        return list(view.split(parts))
    if _own(view, "select"):
        return [select(view, index) for index in torch.arange(size(view)).split(list(parts))]
    pieces = {name: [None] * len(parts) if part is None else split(part, parts) for name, part in _parts(view).items()}
    return [_with(view, {name: piece[number] for name, piece in pieces.items()}) for number in range(len(parts))]


def select(view: Any, index: Tensor) -> Any:
    """Some samples of a view, in the order of `index` (int64)."""
    if isinstance(view, Tensor):
        return view[index]
    if _own(view, "select"):
        return view.select(index)
    return _with(view, {name: part if part is None else select(part, index) for name, part in _parts(view).items()})


def to(view: Any, device: torch.device | str, *, non_blocking: bool = False) -> Any:
    """A view on another device. non_blocking: do not wait for the copy, where it is from pinned memory."""
    if isinstance(view, Tensor):
        return view.to(device, non_blocking=non_blocking)
    if _own(view, "to"):
        return view.to(torch.device(device))
    parts = _parts(view).items()
    moved = {name: part if part is None else to(part, device, non_blocking=non_blocking) for name, part in parts}
    return _with(view, moved)


def pin(view: Any) -> Any:
    """A view in pinned memory; what lies on a device stays there."""
    if isinstance(view, Tensor):
        return view.pin_memory() if view.device.type == "cpu" else view
    if _own(view, "pin"):
        return view.pin()
    return _with(view, {name: part if part is None else pin(part) for name, part in _parts(view).items()})


def tensors(view: Any) -> Iterator[Tensor]:
    """The tensors of a view, in the order of its fields."""
    if isinstance(view, Tensor):
        yield view
    elif isinstance(view, Mapping) or dataclasses.is_dataclass(view):
        for part in _parts(view).values():
            yield from tensors(part)
    elif view is not None:
        yield from (part for part in vars(view).values() if isinstance(part, Tensor))


def _own(view: Any, name: str) -> bool:
    # Of the class, not of the object: a field may have any name.
    return callable(getattr(type(view), name, None))


def _parts(view: Any) -> dict[str, Any]:
    if isinstance(view, Mapping):
        return dict(view)
    if dataclasses.is_dataclass(view):
        return {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    raise WrongType(
        f"a view is a tensor, or a dict or a dataclass of tensors, not {type(view).__name__}: "
        "make it one of these, or give its class the methods of nearfar.batch.View"
    )


def _with(view: Any, parts: dict[str, Any]) -> Any:
    """A view of the same form with other parts."""
    form: Any = type(view)
    return form(parts) if isinstance(view, Mapping) else dataclasses.replace(view, **parts)
