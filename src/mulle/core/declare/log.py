"""What of a model's answers is logged, and for how long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from mulle.core.clock import duration
from mulle.core.errors import DeclarationError

__all__ = ["Log"]


@dataclass(frozen=True, slots=True, init=False)
class Log:
    """What of a model's answers is logged, and for how long.

    Parameters
    ----------
    sample : float
        Share of the keys (of requests, where rows have no key) whose rows are logged, above 0 and up to 1. Whether a key is
        one of them never changes. While several versions score the same rows all of them are logged.
    redact : iterable of str
        Raw columns and features whose values never reach the disk. Of a key the log keeps a pseudonym, by which labels
        still find their row.
    keep : str, optional
        ``mulle gc`` removes predictions and labels that are older, as far as no window waits for them; kept for ever by
        default.

    Raises
    ------
    DeclarationError
        On a sample outside its range.

    Examples
    --------
    >>> Log(sample=0.1, redact=["name"], keep="400d").keep.days
    400
    """

    sample: float
    redact: tuple[str, ...]
    keep: timedelta | None

    def __init__(self, *, sample: float = 1.0, redact: Iterable[str] = (), keep: str | timedelta | None = None) -> None:
        if not 0.0 < sample <= 1.0:
            raise DeclarationError(f"Log(sample={sample}) is no share", next="write a number above 0, up to 1")
        names = (redact,) if isinstance(redact, str) else tuple(redact)
        object.__setattr__(self, "sample", float(sample))
        object.__setattr__(self, "redact", names)
        object.__setattr__(self, "keep", None if keep is None else duration(keep))
