"""Running a claim: data made, each side in its own process, answers compared before any figure counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.claim import GIB, Claim, Outcome, Side, Size
from benchmarks.environments import PeerMissing, python_of

__all__ = ["measure", "outcome_of"]

_ROOT = Path(__file__).parent.parent
_SECONDS = 1800
_LOOK_SECONDS = 0.05


class _Stopped(Exception):
    """A side came to no end, or took too much; says what."""


def measure(claim: Claim, size: Size, *, peers: bool, say: Callable[[str], None]) -> dict[str, Outcome]:
    """Measure every side of a claim.

    Parameters
    ----------
    claim : Claim
    size : {"small", "full"}
    peers : bool
        Whether sides of other environments take part.
    say : callable
        Told what is being done.

    Returns
    -------
    dict
        Outcome by side's name, in the claim's order. A side that could not run, or whose answer differs, says so.
    """
    outcomes: dict[str, Outcome] = {}
    with TemporaryDirectory(prefix="mulle-bench-") as temporary:
        folder = Path(temporary)
        say(f"{claim.name}: making the data")
        _process(Path(sys.executable), folder / "data.log", "make", claim.make, str(folder), json.dumps(dict(claim.sizes[size])))
        for side in claim.sides:
            if side.peer and not peers:
                continue
            say(f"{claim.name}: {side.name}")
            outcomes[side.name] = outcome_of(side, folder)
        limit = claim.sides[1]
        for name, outcome in outcomes.items():
            if outcome.failed or name == limit.name:
                continue
            held = not outcomes[limit.name].failed
            said = claim.same(folder, limit.slug, outcome.side.slug) if held else "nothing to hold it to"
            if said:
                outcomes[name] = Outcome(side=outcome.side, failed=f"another answer than {limit.name}: {said}")
    return outcomes


def outcome_of(side: Side, folder: Path, *, seconds: float = _SECONDS) -> Outcome:
    """Run one side in a folder that holds its data, to its end or for so many seconds."""
    try:
        python = python_of(side.peer) if side.peer else Path(sys.executable)
        _process(python, folder / f"{side.slug}.log", "run", side.call, str(folder), side.slug, str(side.repeat), seconds=seconds)
    except PeerMissing as error:
        return Outcome(side=side, failed=f"could not be installed: {error}")
    except _Stopped as error:
        return Outcome(side=side, failed=str(error))
    told = json.loads((folder / f"{side.slug}.outcome").read_text())
    return Outcome(
        side=side, runs=tuple((wall, cpu) for wall, cpu in told["runs"]), peak_bytes=told["peak_bytes"], versions=told["versions"]
    )


def _process(python: Path, log: Path, *arguments: str, seconds: float = _SECONDS) -> None:
    """Run a side to its end; it may take half of the machine's memory and so many seconds."""
    most = psutil.virtual_memory().total // 2
    # Each library takes the threads it likes: the limit that our own processes share does not hold here.
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "VIRTUAL_ENV")}
    command = [str(python), "-W", "ignore", "-m", "benchmarks.side", *arguments]
    with log.open("w") as output:
        child = subprocess.Popen(command, cwd=_ROOT, stdout=output, stderr=output, env=environment)
    end, watched = time.monotonic() + seconds, psutil.Process(child.pid)
    try:
        while child.poll() is None:
            if time.monotonic() > end:
                raise _Stopped(f"stopped after {seconds:g} s")
            if _resident(watched) > most:
                raise _Stopped(f"stopped: it took more than {most / GIB:.0f} GiB, half of the machine's memory")
            time.sleep(_LOOK_SECONDS)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise _Stopped(f"it failed: {lines[-1][:300] if lines else f'exit code {child.returncode}'}")


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended meanwhile
        return 0
