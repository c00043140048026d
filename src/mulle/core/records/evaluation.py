"""Stage 4's records: what was measured of a challenger, with how sure that is, and where it is weak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "Calibration", "CalibrationBin", "CurvePoint", "Dependence", "Evaluation", "Failures", "Importance", "Inspection", "Measured",
    "Service", "WeakSlice",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Metrics of some rows.

    Attributes
    ----------
    metrics : mapping
        Metric to value.
    intervals : mapping
        Metric to its 95% interval (low, high); not every metric need have one.
    failed : mapping
        Metric of the project's own to what went wrong with it.
    """

    rows: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeakSlice:
    """Rows of one column's value (or range) on which the model is worse than on the rest, beyond noise.

    Attributes
    ----------
    column, value : str
        Of a range, ``[low, high)`` with the ends in the column's units.
    metric : str
        The loss whose means `inside` and `outside` are: ``mae`` or ``log_loss``.
    worse, low : float
        `inside` less `outside`, and the lower bound of that, corrected for how many slices were looked at.
    """

    column: str
    value: str
    rows: int
    metric: str
    inside: float
    outside: float
    worse: float
    low: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Rows whose probability lies in [low, high): what was said on average, and how often it came true."""

    low: float
    high: float
    rows: int
    said: float
    observed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How far answers are from what is observed, on average.

    Attributes
    ----------
    error : float
        For classes the expected calibration error over `bins`; for regression `bias` in standard deviations of the
        target, without its sign.
    brier : float or None
        For classes.
    bias : float or None
        For regression: the mean of answer less truth, in the target's units.
    """

    rows: int
    error: float
    brier: float | None = None
    bias: float | None = None
    bins: tuple[CalibrationBin, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """What hostile rows did to the served path.

    Attributes
    ----------
    rows : int
        Tried.
    answered, refused : int
        Of them; the contract refused, naming row and field.
    failed : dict
        Kind of hostility to the first failure in words.
    """

    rows: int
    answered: int
    refused: int
    failed: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a model costs to serve, inside the runtime, the model on one thread; None is not measured.

    Attributes
    ----------
    p50_seconds, p99_seconds : float or None
        Of `answers` one-row answers: transform, encoding and model.
    rows_per_second : float or None
        In a batch of `batch_rows`.
    peak_bytes : int or None
        The most that a process of its own held while it loaded the bundle and answered that batch.
    bundle_bytes : int or None
    """

    p50_seconds: float | None = None
    p99_seconds: float | None = None
    answers: int = 0
    rows_per_second: float | None = None
    batch_rows: int = 0
    peak_bytes: int | None = None
    bundle_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much worse answers become when a feature's values are dealt out anew among the rows.

    Attributes
    ----------
    column : str
        Of the feature function's output; all columns of the matrix that are made of it are shuffled as one.
    worse, low, high : float
        Mean loss with the feature shuffled less the mean loss without, and the 95% interval of that.
    """

    column: str
    worse: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependence:
    """What the model answers on average when every row has the same value of one feature.

    Attributes
    ----------
    column : str
    kind : str
        ``number``, ``category`` or ``time``.
    at : tuple of str
        The values, ascending; of a category the most frequent ones.
    answers : mapping
        The target's name (or each class) to the mean answer (or probability) at each value.
    """

    column: str
    kind: str
    at: tuple[str, ...]
    answers: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """What the winner's settings reach when they are fitted on so many rows: mean loss there and on the holdout."""

    rows: int
    train: float
    holdout: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a model's answers rest on.

    Attributes
    ----------
    metric : str
        The loss that importance and curve are in: ``mae`` or ``log_loss``.
    rows, repeats : int
        Rows of the holdout that were shuffled, and how often.
    importance : tuple of Importance
        The largest first.
    dependence : tuple of Dependence
        Of the most important features.
    curve : tuple of CurvePoint
        Fewest rows first; the last one is the model itself.
    notes : tuple of str
        What was left out, and why.
    """

    metric: str
    rows: int
    repeats: int
    importance: tuple[Importance, ...]
    dependence: tuple[Dependence, ...]
    curve: tuple[CurvePoint, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was measured of a run's winner on the holdout, as people are told it.

    Attributes
    ----------
    metrics, intervals : mapping
        As in `Measured`; `rows` of the holdout.
    slices : mapping
        Column that a gate asked for to value to what was measured.
    weak_slices : tuple of WeakSlice
        Found without being asked for, worst first.
    train : Measured
        On rows that the model was fitted on.
    calibrations : mapping
        Number of bins, as text, to what was measured.
    inspection : Inspection or None
        None where the run was told to leave it out.
    """

    rows: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    slices: dict[str, dict[str, Measured]]
    weak_slices: tuple[WeakSlice, ...]
    train: Measured
    calibrations: dict[str, Calibration]
    inspection: Inspection | None = None
