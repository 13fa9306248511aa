"""Changes of named views by words such as `rotate=90`: which there are, in which ranges, and the changed views.

Free of torch until views are changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from nearfar.errors import UserError
from nearfar.ranges import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveShare,
    Range,
    UnitInterval,
    fits,
    wanted,
)
from nearfar.settings import meant

if TYPE_CHECKING:
    from nearfar.modalities.image.plan import View
    from nearfar.modalities.image.views import Views

Hue = Annotated[float, Range(ge=0, le=0.5)]
Angle = Annotated[float, Range(ge=0, le=180)]
Slant = Annotated[float, Range(ge=0, lt=90)]
Switch = Annotated[int, Range(ge=0, le=1)]


class Change(NamedTuple):
    """hint: the type of its value, with its range.  pair: whether it is the ends of a range, LOW,HIGH; one number
    stands for both.  about: what it is, in words."""

    hint: Any
    about: str
    pair: bool = False


CHANGES = {
    "area": Change(PositiveShare, "share of the image that a crop takes; 1 is all of it", pair=True),
    "ratio": Change(PositiveFloat, "width over height of a crop", pair=True),
    "flip": Change(UnitInterval, "probability of a mirror image"),
    "vflip": Change(UnitInterval, "probability of a view upside down"),
    "quarter_turns": Change(Switch, "1 turns by 0, 90, 180 or 270 degrees, each as likely; 0 does not"),
    "rotate": Change(Angle, "largest angle of a rotation either way, in degrees"),
    "scale": Change(PositiveFloat, "factor of a zoom", pair=True),
    "shear": Change(Slant, "largest angle of a shear either way, in degrees"),
    "shift": Change(UnitInterval, "largest shift either way, as a share of the side"),
    "fill": Change(
        UnitInterval, "value of what rotate, scale, shear and shift uncover; mirrored where views have none"
    ),
    "color": Change(NonNegativeFloat, "how strong all color changes are, as a multiple of the views' own; 0 for none"),
    "jitter": Change(UnitInterval, "probability that brightness, contrast, saturation and hue change"),
    "brightness": Change(NonNegativeFloat, "largest change of the brightness"),
    "contrast": Change(NonNegativeFloat, "largest change of the contrast"),
    "saturation": Change(NonNegativeFloat, "largest change of the saturation"),
    "hue": Change(Hue, "largest change of the hue, in turns of the color wheel"),
    "gray": Change(UnitInterval, "probability of a gray view"),
    "blur": Change(UnitInterval, "probability of a blur"),
    "sigma": Change(PositiveFloat, "standard deviation of the blur, in pixels", pair=True),
    "solarize": Change(UnitInterval, "probability that bright values are inverted"),
    "cutout": Change(UnitInterval, "probability that a square is covered by the view's mean color"),
    "hole": Change(PositiveShare, "side of that square, as a share of the view's"),
    "randaugment": Change(Annotated[int, Range(ge=0, le=8)], "operations of RandAugment"),
    "magnitude": Change(Annotated[int, Range(ge=0, le=30)], "strength of each of them"),
}
"""What can be changed of views, by name."""

AFFINE = ("rotate", "scale", "shear", "shift", "fill")
STRENGTHS = ("brightness", "contrast", "saturation", "hue")
NEEDS = {"hole": "cutout", "magnitude": "randaugment", "sigma": "blur"}
"""What says how, and what says whether at all."""


def parsed(texts: Sequence[str], flag: str = "--set") -> dict[str, Any]:
    """The values that words such as `area=0.2,1` give, by name; a later one replaces an earlier.

    Raises ValueError for a name that is not among `CHANGES`, and for a value out of its range.
    """
    values = {}
    for text in texts:
        name, mark, given = text.partition("=")
        if not mark:
            raise UserError(f"{flag} {text!r}: NAME=VALUE is wanted, such as rotate=90")
        if name not in CHANGES:
            raise UserError(
                f"{flag} {text!r}: of views can be changed {', '.join(CHANGES)}, and no {name!r}{meant(name, CHANGES)}"
            )
        values[name] = _value(CHANGES[name], given, f"{flag} {text!r}")
    return values


def _value(change: Change, given: str, said: str) -> Any:
    parts = [_number(part) for part in given.split(",")]
    if len(parts) > 1 + change.pair or not all(fits(part, change.hint) for part in parts):
        form = "LOW,HIGH or one number, each " if change.pair else ""
        raise UserError(f"{said}: {form}{wanted(change.hint)} is needed ({change.about})")
    if not change.pair:
        return parts[0]
    if parts[0] > parts[-1]:
        raise UserError(f"{said}: the lower end comes first, {parts[-1]:g},{parts[0]:g}")
    return parts[0], parts[-1]


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def changed(views: Views, texts: Sequence[str], named: str) -> Views:
    """The views with changes. Of several views those in which nothing is random stay as they are.

    texts: as `parsed` takes them.  named: what the views are called.
    Raises ValueError for a change that would change nothing, as no view does what it is about.
    """
    from nearfar.modalities.image.views import Views

    values = parsed(texts)
    if not values:
        return views
    kept = [view.fixed and not all(other.fixed for other in views.views) for view in views.views]
    _insist_seen([view for view, stays in zip(views.views, kept, strict=True) if not stays], values, named)
    return Views(
        [view if stays else _changed(view, values) for view, stays in zip(views.views, kept, strict=True)],
        views.shared,
    )


def _changed(view: View, values: dict[str, Any]) -> View:
    from nearfar.modalities.image.plan import Affine

    own = {name: value for name, value in values.items() if name not in (*AFFINE, "color", "quarter_turns")}
    if "color" in values:
        times = values["color"]
        own = {name: times * getattr(view, name) for name in STRENGTHS} | own
        if own["hue"] > 0.5:
            raise UserError(
                f"--set color={times:g}: the hue would change by {own['hue']:g} turns of the color wheel, and 0.5 is "
                "all of it: give less, or --set hue=0.5 too"
            )
        own = {"gray": min(1.0, times * view.gray)} | own
    if "quarter_turns" in values:
        own["quarter_turns"] = bool(values["quarter_turns"])
    if mapped := {name: values[name] for name in AFFINE if name in values}:
        own["affine"] = replace(view.affine or Affine(fill=None), **mapped)
    return replace(view, **own)


def _insist_seen(views: Sequence[View], values: dict[str, Any], named: str) -> None:
    """Raise ValueError for a change of what no view does."""
    after = [_changed(view, values) for view in views]
    for how, whether in NEEDS.items():
        if how in values and not any(getattr(view, whether) for view in after):
            raise UserError(f"--set {how}: the views {named!r} have no {whether}: give --set {whether}=… too")
    strengths = [name for name in STRENGTHS if values.get(name)]
    if strengths and not any(view.jitter for view in after):
        raise UserError(
            f"--set {strengths[0]}: the views {named!r} never change colors: give --set jitter=0.8 too, the probability"
        )
    if values.get("jitter") and not any(getattr(view, name) for view in after for name in STRENGTHS):
        raise UserError(f"--set jitter: the views {named!r} have no strengths of colors: give --set brightness=0.4 too")
    if values.get("color") and not any(getattr(v, n) for v in views for n in (*STRENGTHS, "gray")):
        raise UserError(
            f"--set color: the views {named!r} change no colors, and a multiple of nothing is nothing: give jitter, "
            "brightness, contrast, saturation, hue"
        )
    if "fill" in values and not any(name in values for name in AFFINE[:-1]) and not any(view.affine for view in views):
        raise UserError(f"--set fill: the views {named!r} uncover nothing: give --set rotate=… too")
    if "ratio" in values and not any(view.area for view in after):
        raise UserError(f"--set ratio: the views {named!r} do not crop: give --set area=… too")
