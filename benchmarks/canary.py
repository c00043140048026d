"""Claim: a canary that is looked at again and again promotes what is better or as good, and seldom what is worse."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

import mulle as ml
from benchmarks.claim import Size
from benchmarks.report import table, verdict
from mulle.core.records.deployment import Deployment, Route
from mulle.lifecycle.rollout.verdict import canary_verdict

__all__ = ["CLAIMS", "Canaries", "Case", "Judged", "as_json", "as_text", "judged"]

START = datetime(2024, 1, 1, tzinfo=UTC)
ALPHA, POWER = 0.05, 0.8
_Z = 1.6449 + 0.8416
"""Of a one-sided test at 5% with a power of 80%."""

_MEAN, _NOISE = 8.0, 2.0
"""Mean loss of the champion, and standard deviation of the difference on the same row."""

_LOOKS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A kind of challenger.

    Attributes
    ----------
    ratio : float
        Its mean loss over the champion's.
    days : int
        Spans of the whole, each with a weather of its own that moves the difference; 0: every row by itself.
    weather : float
        Standard deviation of that, in mean losses of the champion.
    end : str
        What it is counted for: ``promoted`` or ``worse``.
    bound : float
        Highest share of that, 0 to 1; or the least, where `at_least`.
    """

    name: str
    ratio: float
    end: str
    bound: float
    at_least: bool = False
    days: int = 0
    weather: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """Simulated canaries: so many of each case, each of so many labelled rows at most."""

    name: str
    says: str
    sizes: Mapping[Size, Mapping[str, int]]
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How the canaries of a case ended.

    Attributes
    ----------
    ends : dict
        Share by end: ``promoted``, ``worse`` (rolled back) or ``open`` (time was up: the champion stays).
    rows : float or None
        Labelled rows by which four fifths of them were promoted.
    fixed : int or None
        Rows that a test of fixed size needs for a power of 80%, with the variance known beforehand.
    """

    case: Case
    ends: dict[str, float]
    rows: int | None
    fixed: int | None
    seconds: float

    @property
    def share(self) -> float:
        """The share that the case is counted for."""
        return self.ends.get(self.case.end, 0.0)

    @property
    def met(self) -> bool:
        """Whether it is within its bound."""
        return self.share >= self.case.bound if self.case.at_least else self.share <= self.case.bound


def judged(canaries: Canaries, size: Size, say: Callable[[str], None]) -> list[Judged]:
    """Simulate every case with the platform's own verdict."""
    numbers, found = canaries.sizes[size], list[Judged]()
    for case in canaries.cases:
        if alike := next((one for one in found if _world(one.case) == _world(case)), None):
            found.append(replace(alike, case=case, fixed=_fixed(case)))
            continue
        say(f"{canaries.name}: {case.name}")
        began = time.perf_counter()
        # Rows come in the same order in each case, so that cases differ by their challenger alone.
        rng = np.random.default_rng(20_240_101)
        ends = [_ended(case, rng, numbers["rows"]) for _ in range(numbers["canaries"])]
        counted = Counter(end for end, _ in ends)
        promoted = sorted(rows for end, rows in ends if end == "promoted")
        least = int(np.ceil(POWER * len(ends))) - 1
        found.append(
            Judged(
                case=case,
                ends={end: count / len(ends) for end, count in counted.items()},
                rows=promoted[least] if len(promoted) > least else None,
                fixed=_fixed(case),
                seconds=time.perf_counter() - began,
            )
        )
    return found


def _world(case: Case) -> tuple[float, int, float]:
    # The verdict does not ask what a version costs, so equal is equal, cheaper or not.
    return case.ratio, case.days, case.weather


def _fixed(case: Case) -> int | None:
    margin = ml.canary().margin
    apart = (1 + margin - case.ratio) * _MEAN
    return int(np.ceil((_Z * _NOISE / apart) ** 2)) if case.at_least and apart > 0 else None


def _ended(case: Case, rng: np.random.Generator, rows: int) -> tuple[str, int]:
    losses = _losses(case, rng, rows)
    span = timedelta(days=case.days or 1)
    rollout = ml.canary(100, hold="0s", max_wait=span, watch="0s", cluster="1d" if case.days else None)
    first = rollout.min_rows
    for seen in np.unique(np.geomspace(first, rows, _LOOKS).astype(int)):
        found = canary_verdict(
            rollout, _DEPLOYMENT, step_started=START, losses=losses.head(int(seen)), now=START + span * (int(seen) / rows)
        )  # fmt: skip
        if found.action == "promote":
            return "promoted", int(seen)
        if found.action == "hold_back":
            return found.evidence["verdict"] if found.evidence["verdict"] == "worse" else "open", int(seen)
    return "open", rows


