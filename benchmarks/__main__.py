"""``python -m benchmarks [NAME ...] [--no-peers] [--size small|full] [--data DIR] [--json]``: measure the claims, print them."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks import canary, false_alarms, loop, serving_report, standing
from benchmarks.canary import Canaries
from benchmarks.claim import Claim
from benchmarks.false_alarms import Quiet
from benchmarks.loop import Replays
from benchmarks.machine import machine
from benchmarks.measure import measure
from benchmarks.report import as_json, as_text
from benchmarks.serving_load import Load, pressed
from benchmarks.study import Study, cells
from benchmarks.tables import classic

__all__ = ["main"]

NAMES = (
    "point_in_time",
    "online_read",
    "materialise",
    "checks",
    "ingest",
    "tracking",
    "batch",
    "stream",
    "serving",
    "search",
    "fleet",
    "drift",
    "false_alarms",
    "canary",
    "loop",
    "engine",
    "workers",
)
_WHEN_NAMED = ("stream", "serving", "search", "fleet", "false_alarms", "loop", "workers")
"""Needs a broker (MULLE_TEST_KAFKA); takes half an hour; takes hours; takes minutes and much memory; minutes; needs --data; needs
PostgreSQL (MULLE_TEST_POSTGRES)."""

_RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit code 1 when an answer differs, a side of ours failed, or a target is missed."""
    asked = _parse(arguments)
    found = machine()
    if not asked.json:
        print(", ".join(f"{name} {value}" for name, value in found.items()), end="\n\n", flush=True)
    measured, wrong = [], False
    for claim in (c for name in asked.names for c in _claims(name)):
        told, text, failed = _measured(claim, asked)
        wrong |= failed or any(t["met"] is False for t in told["targets"])
        measured.append(told)
        if not asked.json:
            print(text, flush=True)
    document = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": found, "claims": measured}
    if asked.json:
        print(json.dumps(document, indent=2))
    else:
        print(_libraries(measured))
    if asked.size == "full":
        _RESULTS.mkdir(exist_ok=True)
        (_RESULTS / f"{document['at'].replace(':', '')}.json").write_text(json.dumps(document, indent=2))
    return int(wrong)


def _measured(claim: Claim | Study | Load | Replays | Canaries | Quiet, asked: argparse.Namespace) -> tuple[dict, str, bool]:
    if isinstance(claim, Quiet):
        return _watched(claim, asked)
    if isinstance(claim, Canaries):
        return _simulated(claim, asked)
    if isinstance(claim, Replays):
        return _replayed(claim, asked)
    if isinstance(claim, Study):
        return _studied(claim, asked)
    return _pressed(claim, asked) if isinstance(claim, Load) else _timed(claim, asked)


def _watched(quiet: Quiet, asked: argparse.Namespace) -> tuple[dict, str, bool]:
    told = false_alarms.watched(quiet, asked.size, peers=not asked.no_peers, say=_say)
    return told, false_alarms.as_text(quiet, told), any(side["failed"] for side in told["sides"] if not side["peer"])


def _timed(claim: Claim, asked: argparse.Namespace) -> tuple[dict, str, bool]:
    outcomes = measure(claim, asked.size, peers=not asked.no_peers, say=_say)
    failed = any(o.failed for o in outcomes.values() if not o.side.peer or "another answer" in o.failed)
    return as_json(claim, asked.size, outcomes), as_text(claim, asked.size, outcomes), failed


def _studied(study: Study, asked: argparse.Namespace) -> tuple[dict, str, bool]:
    kept = _RESULTS / "cells" if asked.size == "full" else None
    found = tuple(cells(study, asked.size, peers=not asked.no_peers, data=asked.data, kept=kept, say=_say))
    failed = any(c.failed for c in found if c.side == study.sides[0].name)
    return standing.as_json(study, asked.size, found), standing.as_text(study, asked.size, found), failed


def _pressed(load: Load, asked: argparse.Namespace) -> tuple[dict, str, bool]:
    found = pressed(load, asked.size, peers=not asked.no_peers, say=_say)
    failed = any(p.failed for p in found.servers.values() if not p.server.peer or "other answers" in p.failed)
    return serving_report.as_json(load, asked.size, found), serving_report.as_text(load, asked.size, found), failed


def _replayed(replays: Replays, asked: argparse.Namespace) -> tuple[dict, str, bool]:
    found = loop.played(replays, asked.size, asked.data, _say)
    return loop.as_json(replays, asked.size, found), loop.as_text(replays, asked.size, found), any(f.failed for f in found)


def _simulated(canaries: Canaries, asked: argparse.Namespace) -> tuple[dict, str, bool]:
    found = canary.judged(canaries, asked.size, _say)
    return canary.as_json(canaries, asked.size, found), canary.as_text(canaries, asked.size, found), False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; by default all but {', '.join(_WHEN_NAMED)}"
    )
    parser.add_argument("--no-peers", action="store_true", help="only our side and the limit")
    parser.add_argument("--size", choices=["small", "full"], default="full", help="targets are judged at full size only")
    parser.add_argument("--data", type=Path, metavar="DIR", help="search, loop: a folder with their tables, Parquet files")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.names) - set(NAMES)):
        parser.error(f"no claim {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if asked.data:
        try:
            classic(asked.data)
        except FileNotFoundError as error:
            parser.error(str(error))
    asked.names = asked.names or [n for n in NAMES if n not in _WHEN_NAMED]
    return asked


def _claims(name: str) -> tuple[Claim | Study | Load | Replays | Canaries | Quiet, ...]:
    claims: tuple[Claim | Study | Load | Replays | Canaries | Quiet, ...] = import_module(f"benchmarks.{name}").CLAIMS
    return claims


def _libraries(measured: list[dict]) -> str:
    versions = {f"{n} {v}" for claim in measured for side in claim["sides"] for n, v in side["versions"].items()}
    return f"Libraries: {', '.join(sorted(versions))}."


if __name__ == "__main__":
    sys.exit(main())
