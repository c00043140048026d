"""Stage 7, the service's side of a verdict: errors, latency and answers of two versions on the same rows, from the log."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from mulle.core.declare.rollout import Rollout
from mulle.core.records.base import Json, to_json
from mulle.kernel.histograms import build_reference, count_values, psi
from mulle.kernel.sequential import likelier

__all__ = ["FAULTS", "UNNOTICED", "Service", "fault_in", "weigh_service"]

FAULTS = ("internal", "transform", "bundle", "trial")
"""Kinds of errors that say something of a champion; all others say something of the request, of a store, or of the load."""

UNNOTICED = 0.002
"""Seconds that nobody waits for: a version is not slow for these. A shadow scores while others are answered."""

_ALARMING = 5.0
"""An error rate so many times as high as the declared one is looked for first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the log says of the version that is judged, beside the one that it is compared with.

    Attributes
    ----------
    rows : int
        Scored by both.
    batches : int
        That the judged version had to score.
    errors : int
        Of those, that it failed.
    kinds : dict
        Errors by kind.
    seconds : dict
        ``p50`` and ``p99`` of each side, ``judged`` and ``other``, in seconds.
    timed : int
        Batches that both scored.
    slow : int
        Of those, that took the judged version longer than the declared number of times.
    answers : float or None
        Population stability index between the answers to the same rows.
    """

    rows: int = 0
    batches: int = 0
    errors: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    timed: int = 0
    slow: int = 0
    answers: float | None = None

    def evidence(self) -> Json:
        """Give it as plain JSON values."""
        return dict(to_json(self))


def weigh_service(rollout: Rollout, scored: pl.DataFrame, *, judged: int, other: int, leads: bool, numeric: bool) -> Service:
    """Sum up the log of a release.

    Parameters
    ----------
    rollout : Rollout
    scored : polars.DataFrame
        Rows of the table of predictions since the release began, refused ones too; without columns when there are none.
    judged, other : int
        The versions.
    leads : bool
        The judged version is the champion.
    numeric : bool
        Answers are numbers.

    Returns
    -------
    Service
    """
    if not scored.width:
        return Service()
    refused = pl.col("route") == "refused"
    # A challenger that fails is named in the log, with no time of its own; a champion that fails has no version there.
    unseen = (pl.col("version") == judged) & (pl.col("seconds") == 0.0)
    failed = scored.filter(refused & (pl.col("version").is_null() & pl.col("error").is_in(FAULTS) if leads else unseen))
    sides = {v: scored.filter(~refused & (pl.col("version") == v)).unique("request", keep="last") for v in (judged, other)}
    pairs = sides[judged].join(sides[other], on="request", suffix="_b")
    batches = sides[judged]["created_at"].n_unique() + failed.height
    # A batch's rows share its time, so a batch counts once.
    timed = pairs.group_by("created_at").agg(pl.col("seconds").mean(), pl.col("seconds_b").mean())
    return Service(
        rows=pairs.height,
        batches=batches,
        errors=failed.height,
        kinds={str(kind): count for kind, count in failed.group_by("error").len().sort("error").iter_rows()},
        seconds={"judged": _quantiles(pairs["seconds"]), "other": _quantiles(pairs["seconds_b"])} if pairs.height else {},
        timed=timed.height,
        slow=timed.filter(pl.col("seconds") > rollout.slower * pl.col("seconds_b") + UNNOTICED).height,
        answers=_difference(pairs["value_b"], pairs["value"], numeric=numeric) if pairs.height else None,
    )


def fault_in(rollout: Rollout, found: Service) -> str:
    """Say what is wrong with how a version serves, or nothing; it may be asked at any time.

    Errors and slow batches are each held to Wald's likelihood ratio, so that both rarely speak falsely however often they
    are asked: of a rate of errors above the declared one, and of more than half the batches being too slow.
    """
    alarming = min(0.5, _ALARMING * rollout.errors)
    if alarming > rollout.errors and likelier(found.errors, found.batches, rollout.errors, alarming) >= 1 / rollout.alpha:
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.items())
        return f"errors: it failed {found.errors} of {found.batches} batches ({kinds}), more than {rollout.errors:.2%}"
    if likelier(found.slow, found.timed, 0.5, 0.75) >= 1 / rollout.alpha:
        mine, theirs = (1e3 * found.seconds[side]["p50"] for side in ("judged", "other"))
        return (
            f"slower: {found.slow} of {found.timed} batches took it more than {rollout.slower:g} times as long "
            f"(middle {mine:.3g} ms against {theirs:.3g} ms)"
        )
    return ""


def _quantiles(seconds: pl.Series) -> dict[str, float]:
    found = {"p50": seconds.quantile(0.5), "p99": seconds.quantile(0.99)}
    return {name: round(float(value), 6) for name, value in found.items() if value is not None}


def _difference(usual: pl.Series, given: pl.Series, *, numeric: bool) -> float:
    kind = pl.Float64 if numeric else pl.String
    reference = build_reference(pl.DataFrame(), [], usual.cast(kind, strict=False))["prediction"]
    return round(psi(reference, count_values(given.cast(kind, strict=False), reference)), 6)
