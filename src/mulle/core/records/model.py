"""Stage 5's record: a model version, with the bundle that is served and the proof that it may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from mulle.core.records.base import Cause

__all__ = ["ModelVersion", "Parity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Proof that the served path (JSON in, transform, compiled model) answers like the fitted pipeline.

    Attributes
    ----------
    tolerance, scale : float
        A row agrees when ``|a - b| <= tolerance * scale``; scale is the target's standard deviation, 1 for
        probabilities.
    rows : int
        Rows compared.
    worst : float
        Largest ``|a - b| / scale``.
    outside : float
        Share of rows that do not agree, 0 to 1.
    """

    tolerance: float
    scale: float
    rows: int
    worst: float
    outside: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A registered version of a model; numbered from 1.

    Attributes
    ----------
    run : str
        The run that made it.
    bundle : str
        Content hash of the bundle; `address` is its folder.
    compiled : str
        ``onnx`` or ``native``.
    metrics : dict
        On the holdout, by the fit before the refit.
    features : tuple of str
        Names of the model's inputs after the transform, in order.
    data : dict
        Dataset name to version.
    data_cutoff, refit_cutoff : datetime
        Until when the evaluated fit and the served refit saw outcomes.
    tracking : dict
        MLflow's ids: ``run_id``, ``name``, ``version``.
    """

    id: str
    created_at: datetime
    causes: tuple[Cause, ...]
    model: str
    version: int
    run: str
    bundle: str
    address: str
    compiled: str
    parity: Parity | None
    metrics: dict[str, float]
    size_bytes: int
    features: tuple[str, ...]
    data: dict[str, int]
    data_cutoff: datetime
    refit_cutoff: datetime
    tracking: dict[str, str] = field(default_factory=dict)
