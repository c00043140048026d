"""What every test run shares: quiet vendors, whole programs first, and the counts by kind that end a run."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Set before any vendor is imported: small fits and small frames are faster with one thread, and nothing phones home.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

# How long an example takes says what else the machine does; what is slow is found by its calls and by the benchmarks.
settings.register_profile("mulle", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mulle")

KINDS = ("unit", "contract", "e2e", "chaos", "long", "docs", "architecture", "doctest")
LONGEST = (
    # One story of some seventy deaths: it takes as long as all the others of its round together.
    "tests/chaos/test_kill_run.py",
    *("tests/long", "tests/chaos", "tests/e2e", "tests/contract", "tests/unit/loop", "tests/unit/surfaces"),
    *("tests/unit/lifecycle", "tests/test_architecture.py", "tests/unit/adapters", "tests/docs", "tests/unit"),
)
"""Where the files stand that take longest, first; then all others."""


def kind(nodeid: str) -> str:
    """The kind of a test by where it stands: a folder below tests/, a source file (doctest), the architecture."""
    parts = Path(nodeid.split("::")[0]).parts
    if parts[:1] == ("src",):
        return "doctest"
    if len(parts) > 2 and parts[0] == "tests" and parts[1] in KINDS:
        return parts[1]
    return "architecture"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that no process is left alone with one of them at the end."""

    def place(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(LONGEST) if item.nodeid.startswith(start)), len(LONGEST))

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests of each kind passed, failed or were skipped, before pytest's closing line."""
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped", "xfailed"):
        for report in terminalreporter.stats.get(outcome, []):
            counts.setdefault(kind(report.nodeid), Counter())[outcome] += 1
    if not counts:
        return
    terminalreporter.section("tests by kind")
    for name in KINDS:
        if name in counts:
            terminalreporter.line(f"{name:<13}" + ", ".join(f"{n} {outcome}" for outcome, n in counts[name].items()))
