"""How a model is searched for: the rows kept back, how trials are scored, the budget, and which past is trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from mulle.core.clock import duration
from mulle.core.declare.candidates import Candidate
from mulle.core.declare.names import columns
from mulle.core.errors import DeclarationError

__all__ = [
    "ALL", "Holdout", "Search", "Validation", "Window", "expanding", "groups", "holdout", "kfold", "sliding", "stratified",
    "window",
]  # fmt: skip

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(KB|MB|GB)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """The rows kept for the last word: the latest `span` by time, a random share, or a share of the groups in `by`.

    With `most`, a span is no more than that share of the time from the first row to the last.
    """

    span: timedelta | None
    share: float
    by: tuple[str, ...] = ()
    most: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How training rows are split once more to score trials.

    Attributes
    ----------
    kind : str
        ``expanding``, ``sliding``, ``groups``, ``stratified`` or ``kfold``.
    folds : int
    by : tuple of str
        Raw columns whose values together name a group.
    span : timedelta or None
        What a sliding fold is trained on.
    """

    kind: str
    folds: int
    by: tuple[str, ...] = ()
    span: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """The past that is trained on: the latest `span` of the training rows, or all of them.

    Attributes
    ----------
    label : str
        As it was declared, and as settings record it.
    """

    label: str
    span: timedelta | None


ALL = Window("all", None)
"""All training rows."""


@dataclass(frozen=True, slots=True, init=False)
class Search:
    """A search over candidates within a budget.

    Parameters
    ----------
    candidates : iterable of Candidate
    trials : int
        At most so many trials.
    timeout : str
        At most so long, for the whole search; not used on a replay clock, where trials alone bound it.
    ensemble : int
        At most so many members; 1 is no ensemble. One is kept only when it beats the best single model.
    validation : Validation, optional
        How trials are scored; by default once, on the latest fifth by time, else on a random fifth.
    parallel : int
        Trials at once, each in a process of its own.
    trial_timeout : str, optional
        At most so long for one trial.
    memory : str, optional
        At most so much for one trial's process, such as ``"2GB"``.
    prune : bool
        Try on a ninth and a third of the rows first, and stop what is not among the best third there.

    Raises
    ------
    DeclarationError
        On what is no candidate, one that stands twice, a number below 1 or a size that cannot be read.

    Examples
    --------
    >>> from mulle.core.declare.candidates import lightgbm, ridge
    >>> Search([lightgbm(), ridge()], trials=5, timeout="30s", memory="2GB").memory
    2000000000
    """

    candidates: tuple[Candidate, ...]
    trials: int
    timeout: timedelta
    ensemble: int
    validation: Validation | None
    parallel: int
    trial_timeout: timedelta | None
    memory: int | None
    prune: bool

    def __init__(
        self,
        candidates: Iterable[Candidate] = (),
        *,
        trials: int = 20,
        timeout: str | timedelta = "60s",
        ensemble: int = 1,
        validation: Validation | None = None,
        parallel: int = 1,
        trial_timeout: str | timedelta | None = None,
        memory: str | int | None = None,
        prune: bool = False,
    ) -> None:
        if validation is not None and not isinstance(validation, Validation):
            raise DeclarationError(
                f"validation is a {type(validation).__name__}", next="write validation=ml.expanding(folds=3), or ml.kfold(5)"
            )
        values = {
            "candidates": _candidates(candidates),
            "trials": _at_least(1, trials, "trials"),
            "timeout": duration(timeout),
            "ensemble": _at_least(1, ensemble, "ensemble"),
            "validation": validation,
            "parallel": _at_least(1, parallel, "parallel"),
            "trial_timeout": None if trial_timeout is None else duration(trial_timeout),
            "memory": memory if memory is None or isinstance(memory, int) else _size(memory),
            "prune": prune,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def apart(self) -> bool:
        """Whether trials run in processes of their own from the first."""
        return self.parallel > 1 or self.trial_timeout is not None or self.memory is not None


def _candidates(given: Iterable[Candidate]) -> tuple[Candidate, ...]:
    found: list[Candidate] = []
    for candidate in given:
        if not isinstance(candidate, Candidate):
            raise DeclarationError(
                f"the candidate {candidate!r} is none",
                next="write ml.lightgbm(), or ml.custom(factory) around an estimator's class",
            )
        if candidate in found:
            raise DeclarationError(
                f"the candidate {candidate.kind} stands twice, alike", next="leave one out, or fix a parameter of one of them"
            )
        found.append(candidate)
    return tuple(found)


def holdout(span: str | timedelta | float = 0.2, *, by: str | Iterable[str] | None = None) -> Holdout:
    """Keep the last `span` by time, or a share of the rows at random; with `by`, a share of the groups, whole.

    Raises
    ------
    DeclarationError
        On a share outside 0 to 1, or groups that are split by time.

    Examples
    --------
    >>> holdout("14d").span.days, holdout(0.25).share, holdout(0.2, by="customer").by
    (14, 0.25, ('customer',))
    """
    if not isinstance(span, float):
        if by is not None:
            raise DeclarationError("a holdout is by time or by group, not both", next='write ml.holdout(0.2, by="customer")')
        return Holdout(span=duration(span), share=0.2)
    if not 0 < span < 1:
        raise DeclarationError(f"a holdout of {span:g} of the rows", next="give a share between 0 and 1")
    return Holdout(span=None, share=span, by=columns(by))


def expanding(folds: int = 3) -> Validation:
    """Score trials on consecutive blocks of time, each by a model of all that came before.

    Examples
    --------
    >>> expanding(4).folds
    4
    """
    return Validation(kind="expanding", folds=_at_least(2, folds, "folds"))


def sliding(span: str | timedelta, folds: int = 3) -> Validation:
    """Score trials on consecutive blocks of time, each by a model of the `span` just before.

    Examples
    --------
    >>> sliding("90d").span.days
    90
    """
    return Validation(kind="sliding", folds=_at_least(2, folds, "folds"), span=duration(span))


def groups(by: str | Iterable[str], folds: int = 5) -> Validation:
    """Score trials on rows whose group (a raw column's value, or several columns') the model has not seen.

    Examples
    --------
    >>> groups("customer").by
    ('customer',)
    """
    return Validation(kind="groups", folds=_at_least(2, folds, "folds"), by=columns(by))


def stratified(folds: int = 5) -> Validation:
    """Score trials on random folds in which each class, or each range of the target, has its share.

    Examples
    --------
    >>> stratified().folds
    5
    """
    return Validation(kind="stratified", folds=_at_least(2, folds, "folds"))


def kfold(folds: int = 5) -> Validation:
    """Score trials on random folds.

    Examples
    --------
    >>> kfold(10).folds
    10
    """
    return Validation(kind="kfold", folds=_at_least(2, folds, "folds"))


def window(span: str) -> Window:
    """Train on the latest `span` of the training rows only.

    Examples
    --------
    >>> window("180d").span.days
    180
    """
    return Window(span, duration(span))


def _at_least(least: int, value: int, name: str) -> int:
    if value < least:
        raise DeclarationError(f"{name}={value}", next=f"give {least} or more")
    return value


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise DeclarationError(f"the size {text!r} cannot be read", next='write "500MB" or "2GB"')
    return int(float(found[1]) * _UNITS[found[2]])
