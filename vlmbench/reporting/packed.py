"""Makes a page small: identities become short numbers, and long data and plotly's script are compressed in place."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Mapping
from functools import lru_cache

from markupsafe import Markup

# Data of more characters than this are compressed; a browser takes some milliseconds for each.
PLAIN = 20_000

_CELLS = re.compile(r'(?<=data-cells=")[0-9a-f ]+(?=")')
_ROW = re.compile(r'(?<=\[")[0-9a-f]{64}(?: [0-9a-f]{64})*(?=")')
_IDS = re.compile(r'(?<="ids": \[)[^\]]*(?=\])')
_SCRIPT = re.compile(r'<script type="application/json"( class="rows")?>(.*?)</script>', re.DOTALL)
_HASH = re.compile(r"[0-9a-f]{64}")


def shrink(body: str, numbers: Mapping[str, int]) -> Markup:
    """A section's HTML, smaller and with the same meaning for the script of the page.

    Args:
        body: HTML that names records by identity in `data-cells`, in the rows of long tables and in `ids` of figures.
        numbers: Identity to its number among the cells of the page.
    """

    def numbered(found: re.Match[str]) -> str:
        return _HASH.sub(lambda one: str(numbers.get(one[0], one[0])), found[0])

    def script(found: re.Match[str]) -> str:
        data = (_ROW if found[1] else _IDS).sub(numbered, found[2])
        kind = found[1] or ""
        if len(data) <= PLAIN:
            return f'<script type="application/json"{kind}>{data}</script>'
        return f'<script type="application/gzip"{kind}>{packed(data)}</script>'

    return Markup(_SCRIPT.sub(script, _CELLS.sub(numbered, body)))  # noqa: S704 - what came in was safe


def packed(text: str) -> str:
    """Gzip, as base64; the same text gives the same bytes."""
    return base64.b64encode(gzip.compress(text.encode("utf-8", errors="replace"), 6, mtime=0)).decode()


@lru_cache(maxsize=1)
def plotly_script() -> Markup:
    """plotly.js, compressed: the page runs it once a figure comes into view."""
    from plotly.offline import get_plotlyjs

    return Markup('<script type="application/gzip" id="plotly">{}</script>').format(packed(get_plotlyjs()))
