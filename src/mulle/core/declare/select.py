"""Which features a model keeps: declared beside the search, chosen on the training rows alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from mulle.core.errors import DeclarationError

__all__ = ["By", "Select", "select"]

By = Literal["importance", "mutual_information"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """How features are chosen; a feature is kept when every bound that is given keeps it, the best one always.

    Attributes
    ----------
    by : {"importance", "mutual_information"}
        What a feature's score is: its share of the gain of a quick LightGBM (0 to 1, all together 1), or its mutual
        information with the target in nats, less what chance gives.
    top : int or None
        At most so many, the best ones.
    share : float or None
        As few of the best as hold this share of all scores.
    at_least : float or None
        Those whose score is not less.
    """

    by: By
    top: int | None
    share: float | None
    at_least: float | None


def select(top: int | None = None, share: float | None = None, by: By = "importance", at_least: float | None = None) -> Select:
    """Keep the features that tell most about the target.

    They are chosen on the training rows, before the search; the holdout has no say. The feature function still runs
    whole, and what it gives beside the kept features does not reach the model.

    Parameters
    ----------
    top : int, optional
        At most so many.
    share : float, optional
        As few as hold this share of all scores, above 0 up to 1.
    by : {"importance", "mutual_information"}
    at_least : float, optional
        Those whose score is not less: a share of the gain (0 to 1), or nats.

    Raises
    ------
    DeclarationError
        When no bound is given, or one that nothing can meet.

    Examples
    --------
    >>> select(top=10).by
    'importance'
    >>> select(by="mutual_information", at_least=0.01).at_least
    0.01
    """
    if by not in get_args(By):
        raise DeclarationError(f"select: unknown score {by!r}", next=f"choose from {', '.join(get_args(By))}")
    if top is None and share is None and at_least is None:
        raise DeclarationError("select: nothing says how many features to keep", next="give top=, share= or at_least=")
    if top is not None and top < 1:
        raise DeclarationError(f"select: top is {top}", next="keep at least one feature")
    if share is not None and not 0 < share <= 1:
        raise DeclarationError(f"select: share is {share}", next="give a share above 0 and up to 1, such as 0.95")
    if at_least is not None and not at_least >= 0:
        raise DeclarationError(f"select: at_least is {at_least}", next="scores are not negative: give 0 or more")
    return Select(by=by, top=top, share=share, at_least=at_least)
