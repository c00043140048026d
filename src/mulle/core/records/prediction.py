"""Stage 6's records: a prediction and its late label. They live in the lake, never in the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from mulle.core.records.base import Json

__all__ = ["ASIDE", "LABELS", "PREDICTIONS", "Label", "Prediction"]

PREDICTIONS = "predictions"
"""The lake's table of predictions, partitioned by day."""

LABELS = "labels"
"""The lake's table of labels, partitioned by day."""


ASIDE = ("shadow", "pinned", "forced", "refused")
"""Routes of rows that say nothing of how the deployment serves: not given out, asked of one version by name, or refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answered row; canary and shadow scores of the same row share its `request` id.

    Attributes
    ----------
    route : str
        ``champion``, ``canary`` or ``shadow``; shadow answers were never returned. ``pinned`` where the request named a
        version that is not in force, ``forced`` where an operator named the route, ``refused`` where there was no answer.
    key : dict
        The dataset's key columns.
    time : datetime
        The row's own time.
    features : dict
        The transform's output, as the model saw it.
    value : float or str
        The answer (a label for classifiers).
    unseen : tuple of str
        Features whose category was never seen in training.
    """

    id: str
    created_at: datetime
    request: str
    model: str
    version: int
    route: str
    key: Json
    time: datetime
    row: Json
    features: Json
    value: float | str
    probabilities: dict[str, float] = field(default_factory=dict)
    freshness: dict[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The true outcome, told later by prediction id or by key and time.

    Attributes
    ----------
    value : float, str or None
        None says that none will come, and `reason` why.
    known_at : datetime
        When the outcome became known.
    """

    id: str
    created_at: datetime
    model: str
    prediction_id: str | None
    key: Json
    time: datetime | None
    value: float | str | None
    reason: str
    known_at: datetime
    by: str = ""
