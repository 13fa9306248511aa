"""Which number is white: decided once for all images of a data set, so that none depends on what is beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from nearfar.data.labels import some
from nearfar.errors import UserError
from nearfar.modalities.image.pixels import SLACK, Form, Whites, likely_white, unclear

Asked = float | Literal["measured"] | Whites | None
"""What a user says of white: the number, or the highest there is, or the numbers of other data; None leaves it open."""

Span = tuple[float, float]

_HAVE: dict[Form, str] = {
    "deep": "have 16 bits a channel",
    "whole": "have whole numbers of a type that does not say which is white",
    "floats": "have floats",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """Of an image: its lowest and highest number, and the highest of its square, of 255."""

    low: float
    high: float
    brightest: int


@dataclass(slots=True)
class Scale:
    """How the numbers of images become 8 bits.

    forms: of the numbers of each image that has more than 8 bits, by position.  whites: what becomes 255.
    bad: why other images have no place on it.  seen: what was found in each, once it is decoded.
    """

    asked: Asked
    forms: dict[int, Form]
    whites: Whites
    bad: dict[int, str]
    seen: dict[int, Seen] = field(default_factory=dict)

    def notes(self, names: list[str]) -> list[str]:
        """What was made of which numbers, and where that does not fit."""
        if not self.forms and not self.bad:
            return unused(self.asked, len(names))
        return [self._note(form, names) for form in _HAVE if form in self.forms.values()]

    def _note(self, form: Form, names: list[str]) -> str:
        rows = [i for i, other in self.forms.items() if other == form and i in self.seen]
        white, highest = self.whites.get(form), max((self.seen[i].high for i in rows), default=0.0)
        if isinstance(self.asked, Mapping) and form in self.asked:
            how = "as in training"
        elif self.asked == "measured":
            how = "the highest value there is"
        elif isinstance(self.asked, int | float):
            how = "as asked for"
        else:
            how = "the range of their type" if form == "deep" else f"by all of them together, up to {highest:,g}"
        note = (
            f"{len(rows)} of {len(names)} images {_HAVE[form]}; they are scaled to 8, 0 to {white or 65535:,g} ({how}) "
            "to 0 to 255."
        )

        def which(test: Callable[[Seen], bool]) -> str:
            found = [repr(names[i]) for i in rows if test(self.seen[i])]
            return f"{len(found)} ({some(found)})" if found else ""

        brightest = max((self.seen[i].brightest for i in rows), default=0)
        if white is None and 0 < brightest < 64:
            note += f" None is above about {257 * brightest:,}, so they are dark: try --white {257 * brightest}."
        elif self.asked is None and form != "deep" and brightest < 64 and highest > 0:
            note += f" None is above {highest:,g}, so they are dark: try --white {highest:g}."
        elif dark := which(lambda seen: seen.brightest <= 1 and seen.high > 0):
            note += f" Nearly black by that: {dark}; --white sets another number."
        if white is not None and (above := which(lambda seen: seen.high > white)):
            note += f" Cut off at white: {above}, with numbers up to {highest:,g}."
        if below := which(lambda seen: seen.low < 0):
            note += f" Cut off at black: {below}, with numbers down to {min(self.seen[i].low for i in rows):,g}."
        return note


def unused(asked: Asked, n: int) -> list[str]:
    """The note on a white that was asked for where all n images have 8 bits."""
    if asked is None or isinstance(asked, Mapping):
        return []
    return [f"--white {asked} changes nothing: all {n} images have 8 bits a number, 0 to 255."]


def to_measure(forms: dict[int, Form], asked: Asked) -> list[int]:
    """The images whose lowest and highest number must be known before there is a scale."""
    if asked == "measured":
        return list(forms)
    given = asked if isinstance(asked, Mapping) else {} if asked is None else _HAVE
    return [i for i, form in forms.items() if form != "deep" and form not in given]


def scale(
    given: str, names: list[str], forms: dict[int, Form], asked: Asked, measured: Mapping[int, Span | str]
) -> Scale:
    """One scale for each form of numbers.

    given: the data, for messages.  measured: what `to_measure` names, or why it could not be had.
    Raises ValueError where some floats are from 0 to 1 and others from 0 to 255.
    """
    bad = {i: result for i, result in measured.items() if isinstance(result, str)}
    spans = {i: result for i, result in measured.items() if not isinstance(result, str)}
    if asked != "measured":
        bad |= {i: why for i, span in spans.items() if (why := unclear(forms[i], *span))}
    whites: dict[str, float] = dict(asked) if isinstance(asked, Mapping) else {}
    if isinstance(asked, int | float):
        whites = {form: float(asked) for form in _HAVE}
    for form in _HAVE:
        mine = {i: span for i, span in spans.items() if forms[i] == form and i not in bad}
        if not mine:
            continue
        if asked == "measured":
            whites[form] = max(high for _, high in mine.values()) or 1.0
            continue
        whites[form] = likely_white(form, mine.values())
        small = [i for i, (_, high) in mine.items() if 0 < high <= 1 + SLACK]
        if form == "floats" and whites[form] == 255 and small:
            large = max(mine, key=lambda i: mine[i][1])
            raise UserError(
                f"The floats of '{given}' have no scale in common: {len(small)} of {len(mine)} images go up to 1 (such "
                f"as {names[small[0]]!r}), others up to {mine[large][1]:,g} (such as {names[large]!r}). Bring them to "
                "one, or say which number is white: --white 255, or --white 1."
            )
    return Scale(asked, {i: form for i, form in forms.items() if i not in bad}, whites, bad)
