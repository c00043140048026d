"""How a new version is released: at once, by a canary, in the shadow of the champion, or from blue to green."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from mulle.core.clock import duration
from mulle.core.errors import DeclarationError

__all__ = ["BLUE_GREEN", "CANARY", "IMMEDIATE", "SHADOW", "Rollout", "blue_green", "canary", "immediate", "shadow"]

IMMEDIATE, CANARY, SHADOW, BLUE_GREEN = "immediate", "canary", "shadow", "blue_green"

Span = str | timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How a version is released, and what may end its release.

    Attributes
    ----------
    mode : str
        ``immediate``, ``canary``, ``shadow`` or ``blue_green``.
    steps : tuple of float
        Shares of traffic, 0 to 1, rising; the last is 1.
    hold : timedelta
        Least time at each step, staging among them.
    min_rows : int
        Least pairs before a verdict: labelled ones, but of ``blue_green`` just scored ones.
    max_wait : timedelta
        Longest time at a step without a verdict; then `lacking` says what happens.
    lacking : str
        Without enough evidence by then: ``stay`` (the champion) or ``promote`` (unless something speaks against the version);
        empty: ``promote`` in a fleet, whose members may have few requests each, else ``stay``.
    margin : float
        Relative loss above the champion's that still counts as no worse.
    alpha : float
        Probability of each kind of wrong verdict: worse taken for no worse, no worse taken for worse.
    cluster : timedelta or None
        Rows of one such span of time may be alike and count as one observation; None: stretches of what came together.
    errors : float
        Share of batches that a version may fail, 0 to 1.
    slower : float
        A version is too slow when most batches take it more than so many times as long as the other.
    answers : float
        Population stability index between both versions' answers to the same rows above which only a better version goes on.
    watch : timedelta
        After the release the former champion still scores unseen for so long, and is gone back to by the same evidence.
    approval : bool
        What is found fit waits for `mulle promote`.
    staging : bool
        A version goes to the environment ``staging`` first.
    """

    mode: str
    steps: tuple[float, ...] = (1.0,)
    hold: timedelta = timedelta(minutes=10)
    min_rows: int = 200
    max_wait: timedelta = timedelta(days=3)
    margin: float = 0.01
    alpha: float = 0.05
    cluster: timedelta | None = None
    errors: float = 0.01
    slower: float = 2.0
    answers: float = 0.25
    watch: timedelta = timedelta(0)
    approval: bool = False
    staging: bool = False
    lacking: str = ""


def canary(
    *steps: float,
    hold: Span = "10m",
    min_rows: int = 200,
    max_wait: Span = "3d",
    margin: float = 0.01,
    alpha: float = 0.05,
    cluster: Span | None = None,
    errors: float = 0.01,
    slower: float = 2.0,
    answers: float = 0.25,
    watch: Span = "1d",
    approval: bool = False,
    staging: bool = False,
    lacking: str = "",
) -> Rollout:
    """Release in growing shares of traffic, in per cent; the last step is 100.

    Raises
    ------
    DeclarationError
        When the steps do not rise to 100, or a bound cannot be.

    Examples
    --------
    >>> canary(5, 25, 100, hold="10m").steps
    (0.05, 0.25, 1.0)
    """
    shares = steps or (5, 25, 100)
    if list(shares) != sorted(set(shares)) or shares[-1] != 100 or shares[0] <= 0:
        raise DeclarationError(f"canary{shares}: steps must rise to 100", next="write for example ml.canary(5, 25, 100)")
    return _checked(
        Rollout(
            mode=CANARY, steps=tuple(s / 100 for s in shares), hold=duration(hold), min_rows=min_rows,
            max_wait=duration(max_wait), margin=margin, alpha=alpha, cluster=_span(cluster), errors=errors, slower=slower,
            answers=answers, watch=duration(watch), approval=approval, staging=staging, lacking=lacking,
        )
    )  # fmt: skip


def shadow(
    *,
    hold: Span = "10m",
    min_rows: int = 200,
    max_wait: Span = "3d",
    margin: float = 0.01,
    alpha: float = 0.05,
    cluster: Span | None = None,
    errors: float = 0.01,
    slower: float = 2.0,
    answers: float = 0.25,
    watch: Span = "1d",
    approval: bool = False,
    staging: bool = False,
    lacking: str = "",
) -> Rollout:
    """Let the new version score every request unseen; it takes all traffic when the evidence of a canary says so.

    Examples
    --------
    >>> shadow(min_rows=500).mode
    'shadow'
    """
    return _checked(
        Rollout(
            mode=SHADOW, hold=duration(hold), min_rows=min_rows, max_wait=duration(max_wait), margin=margin, alpha=alpha,
            cluster=_span(cluster), errors=errors, slower=slower, answers=answers, watch=duration(watch), approval=approval,
            staging=staging, lacking=lacking,
        )
    )  # fmt: skip


def blue_green(
    *,
    hold: Span = "0s",
    min_rows: int = 50,
    max_wait: Span = "1d",
    margin: float = 0.01,
    alpha: float = 0.05,
    cluster: Span | None = None,
    errors: float = 0.01,
    slower: float = 2.0,
    watch: Span = "1d",
    approval: bool = False,
    staging: bool = False,
    lacking: str = "",
) -> Rollout:
    """Load the new version beside, probe it by errors and latency on rows that come, then move all traffic at once.

    No labels are waited for. The old version stays loaded for `watch`, ready to be gone back to.

    Examples
    --------
    >>> blue_green(watch="2d").watch.days
    2
    """
    return _checked(
        Rollout(
            mode=BLUE_GREEN, hold=duration(hold), min_rows=min_rows, max_wait=duration(max_wait), margin=margin, alpha=alpha,
            cluster=_span(cluster), errors=errors, slower=slower, watch=duration(watch), approval=approval, staging=staging,
            lacking=lacking,
        )
    )  # fmt: skip


def immediate(*, hold: Span = "0s", watch: Span = "0s", approval: bool = False, staging: bool = False) -> Rollout:
    """Release to all traffic at once, once the gates have passed; `hold` is its least time in staging.

    Examples
    --------
    >>> immediate().mode, immediate(watch="1d").watch.days
    ('immediate', 1)
    """
    return Rollout(mode=IMMEDIATE, hold=duration(hold), watch=duration(watch), approval=approval, staging=staging)


def _span(given: Span | None) -> timedelta | None:
    return None if given is None else duration(given)


def _checked(rollout: Rollout) -> Rollout:
    wrong: Sequence[tuple[bool, str, str]] = (
        (not 0 < rollout.alpha < 0.5, f"alpha is {rollout.alpha}", "a probability below 0.5, such as 0.05"),
        (rollout.margin < 0, f"margin is {rollout.margin}", "0 or more"),
        (rollout.min_rows < 1, f"min_rows is {rollout.min_rows}", "at least 1"),
        (not 0 < rollout.errors < 0.5, f"errors is {rollout.errors}", "a share of batches between 0 and 0.5"),
        (rollout.slower < 1, f"slower is {rollout.slower}", "1 or more times"),
        (rollout.cluster == timedelta(0), f"cluster is {rollout.cluster}", 'a span, such as "1d"'),
        (rollout.lacking not in ("", "stay", "promote"), f"lacking is {rollout.lacking!r}", '"stay" or "promote"'),
    )
    for bad, said, right in wrong:
        if bad:
            raise DeclarationError(f"{rollout.mode}: {said}", next=f"write {right}")
    return rollout
