"""One section of the page: an anchor, a heading and HTML; each is made by a module of its own from a `Study`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from vlmbench.reporting import text, wording


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: Its id, for links.
        title: Its heading.
        body: HTML below the heading.
    """

    anchor: str
    title: str
    body: Markup


def rendered(template: str, **context: Any) -> Markup:
    """Render a template beside this module; plain text in the context is escaped."""
    return Markup(environment().get_template(template).render(context))  # noqa: S704 - the template has escaped it


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """The templates and the filters by which all of them print numbers."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "value": text.value_text,
        "signed": text.signed_text,
        "count": text.count_text,
        "rate": text.rate_text,
        "seconds": text.seconds_text,
        "bytes": text.bytes_text,
        "percent": text.percent_text,
        "words": text.name_text,
        "breakable": text.breakable,
        "p_value": wording.p_number,
    }
    made.globals |= {"interval": text.interval_text, "source": _source, "method": text.method_text}
    return made


def _source(name: str) -> Markup:
    """A style sheet or script of ours as it stands, for the inside of its element."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))  # noqa: S704 - our own
