"""``python -m benchmarks [NAME ...] [--no-peers] [--size small|full] [--json]``: measure the claims and print them."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks.claim import Claim
from benchmarks.machine import machine
from benchmarks.measure import measure
from benchmarks.report import as_json, as_text

__all__ = ["main"]

NAMES = ("point_in_time", "online_read", "materialise", "checks", "ingest")
_RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit code 1 when an answer differs, a side of ours failed, or a target is missed."""
    asked = _parse(arguments)
    found = machine()
    if not asked.json:
        print(", ".join(f"{name} {value}" for name, value in found.items()), end="\n\n", flush=True)
    measured, wrong = [], False
    for claim in (c for name in asked.names for c in _claims(name)):
        outcomes = measure(claim, asked.size, peers=not asked.no_peers, say=lambda text: print(text, file=sys.stderr, flush=True))
        told = as_json(claim, asked.size, outcomes)
        wrong |= any(o.failed for o in outcomes.values() if not o.side.peer or "another answer" in o.failed)
        wrong |= any(t["met"] is False for t in told["targets"])
        measured.append(told)
        if not asked.json:
            print(as_text(claim, asked.size, outcomes), flush=True)
    document = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": found, "claims": measured}
    if asked.json:
        print(json.dumps(document, indent=2))
    else:
        print(_libraries(measured))
    if asked.size == "full":
        _RESULTS.mkdir(exist_ok=True)
        (_RESULTS / f"{document['at'].replace(':', '')}.json").write_text(json.dumps(document, indent=2))
    return int(wrong)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--no-peers", action="store_true", help="only our side and the limit")
    parser.add_argument("--size", choices=["small", "full"], default="full", help="targets are judged at full size only")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.names) - set(NAMES)):
        parser.error(f"no claim {', '.join(unknown)}; there are {', '.join(NAMES)}")
    asked.names = asked.names or list(NAMES)
    return asked


def _claims(name: str) -> tuple[Claim, ...]:
    claims: tuple[Claim, ...] = import_module(f"benchmarks.{name}").CLAIMS
    return claims


def _libraries(measured: list[dict]) -> str:
    versions = {f"{n} {v}" for claim in measured for side in claim["sides"] for n, v in side["versions"].items()}
    return f"Libraries: {', '.join(sorted(versions))}."


if __name__ == "__main__":
    sys.exit(main())
