"""Stage 8, drift and quality: a window's histograms held against the training reference.

A signal alarms when it is beyond its bound and so far that chance alone would hardly ever bring it there: all tests of a
window together do so with a probability of at most `Monitor.false_alarms` (Bonferroni). Drift of features that tell nothing
but the time is measured and not judged: an hour or a weekday is another one in each window that is shorter than its cycle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mulle.core.declare.monitor import Monitor
from mulle.core.records.base import Json
from mulle.core.records.window import Signal
from mulle.kernel.change import beyond_chance, chance, excess_chance, wasserstein, wasserstein_noise
from mulle.kernel.histograms import jensen_shannon, merge_entries, null_rate, psi, sampling_noise

__all__ = ["CALENDAR", "PREDICTION", "Seen", "distances", "reference_for", "signals_of"]

PREDICTION = "prediction"
"""What a signal on the answers themselves has for a feature."""

CALENDAR = "calendar"
"""The verdict on drift of a feature that tells nothing but the time: none."""

_AGREES = 0.2
"""What earlier windows show counts while the present one points there too: below this chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of a window's rows, counted.

    Attributes
    ----------
    counted : Json
        Histograms, by the reference's bins.
    recent : Json or None
        The sum of the windows before it, of the same bundle.
    before : int
        How many windows those are.
    unseen : dict
        Feature to rows whose category was never seen in training.
    refused : dict
        Field to rows that were refused for it.
    """

    counted: Json
    recent: Json | None = None
    before: int = 0
    unseen: Mapping[str, int]
    refused: Mapping[str, int]


def signals_of(monitor: Monitor, seen: Seen, reference: Json) -> tuple[Signal, ...]:
    """Judge drift of every feature and of the answers, and the quality of what came in.

    ``psi``, ``js`` and ``wasserstein`` are told less what sampling alone gives, ``null_rate`` is bounded by the
    reference's rate plus the declared bound; ``unseen``, ``out_of_range`` and ``type_errors`` are shares of rows. Drift of
    what the reference names as ``calendar`` has that verdict, and is none of the tests.

    Parameters
    ----------
    monitor : Monitor
    seen : Seen
    reference : Json
        What `build_reference` gave, or a part of it (`reference_for`).

    Returns
    -------
    tuple of Signal
    """
    entries = [*_drift(monitor, seen, reference), *_quality(monitor, seen, reference)]
    # Distances of one entry share their test; a look at several windows is one more.
    judged = [now for now, _ in entries if now.verdict != CALENDAR]
    tests = len({(now.feature, "" if now.signal in _DISTANCES else now.signal) for now in judged})
    level = monitor.false_alarms / max(1, tests * (1 if seen.recent is None else 2))
    return tuple(_judged(now, longer, level) for now, longer in entries)


def reference_for(reference: Json, declared: str, part: int, min_rows: int) -> tuple[Json, str]:
    """Choose what a window is held against.

    Parameters
    ----------
    reference : Json
        What `build_reference` gave, perhaps with parts by `add_parts`.
    declared : str
        `Monitor.reference`.
    part : int
        The window's weekday (Monday is 1) or month.
    min_rows : int
        A part with fewer rows is no reference.

    Returns
    -------
    reference, name
    """
    parts = reference.get("parts", {}) if reference.get("by") == declared else {}
    chosen = parts.get(str(part))
    if chosen is None or chosen["rows"] < min_rows:
        return reference, "training"
    return {**chosen, "calendar": reference.get("calendar", ())}, declared


def distances(expected: Json, actual: Json) -> dict[str, float]:
    """Measure how far an entry is from the reference's, each measure less what sampling alone would give.

    In a window of 200 rows and 30 cells sampling alone gives a PSI of about 0.15: `sampling_noise` (with its source) is
    subtracted from it, and from the others in squares, the PSI being about ``8 ln 2`` times the square of the
    Jensen-Shannon distance where both are small (Lin, IEEE Trans. Inf. Theory 37, 1991). What would be below 0 is 0.

    Parameters
    ----------
    expected, actual : Json
        Entries of the reference and of the window.

    Returns
    -------
    dict
        ``psi``, ``js`` and, of numbers, ``wasserstein``; empty when either side holds nothing but nulls.
    """
    if any(entry["rows"] == entry["nulls"] for entry in (expected, actual)):
        return {}
    noise = sampling_noise(expected, actual)
    found = {
        "psi": max(0.0, psi(expected, actual) - noise),
        "js": _less(jensen_shannon(expected, actual), noise / (8 * math.log(2))),
    }
    if expected["kind"] == "number":
        found["wasserstein"] = _less(wasserstein(expected, actual), wasserstein_noise(expected, actual) ** 2)
    return found


_DISTANCES = ("psi", "js", "wasserstein")

Looks = tuple[Signal, Signal | None]
"""A signal of the window alone, and of it with those before it."""


def _drift(monitor: Monitor, seen: Seen, reference: Json) -> Iterator[Looks]:
    calendar = frozenset(reference.get("calendar", ()))  # bundles of earlier releases name none
    for name, expected in (*reference["features"].items(), (PREDICTION, reference["prediction"])):
        actual = _entry(seen.counted, name)
        alone = _measured(monitor, name, expected, actual, 1)
        if name in calendar:
            yield from ((replace(now, verdict=CALENDAR), None) for now in alone)
            continue
        if seen.recent is None or not _agrees(alone[0]):
            yield from ((now, None) for now in alone)
            continue
        both = merge_entries(actual, _entry(seen.recent, name))
        yield from zip(alone, _measured(monitor, name, expected, both, seen.before + 1), strict=True)


def _agrees(signal: Signal) -> bool:
    return signal.verdict != "too_few" and signal.p_value is not None and signal.p_value <= _AGREES


def _measured(monitor: Monitor, name: str, expected: Json, actual: Json, windows: int) -> list[Signal]:
    found = distances(expected, actual)
    few = not found or actual["rows"] - actual["nulls"] < monitor.min_rows
    p_value = chance(expected, actual) if found else None
    measures = _DISTANCES if expected["kind"] == "number" else _DISTANCES[:2]
    return [
        Signal(
            feature=name, signal=measure, value=found.get(measure), bound=getattr(monitor.drift, measure),
            verdict="too_few" if few else "pass", p_value=p_value, windows=windows,
        )
        for measure in measures
    ]  # fmt: skip


def _quality(monitor: Monitor, seen: Seen, reference: Json) -> Iterator[Looks]:
    bound = monitor.quality.bound
    for name, expected in reference["features"].items():
        actual = seen.counted["features"][name]
        rows, values = actual["rows"], actual["rows"] - actual["nulls"]
        if not rows:
            continue
        most = min(1.0, null_rate(expected) + bound)
        yield _share(monitor, name, "null_rate", actual["nulls"], rows, most, (expected["nulls"], expected["rows"])), None
        trained = expected["rows"] - expected["nulls"]
        if expected["kind"] == "category":
            yield _share(monitor, name, "unseen", seen.unseen.get(name, 0), rows, bound, (0, trained)), None
        elif values and len(actual["counts"]) > 1:
            outside = actual["counts"][0] + actual["counts"][-1]
            told = _share(monitor, name, "out_of_range", outside, values, bound, (0, trained))
            yield replace(told, p_value=beyond_chance(outside, values, trained)), None
    for name, refused in sorted(seen.refused.items()):
        asked = seen.counted["rows"] + sum(seen.refused.values())
        yield _share(monitor, name, "type_errors", refused, asked, bound, (0, reference["rows"])), None


def _share(monitor: Monitor, name: str, signal: str, hits: int, rows: int, bound: float, known: tuple[int, int]) -> Signal:
    verdict = "too_few" if rows < monitor.min_rows else "pass"
    p_value = excess_chance(hits, rows, *known)
    return Signal(feature=name, signal=signal, value=hits / rows, bound=bound, verdict=verdict, p_value=p_value)


def _judged(now: Signal, longer: Signal | None, level: float) -> Signal:
    found = next((s for s in (now, longer) if s is not None and _alarms(s, level)), None)
    return now if found is None else replace(found, verdict="alarm")


def _alarms(signal: Signal, level: float) -> bool:
    if signal.verdict in ("too_few", CALENDAR) or signal.value is None or signal.bound is None or signal.p_value is None:
        return False
    return signal.value > signal.bound and signal.p_value <= level


def _entry(histograms: Json, name: str) -> Json:
    entry: Json = histograms["prediction"] if name == PREDICTION else histograms["features"][name]
    return entry


def _less(value: float, square: float) -> float:
    return math.sqrt(max(0.0, value**2 - square))
