"""The contract inside a bundle (``bundle.json``): all that serving needs to know, without the project."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mulle.core.records.base import Json
from mulle.core.records.model import Parity

__all__ = ["FORMAT", "Contract", "FeatureSpec", "InputField", "JoinSpec"]

FORMAT = 3
"""Version of the bundle's layout; a reader refuses a later one.

Since 2 a bundle carries ``sample.json``; since 3 a feature may become several columns (`FeatureSpec.source`).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputField:
    """A raw column that a request carries.

    Attributes
    ----------
    type : str
        ``FP64``, ``INT64``, ``BOOL``, ``BYTES`` (text) or ``TIME`` (RFC 3339): the Open Inference Protocol's names,
        and ``TIME``, which travels as ``BYTES``.
    dtype : str
        The Polars dtype that the transform sees: ``Float64``, ``Int64``, ``Boolean``, ``String`` or
        ``Datetime(us, UTC)``.
    required : bool
        A request without the field is refused; null is allowed all the same unless it is a key.
    """

    name: str
    type: str
    dtype: str
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinSpec:
    """A join as serving reads it from the online store.

    Attributes
    ----------
    name : str
        Joined columns appear to the transform as ``name.column``.
    kind : str
        ``lookup``, ``asof`` or ``history``.
    dataset : str
        Where the values come from.
    table : str
        The online store's table; derived from the definition, so that a changed definition is another table.
    on : tuple of str
        The columns that make the key, in the order of the table's key text: the request's own, or ``join.column`` of a
        join that comes earlier in the contract.
    columns : dict
        Joined column (without prefix) to Polars dtype as text.
    within, window, every : timedelta in microseconds, or None
        As declared, by kind.
    """

    name: str
    kind: str
    dataset: str
    table: str
    on: tuple[str, ...]
    columns: dict[str, str]
    within_us: int | None = None
    window_us: int | None = None
    every_us: int | None = None

    @property
    def within(self) -> timedelta | None:
        """`within_us` as a timedelta."""
        return None if self.within_us is None else timedelta(microseconds=self.within_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """A column of the matrix that a model takes, and how it comes from the transform's output.

    Attributes
    ----------
    name : str
        Unique; the transform's column by itself, or ``column: part`` where it becomes several.
    kind : str
        ``number`` (float32; null becomes NaN), ``category`` (position in `categories` as float32; a value never
        seen in training is -1, null is NaN), ``part`` of a time (`part` is year, month, day, weekday or hour, in UTC),
        ``item`` of an array or list (number `position`, from 0), ``term`` of a text (how often the term `part` occurs times
        its `weight`, each row's terms divided by their Euclidean length; a text without any is 0, null is NaN).
    categories : tuple of str
        The vocabulary of a category.
    source : str
        The transform's column, where it is not `name`.
    part : str
    position : int
    weight : float
        Of a term: its inverse document frequency.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()
    source: str = ""
    part: str = ""
    position: int = 0
    weight: float = 1.0

    @property
    def column(self) -> str:
        """The transform's column that it is made of."""
        return self.source or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a bundle promises.

    Attributes
    ----------
    key, time : columns of a request
        Written to the prediction log; labels are joined by them.
    transform : dict
        ``function`` (name in ``transform/project.py``), ``hash`` of its source and joins, ``code`` of the snapshot.
    compiled : str
        ``onnx`` or ``native``.
    scale : float
        Standard deviation of the training target (1 for classes).
    settings : dict
        The winner's candidate and parameters, for the card and for reproduction.
    """

    format: int
    model: str
    task: str
    target: str
    classes: tuple[str, ...]
    dataset: str
    key: tuple[str, ...]
    time: str | None
    inputs: tuple[InputField, ...]
    joins: tuple[JoinSpec, ...]
    features: tuple[FeatureSpec, ...]
    transform: dict[str, str]
    compiled: str
    parity: Parity | None
    scale: float
    run: str
    data: dict[str, int]
    data_cutoff: datetime
    refit_cutoff: datetime
    metrics: dict[str, float] = field(default_factory=dict)
    settings: Json = field(default_factory=dict)
