"""A claim about servers under load: each is started, held to the limit's answers, and pressed by wrk."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import cpu_count
from pathlib import Path
from subprocess import run
from sys import executable
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import psutil

from benchmarks.claim import Size
from benchmarks.environments import PeerMissing, python_of
from benchmarks.serving_process import Running, Server, started, versions
from benchmarks.serving_wire import WIRES, ask, write_bodies

__all__ = ["CONNECTIONS", "Found", "Load", "Pressed", "Promise", "Round", "pressed"]

CONNECTIONS = 16
LIMIT = "bare ASGI + ONNX"
"""The side whose answers the others are held to."""

_HERE = Path(__file__).parent
_ROOT = _HERE.parent
_WARM_SECONDS = 2.0


class _Refused(Exception):
    """A server did not come up, answers wrongly, or fails under load; says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One press of wrk.

    Attributes
    ----------
    rate : float
        Requests answered a second.
    p50, p99 : float
        Seconds until the answer.
    cpu : float
        Processor seconds of the server's processes for one request.
    busy : float
        Share of the machine that neither the server nor wrk took, and that was not idle.
    """

    rate: float
    p50: float
    p99: float
    cpu: float
    busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """What a server reached; `failed` says why it reached nothing.

    Attributes
    ----------
    rounds : tuple of Round
        The one with the highest rate counts.
    memory_bytes : int
        Of all its processes after the load, what they share counted once.
    """

    server: Server
    rounds: tuple[Round, ...] = ()
    memory_bytes: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    failed: str = ""

    @property
    def best(self) -> Round:
        """The round with the highest rate."""
        return max(self.rounds, key=lambda r: r.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a load.

    Attributes
    ----------
    servers : mapping
        By name, in the load's order.
    parts : mapping
        Where our requests' seconds go: by step, for each number of requests in a batch.
    """

    servers: Mapping[str, Pressed]
    parts: Mapping[str, Mapping[str, float]]

    def good(self) -> dict[str, Pressed]:
        """Give those that answered, and rightly."""
        return {n: p for n, p in self.servers.items() if not p.failed}

    @property
    def busy(self) -> float:
        """The largest share of the machine that others took in a round that counts."""
        return max((p.best.busy for p in self.servers.values() if not p.failed), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a load promises; see `benchmarks.claim.Target`."""

    says: str
    bound: float
    at_least: bool
    figure: Callable[[Mapping[str, Pressed]], float | None]

    def met(self, found: Mapping[str, Pressed]) -> bool | None:
        """Tell whether it is met; None when it cannot be told."""
        value = self.figure(found)
        return None if value is None else value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Servers under load.

    Attributes
    ----------
    name, says : str
        ``{}`` fields are filled from the size.
    make : str
        ``module:function`` that makes the model in a folder, seeded.
    sizes : mapping
        ``small`` and ``full``: what `make` reads, ``rows_a_request``, ``seconds`` of a round and ``rounds``.
    sides : tuple of Server
        The first is ours, the second the limit, whose answers the others are held to.
    parts : str
        ``module:function`` that writes where our time goes to ``parts.json``; none when empty.
    """

    name: str
    says: str
    make: str
    sizes: Mapping[Size, Mapping[str, int]]
    sides: tuple[Server, ...]
    targets: tuple[Promise, ...]
    parts: str = ""


def pressed(load: Load, size: Size, *, peers: bool, say: Callable[[str], None]) -> Found:
    """Press every server of a load.

    The limit is pressed first: its answers are the others' measure.
    """
    numbers = load.sizes[size]
    with TemporaryDirectory(prefix="mulle-bench-") as temporary:
        folder = Path(temporary)
        say(f"{load.name}: making the model")
        _call(load.make, folder, numbers)
        bodies = {wire: write_bodies(folder, wire, numbers["rows_a_request"]) for wire in WIRES}
        parts: dict[str, dict[str, float]] = {}
        if load.parts:
            say(f"{load.name}: parts")
            _call(load.parts, folder, numbers)
            parts = json.loads((folder / "parts.json").read_text())
        wanted = [s for s in load.sides if peers or not s.peer]
        servers = _each(load, wanted, folder, bodies, say, numbers)
    return Found(servers={s.name: servers[s.name] for s in wanted}, parts=parts)


def _each(
    load: Load,
    wanted: Sequence[Server],
    folder: Path,
    bodies: Mapping[str, Path],
    say: Callable[[str], None],
    numbers: Mapping[str, int],
) -> dict[str, Pressed]:
    bound = json.loads((folder / "told.json").read_text())["bound"]
    found: dict[str, Pressed] = {}
    expected: list[float] | None = None
    for server in sorted(wanted, key=lambda s: s is not load.sides[1]):
        say(f"{load.name}: {server.name}")
        try:
            found[server.name], answers = _press(server, folder, bodies[server.wire], numbers, expected, bound)
        except PeerMissing as error:
            found[server.name] = Pressed(server=server, failed=f"could not be installed: {error}")
        except _Refused as error:
            found[server.name] = Pressed(server=server, failed=str(error))
        else:
            expected = expected or answers
    return found


def _call(call: str, folder: Path, numbers: Mapping[str, int]) -> None:
    command = [executable, "-W", "ignore", "-m", "benchmarks.side", "make", call, str(folder), json.dumps(dict(numbers))]
    done = run(command, cwd=_ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{call} failed: {done.stderr[-2000:]}")


def _press(
    server: Server, folder: Path, bodies: Path, numbers: Mapping[str, int], expected: Sequence[float] | None, bound: float
) -> tuple[Pressed, list[float]]:
    python = python_of(server.peer) if server.peer else Path(executable)
    first = bodies.read_text().splitlines()
    with started(server, python, folder, probe=first[0]) as running:
        if running.failed:
            raise _Refused(running.failed)
        try:
            answers = [value for body in first[:64] for value in ask(running.url, server.wire, body)]
        except (OSError, ValueError, KeyError) as error:
            raise _Refused(f"it does not answer every request: {error}") from error
        if expected is None and server.name != LIMIT:
            raise _Refused("nothing to hold it to: the limit did not answer")
        if said := _differs(answers, expected or answers, bound):
            raise _Refused(f"other answers than the limit: {said}")
        _wrk(running.url, bodies, _WARM_SECONDS)
        rounds = [_round(running, bodies, numbers["seconds"]) for _ in range(numbers["rounds"])]
        memory = running.memory_bytes()
    return Pressed(server=server, rounds=tuple(rounds), memory_bytes=memory, versions=versions(python, server)), answers


def _round(running: Running, bodies: Path, seconds: float) -> Round:
    """Press a server once."""
    machine, own, began = _worked(), running.cpu_seconds(), monotonic()
    pressing = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = _wrk(running.url, bodies, seconds)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = running.cpu_seconds() - own
    wrk = after.ru_utime + after.ru_stime - pressing.ru_utime - pressing.ru_stime
    others = (_worked() - machine - own - wrk) / (monotonic() - began) / (cpu_count() or 1)
    rate = told["requests"] / told["seconds"]
    return Round(rate=rate, p50=told["p50"], p99=told["p99"], cpu=own / told["requests"], busy=max(others, 0.0))


def _worked() -> float:
    """Give the seconds that all cores together were not idle so far."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def _differs(answers: Sequence[float], expected: Sequence[float], bound: float) -> str:
    if len(answers) != len(expected):
        return f"{len(answers)}, not {len(expected)}"
    far = [(abs(a - b), a, b) for a, b in zip(answers, expected, strict=True) if not abs(a - b) <= bound]
    return f"{len(far)} of {len(answers)}, such as {far[0][1]:g}, not {far[0][2]:g} within {bound:.2g}" if far else ""


def _wrk(url: str, bodies: Path, seconds: float) -> dict[str, Any]:
    """Press a server; every answer must be a 2xx."""
    if shutil.which("wrk") is None:
        raise _Refused("wrk was not found: install the package wrk")
    script, most = _HERE / "serving_press.lua", max(round(seconds), 1)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{most}s", "--timeout", "30s", "-s", str(script), url, "--", str(bodies)]
    done = run(command, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1:] or ["no answer"]
    if done.returncode or not last[0].startswith("{"):
        raise _Refused(f"wrk failed: {(done.stderr.strip() or last[0])[:300]}")
    told: dict[str, Any] = json.loads(last[0])
    if told["errors"] or not told["requests"]:
        raise _Refused(f"{told['errors']} of {told['requests']} requests failed under load")
    return told
