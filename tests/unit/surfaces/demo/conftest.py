"""An account of a demo in small, for what tells of it."""

from __future__ import annotations

from typing import Any

import pytest


def cause(why: str) -> list[dict[str, str]]:
    return [{"type": "alert", "id": "A1", "why": why}]


def gate(verdict: str) -> dict[str, Any]:
    return {
        "gate": "at_most(mae, 14)",
        "metric": "mae",
        "value": 9.0,
        "bound": 14.0,
        "verdict": verdict,
        "reason": "<b>9</b>",
        "rows": 5,
    }


def run(id: str, state: str, version: int | None, verdict: str) -> dict[str, Any]:
    return {
        "id": id, "created_at": "2013-06-20T00:00:00Z", "causes": cause("drift of wind"), "state": state, "reason": "",
        "options": {}, "model_version": version, "seconds": 3.21, "gates": [gate(verdict)],
    }  # fmt: skip


def alert(feature: str, closed: str | None) -> dict[str, Any]:
    return {
        "id": "A1", "created_at": "2013-06-02T00:00:00Z", "causes": [], "model": "air-time", "signal": "psi", "feature": feature,
        "severity": "critical", "evidence": {"value": 0.5, "bound": 0.3}, "next": "", "closed_at": closed,
        "state": "closed" if closed else "open",
    }  # fmt: skip


@pytest.fixture
def account() -> dict[str, Any]:
    routes = [{"version": 1, "share": 0.8, "mode": "champion"}, {"version": 2, "share": 0.2, "mode": "canary"}]
    moved = {
        "id": "D1",
        "model": "air-time",
        "effective_at": "2013-06-03T06:00:00Z",
        "by": "loop",
        "routes": routes,
        "to_version": 2,
    }
    scores = {"rows": 900, "frozen": 12.0, "mulle": 6.0}
    return {
        "id": "d", "created_at": "2026-01-01T00:00:00Z", "seconds": 99.5, "requests": 50_000, "failed_requests": 0,
        "failures": [],
        "label_requests": 10, "connections": 8, "model": "air-time", "metric": "mae", "from": "2013-06-01T00:00:00Z",
        "to": "2013-07-01T00:00:00Z", "score_from": "2013-06-01T00:00:00Z", "rows": 1000, "labelled": 900, "never": 10,
        "promotions": 1, "mae_frozen": 12.0, "mae_mulle": 6.0, "improvement": 0.5, "example": "P1",
        "held_back": [{"what": "batch", "id": "Q1", "at": "2013-06-10T00:00:00Z", "by": ["one_of(carrier)"], "why": "a drill"}],
        "by_month": [{"month": "2013-06", **scores}],
        "by_day": [{"day": "2013-06-01", **scores, "versions": {"1": 3}},
                   {"day": "2013-06-02", **scores, "versions": {"1": 1, "2": 3}}],
        "runs": [run("R1", "succeeded", 2, "pass"), run("R2", "rejected", None, "fail")],
        "alerts": [alert("wind", "2013-06-05T00:00:00Z"), alert("wind", None), alert("hour", None)],
        "deployments": [{**moved, "action": "canary", "causes": cause("a")},
                        {**moved, "action": "promote", "causes": cause("b")}],
        "drills": [{"kind": "bad_batch", "at": "2013-06-10T00:00:00Z"}],
        "machine": {"cores": 2, "system": "Linux x86_64", "python": "3.11.0"},
    }  # fmt: skip
