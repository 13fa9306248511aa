"""Pages from templates, with all that a page needs inside it.

Jinja2 escapes whatever a template is given: names and labels come from users' files. A page is one file; its content
security policy lets no script run but the two that nearfar puts there, and lets nothing be fetched.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from nearfar.files import replace
from nearfar.report import numbers

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def write(target: Path, template: str, page: object, script_data: object, *, script: str = "") -> Path:
    """Make a page and put it at `target` in one move, so that a reader never meets half of it. Arguments: `render`."""
    text = render(template, page, script_data, script=script)
    # A file name that is not UTF-8 holds surrogates, which no page can: each becomes a question mark.
    return replace(target, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="replace"))


def render(template: str, page: object, script_data: object, *, script: str = "") -> str:
    """A page as text. page: what the template shows.  script_data: JSON that page.js reads: {"curves", "map"}.

    script: the one script, a file beside page.js, of a page that needs neither that nor Plotly.
    """
    scripts = _alone(script) if script else _scripts()
    # Eval is what Plotly's WebGL plots are made with.
    evaluates = "" if script else " 'unsafe-eval'"
    policy = (
        "default-src 'none'; img-src data: blob:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src {scripts.hashes}{evaluates}"
    )
    return environment().get_template(template).render(page=page, policy=policy, scripts=scripts, data=script_data)


@cache
def environment() -> Environment:
    """The templates in report/templates."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("nearfar.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": numbers.number,
        "signed": numbers.signed,
        "thousands": "{:,}".format,
        "interval": numbers.interval,
        "duration": numbers.duration,
        "code_parts": numbers.code_parts,
    }
    # For the filter `tojson`, which also writes < > & ' as escapes, so that no name can end the script element.
    made.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    return made


@dataclass(frozen=True)
class _Scripts:
    """plotly: compressed by gzip, as base64; the page unpacks it.  hashes: of both as they are run."""

    plotly: Markup
    own: Markup
    hashes: str


@cache
def _scripts() -> _Scripts:
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    plotly, own = get_plotlyjs(), resources.files("nearfar.report").joinpath("page.js").read_text("utf-8")
    # Safe: both are files of installed packages, and nothing of a user's is put into them.
    packed = base64.b64encode(gzip.compress(plotly.encode(), mtime=0)).decode()
    return _Scripts(Markup(packed), Markup(own), f"{_hash(plotly)} {_hash(own)}")


@cache
def _alone(script: str) -> _Scripts:
    from markupsafe import Markup

    own = resources.files("nearfar.report").joinpath(script).read_text("utf-8")
    return _Scripts(Markup(""), Markup(own), _hash(own))  # as safe as the others: a file of this package


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
