"""Plotly figures inside the page: drawn when they scroll into view, filtered by cell, with their numbers as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

# Pixels; as tall as plotly draws a figure that does not say.
HEIGHT = 450


def figure(
    traces: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any],
    *,
    caption: str,
    described: str,
    table: Markup | None = None,
) -> Markup:
    """HTML of one figure.

    Args:
        traces: Plotly traces as plain dicts. A trace whose points are cells names them in `ids`, the identity of each
            point's record, or several with a space between them, so that the filters of the page reach it.
        layout: Plotly's layout without colours of page, text and grid, which follow light and dark. Of all strings
            only a `hovertemplate` may hold markup; a name in the others is drawn as it is written.
        caption: What is drawn, in a sentence, for everybody.
        described: What it shows, for those who cannot see it.
        table: The same numbers as HTML, folded below the figure.
    """
    # "<" could end the script element, or begin a comment in it.
    data = json.dumps(_literal({"data": list(traces), "layout": dict(layout)}), allow_nan=False).replace("<", "\\u003c")
    folded = Markup("<details><summary>The numbers</summary>{}</details>").format(table) if table else Markup()
    return Markup(
        '<figure class="plot"><div class="canvas" role="img" aria-label="{}" style="min-height:{}px"></div>'
        '<script type="application/json">{}</script><figcaption>{}</figcaption>{}</figure>'
    ).format(escape(described), int(layout.get("height", HEIGHT)), Markup(data), escape(caption), folded)  # noqa: S704 - JSON, made safe above


def _literal(value: Any) -> Any:
    """Strings such that plotly, which takes some HTML in every text, shows them as they are."""
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;")
    if isinstance(value, Mapping):
        return {key: one if key in ("hovertemplate", "ids") else _literal(one) for key, one in value.items()}
    return [_literal(one) for one in value] if isinstance(value, list | tuple) else value
