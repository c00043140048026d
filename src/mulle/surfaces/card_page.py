"""A model version's card as one page that needs no network: its figures drawn, its Markdown as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from itertools import groupby

from mulle.core.records.base import Json
from mulle.loop.views.figures import inspection_figures
from mulle.surfaces.figures_page import figures_page

__all__ = ["card_page"]

_CODE = re.compile(r"`([^`]*)`")
_CELL = re.compile(r"(?<!\\)\|")


def card_page(card: Json) -> str:
    """Render the page.

    Parameters
    ----------
    card : dict
        ``model``, ``version``, ``card`` (Markdown) and ``inspection`` (or None), as `loop.models.card_view` gives it.

    Returns
    -------
    str
        HTML; plotly.js is inside.

    Examples
    --------
    >>> "<h2>Figures</h2>" in card_page({"model": "m", "version": 1, "card": "## Figures", "inspection": None})
    True
    """
    body = "".join(_blocks(card["card"].splitlines()))
    return figures_page(f"{card['model']}@{card['version']}", body, inspection_figures(card["inspection"]))


def _blocks(lines: list[str]) -> Iterator[str]:
    # The card has headings, lists, tables and paragraphs, and nothing else.
    for kind, group in groupby(lines, _kind):
        found = list(group)
        if kind == "heading":
            for line in found:
                level = len(line) - len(line.lstrip("#"))
                yield f"<h{level}>{_inline(line.lstrip('# '))}</h{level}>"
        elif kind == "list":
            yield "<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in found) + "</ul>"
        elif kind == "table":
            yield _table([_cells(line) for line in found])
        elif kind == "text":
            yield f"<p>{_inline(' '.join(found))}</p>"


def _kind(line: str) -> str:
    if not line.strip():
        return ""
    return {"#": "heading", "-": "list", "|": "table"}.get(line[0], "text")


def _cells(line: str) -> list[str]:
    return [_inline(cell.strip().replace("\\|", "|")) for cell in _CELL.split(line)[1:-1]]


def _table(rows: list[list[str]]) -> str:
    head, body = rows[0], [row for row in rows[1:] if set("".join(row)) != {"-"}]
    lines = ["".join(f"<th>{cell}</th>" for cell in head), *("".join(f"<td>{cell}</td>" for cell in row) for row in body)]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))
