"""A run's search as one page that needs no network: history, parameters of each candidate, and what made the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from mulle.core.records.base import Json
from mulle.loop.views.figures import inspection_figures, search_figures
from mulle.surfaces.figures_page import figures_page

__all__ = ["search_page"]


def search_page(run: Json, importance: Mapping[str, Mapping[str, float]]) -> str:
    """Render the page.

    Parameters
    ----------
    run : dict
        With ``id``, ``model`` and ``trials``, as a run is shown; what its ``evaluation`` found of the winner follows.
    importance : mapping
        Candidate to parameter to share, as `lifecycle.training.importance` gives it.

    Returns
    -------
    str
        HTML; plotly.js is inside.
    """
    trials: Sequence[Json] = run["trials"]
    of_winner = inspection_figures((run.get("evaluation") or {}).get("inspection"))
    figures = search_figures(trials, importance) | of_winner
    return figures_page(f"Search of {run['model']}, run {run['id']}", _failures(trials), figures)


def _failures(trials: Sequence[Json]) -> str:
    lost = [t for t in trials if t["score"] is None]
    if not lost:
        return ""
    rows = "".join(
        f"<tr><td>{t['number']}</td><td>{escape(t['candidate'])}</td><td>{escape(t.get('failure') or t['state'])}</td>"
        f"<td>{escape(t.get('reason', ''))}</td></tr>"
        for t in lost
    )
    return f"<h2>Trials without a score</h2><table><tr><th>trial</th><th>candidate</th><th>why</th><th></th></tr>{rows}</table>"
