"""One side of a claim in a process of its own: prepared, run n times against the clock, its answer kept for comparison.

Peers run this file in their own environments, so it needs the standard library alone.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Work", "main"]

_TOLD = (
    ("polars", "polars"),
    ("deltalake", "deltalake"),
    ("lmdb", "lmdb"),
    ("duckdb", "duckdb"),
    ("pandas", "pandas"),
    ("pyarrow", "pyarrow"),
    ("dask", "dask"),
    ("feast", "feast"),
    ("pandera", "pandera"),
    ("pointblank", "pointblank"),
    ("great_expectations", "great-expectations"),
    ("evidently", "evidently"),
    ("flaml", "flaml"),
    ("autogluon.tabular", "autogluon.tabular"),
    ("optuna", "optuna"),
    ("sklearn", "scikit-learn"),
    ("lightgbm", "lightgbm"),
    ("xgboost", "xgboost"),
    ("catboost", "catboost"),
)


def _nothing() -> None:
    """Leave everything as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a side does, once it is prepared.

    Attributes
    ----------
    run : callable
        What is timed.
    keep : callable
        Takes what the last `run` gave and a path without ending; writes the answer there. Not timed.
    reset : callable
        Called before each `run`; not timed.
    calls : int
        How many operations one `run` holds; seconds are told for one of them.
    """

    run: Callable[[], Any]
    keep: Callable[[Any, Path], object]
    reset: Callable[[], object] = _nothing
    calls: int = 1


def main(arguments: list[str]) -> None:
    """Run ``side.py make CALL FOLDER SIZE`` or ``side.py run CALL FOLDER NAME REPEAT``.

    CALL is ``module:function``. One that makes data takes the folder and the size; a side takes the folder and gives its
    `Work`, and what is measured is written to ``FOLDER/NAME.outcome``.
    """
    what, call, folder, *rest = arguments
    module, name = call.split(":")
    function = getattr(import_module(module), name)
    if what == "make":
        function(Path(folder), json.loads(rest[0]))
    else:
        _measure(function(Path(folder)), Path(folder, rest[0]), int(rest[1]))


def _measure(work: Work, path: Path, repeat: int) -> None:
    runs: list[tuple[float, float]] = []
    answer = None
    for _ in range(repeat):
        work.reset()
        answer = None
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        answer = work.run()
        runs.append(((time.perf_counter() - wall) / work.calls, (time.process_time() - cpu) / work.calls))
    peak = peak_bytes()
    work.keep(answer, path)
    told = {"runs": runs, "peak_bytes": peak, "versions": dict(_versions())}
    path.with_suffix(".outcome").write_text(json.dumps(told))


def peak_bytes() -> int:
    """Give this process's highest resident memory so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what our parent held before it became us
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _versions() -> Iterator[tuple[str, str]]:
    for module, distribution in _TOLD:
        if module in sys.modules:
            try:
                yield distribution, version(distribution)
            except PackageNotFoundError:
                continue


if __name__ == "__main__":
    main(sys.argv[1:])
