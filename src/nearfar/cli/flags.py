"""From the words of a call to a checked dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import tyro

from nearfar.ranges import Checked, unchecked

C = TypeVar("C", bound=Checked)


def parsed(kind: type[C], name: str, argv: Sequence[str], *, description: str | None = None) -> C:
    """The flags of `nearfar NAME`. Exits where they are unknown or no numbers, or where help is asked for.

    Raises ValueError for a value that is out of its range.
    """
    with unchecked():  # tyro would show an error of a value in a box, whose lines cut it anywhere
        call = tyro.cli(
            kind,
            args=argv,
            prog=f"nearfar {name}",
            description=description,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )
    call.check()
    return call