def _losses(case: Case, rng: np.random.Generator, rows: int) -> pl.DataFrame:
    champion = rng.gamma(2.0, _MEAN / 2, rows)
    challenger = champion * case.ratio + rng.normal(0, _NOISE, rows)
    day = np.arange(rows) * max(case.days, 1) // rows
    challenger += rng.normal(0, case.weather * _MEAN, max(case.days, 1))[day]
    time = START + pl.Series(np.arange(rows) * (max(case.days, 1) * 86_400_000_000 // rows)).cast(pl.Duration("us"))
    return pl.DataFrame({"cluster": np.arange(rows).astype(str), "time": time, "champion": champion, "challenger": challenger})


_DEPLOYMENT = Deployment(
    id="simulated", created_at=START, causes=(), model="m", action="canary", effective_at=START, by="loop", from_version=1,
    to_version=2, routes=(Route(version=1, share=0.5, mode="champion"), Route(version=2, share=0.5, mode="canary")),
)  # fmt: skip


def as_text(canaries: Canaries, size: Size, found: Sequence[Judged]) -> str:
    """Write the cases as Markdown, then the targets."""
    rows: list[tuple[str, ...]] = [("challenger", "promoted", "rolled back", "open", "rows for 80%", "fixed sample", "seconds")]
    for one in found:
        shares = (f"{one.ends.get(end, 0.0):.1%}" for end in ("promoted", "worse", "open"))
        figures = ("-" if value is None else f"{value:,}" for value in (one.rows, one.fixed))
        rows.append((one.case.name, *shares, *figures, f"{one.seconds:.0f}"))
    lines = [f"### {canaries.name}", "", canaries.says.format_map({k: f"{v:,}" for k, v in canaries.sizes[size].items()}), ""]
    targets = [f"- {_says(one.case)}: {verdict(one.share, one.met, size)}" for one in found]
    return "\n".join([*lines, *table(rows), "", *targets, "", ""])


def as_json(canaries: Canaries, size: Size, found: Sequence[Judged]) -> dict[str, Any]:
    """Give the claim as a JSON object."""
    targets = [
        {"says": _says(o.case), "bound": o.case.bound, "figure": o.share, "met": o.met if size == "full" else None} for o in found
    ]  # fmt: skip
    sides = [{"name": "Mulle", "peer": None, "versions": {"numpy": np.__version__, "polars": pl.__version__}}]
    cases = [asdict(one) for one in found]
    numbers = dict(canaries.sizes[size])
    return {"name": canaries.name, "size": size, "numbers": numbers, "sides": sides, "cases": cases, "targets": targets}


def _says(case: Case) -> str:
    end = "promoted" if case.end == "promoted" else "rolled back"
    return f"{case.name}: share {end}, {'at least' if case.at_least else 'at most'} {case.bound:.0%}"


CLAIMS = (
    Canaries(
        name="Canary",
        says="{canaries} simulated canaries per case, looked at 30 times up to {rows} labelled rows; the difference on a row has "
        "a standard deviation of a quarter of the mean loss. Fixed sample: what one look of a test with known variance needs.",
        sizes={"small": {"canaries": 20, "rows": 10_000}, "full": {"canaries": 1_000, "rows": 10_000}},
        cases=(
            Case(name="2% worse", ratio=1.02, end="promoted", bound=ALPHA),
            Case(name="equal", ratio=1.0, end="worse", bound=ALPHA),
            Case(name="equal and cheaper", ratio=1.0, end="promoted", bound=POWER, at_least=True),
            Case(name="2% better", ratio=0.98, end="promoted", bound=POWER, at_least=True),
            Case(name="2% worse, 40 days of one weather each", ratio=1.02, end="promoted", bound=ALPHA, days=40, weather=0.05),
            Case(name="equal, 40 days of one weather each", ratio=1.0, end="worse", bound=ALPHA, days=40, weather=0.05),
        ),
    ),
)
