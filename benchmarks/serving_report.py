"""A load's figures as tables to read and as JSON to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.claim import Size
from benchmarks.report import table, verdict
from benchmarks.serving_load import Found, Load

__all__ = ["as_json", "as_text"]

_MIB = 2**20


def as_text(load: Load, size: Size, found: Found) -> str:
    """Write a load as Markdown: its servers, its targets, and where a request's time goes."""
    ours = found.servers[load.sides[0].name]
    rows = [("", "requests/s", "Mulle x", "p50", "p99", "CPU a request", "memory", "")]
    for name, reached in found.servers.items():
        if reached.failed:
            rows.append((name, *"------", f"{reached.server.note}; {reached.failed}"))
            continue
        best = reached.best
        ratio = "-" if ours.failed else f"{ours.best.rate / best.rate:.2f}"
        times = (_ms(best.p50), _ms(best.p99), f"{best.cpu * 1e6:,.0f} us", f"{reached.memory_bytes / _MIB:,.0f} MiB")
        rows.append((name, f"{best.rate:,.0f}", ratio, *times, reached.server.note))
    good = found.good()
    lines = [f"### {load.name}", "", load.says.format_map(load.sizes[size]), *_busy(found), "", *table(rows), ""]
    lines += [f"- {t.says}: {verdict(t.figure(good), t.met(good), size)}" for t in load.targets]
    return "\n".join([*lines, "", *_parts(found, None if ours.failed else ours.best.cpu), ""])


def _busy(found: Found) -> list[str]:
    if found.busy <= 0.1:
        return []
    return ["", f"**Under load**: others took up to {found.busy:.0%} of the machine during a round; the figures are too low."]


def _parts(found: Found, cpu: float | None) -> list[str]:
    if not found.parts:
        return []
    names = list(next(iter(found.parts.values())))
    rows = [("microseconds of a request", *(f"{count} in a batch" for count in found.parts))]
    rows += [(name, *(f"{steps.get(name, 0) * 1e6:.1f}" for steps in found.parts.values())) for name in names]
    sums = [sum(steps.values()) for steps in found.parts.values()]
    rows.append(("**sum**", *(f"**{s * 1e6:.1f}**" for s in sums)))
    if cpu is not None:
        rows.append(("HTTP, event loop, hand-over", *("-" for _ in sums[:-1]), f"{(cpu - sums[-1]) * 1e6:.1f}"))
    return [
        *table(rows),
        "",
        "Medians; the last line is what is left of the processor time of a request under load.",
        "",
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def as_json(load: Load, size: Size, found: Found) -> dict[str, Any]:
    """Give a load as a JSON object."""
    good = found.good()
    sides = [
        {
            "name": name,
            "peer": p.server.peer,
            "given": p.server.given,
            "note": p.server.note,
            "rounds": [{"rate": r.rate, "p50": r.p50, "p99": r.p99, "cpu": r.cpu, "busy": r.busy} for r in p.rounds],
            "memory_bytes": p.memory_bytes,
            "versions": dict(p.versions),
            "failed": p.failed or None,
        }
        for name, p in found.servers.items()
    ]
    targets = [
        {"says": t.says, "bound": t.bound, "figure": t.figure(good), "met": t.met(good) if size == "full" else None}
        for t in load.targets
    ]
    numbers: Mapping[str, int] = load.sizes[size]
    return {
        "name": load.name, "size": size, "numbers": dict(numbers), "sides": sides, "targets": targets,
        "parts_seconds": {count: dict(steps) for count, steps in found.parts.items()}, "busy": found.busy,
    }  # fmt: skip
