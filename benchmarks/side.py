"""One side of a claim in a process of its own: prepared, run n times against the clock, its answer kept for comparison.

Peers run this file in their own environments, so it needs the standard library alone.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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


Prepare = Callable[[Path, Mapping[str, int]], Work | None]


def main(arguments: list[str]) -> None:
    """Run ``side.py CALL FOLDER SIZE REPEAT NAME``; the report is written to ``FOLDER/NAME.outcome``.

    CALL is ``module:function``; the function takes the data's folder and the size, and gives a `Work`, or nothing when
    all it had to do was to make the data.
    """
    call, folder, size, repeat, name = arguments
    module, function = call.split(":")
    prepare: Prepare = getattr(import_module(module), function)
    work = prepare(Path(folder), json.loads(size))
    if work is None:
        return
    seconds, answer = [], None
    for _ in range(int(repeat)):
        work.reset()
        answer = None
        gc.collect()
        start = time.perf_counter()
        answer = work.run()
        seconds.append((time.perf_counter() - start) / work.calls)
    peak = peak_bytes()
    work.keep(answer, Path(folder) / name)
    told = {"seconds": seconds, "calls": work.calls, "peak_bytes": peak, "versions": dict(_versions())}
    (Path(folder) / f"{name}.outcome").write_text(json.dumps(told))


def peak_bytes() -> int:
    """Give this process's highest resident memory so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what our parent held before it became us
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what a library prints (progress, advice) out of the report."""
    import contextlib
    import os

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def _versions() -> Iterator[tuple[str, str]]:
    for module, distribution in _TOLD:
        if module in sys.modules:
            try:
                yield distribution, version(distribution)
            except PackageNotFoundError:
                continue


if __name__ == "__main__":
    main(sys.argv[1:])
