"""Figures on one page that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files

from mulle.core.records.base import Json

__all__ = ["figures_page"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}}</style>
<script>{plotly}</script></head><body><h1>{title}</h1>{body}
<script>for (const [id, f] of Object.entries({figures})) Plotly.newPlot(id, f.data, f.layout, {{displayModeBar: false}})</script>
</body></html>
"""


def figures_page(title: str, body: str, figures: Mapping[str, Json]) -> str:
    """Render figures, and what follows them.

    Parameters
    ----------
    title : str
    body : str
        HTML.
    figures : mapping
        Name to Plotly's ``data`` and ``layout``.

    Returns
    -------
    str
        HTML; plotly.js is inside.
    """
    return _PAGE.format(
        title=escape(title),
        plotly=(files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8"),
        body="".join(f'<div id="{name}"></div>' for name in figures) + body,
        figures=json.dumps(figures).replace("</", "<\\/"),
    )
