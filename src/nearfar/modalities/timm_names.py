"""The networks of timm by their names. Free of torch, and of timm, which takes seconds to import."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from nearfar.errors import UserError


@cache
def timm_names() -> frozenset[str]:
    """The networks of timm, those of older names too, as they stand in its sources."""
    found = find_spec("timm")
    names: set[str] = set()
    for path in Path(found.origin or "").parent.glob("models/*.py") if found else ():
        text = path.read_text(encoding="utf-8")
        names.update(re.findall(r"^@register_model\s*\n(?:@.*\n)*def (\w+)\(", text, re.MULTILINE))
        for block in re.findall(r"register_model_deprecations\(__name__, \{(.*?)\}", text, re.DOTALL):
            names.update(re.findall(r"['\"](\w+)['\"]\s*:", block))
    return frozenset(names)


def insist_network(name: str, ours: Sequence[str] = ()) -> None:
    """Raise ValueError where no network is called so. ours: networks that a kind has besides those of timm."""
    names = timm_names()
    own = sys.modules.get("timm")  # which may know more, of the user's own
    if name in ours or not names or name.partition(".")[0] in names or (own and own.is_model(name)):
        return
    close = get_close_matches(name, [*ours, *sorted(names)], n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() shows them all"
    known = f"{', '.join(ours)} and " if ours else ""
    raise UserError(f'no encoder is called "{name}" ({known}the {len(names)} networks of timm are): {hint}')
