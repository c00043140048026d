"""The benchmark of canaries: simulated with the platform's own verdict, counted by end, and tabled with its targets."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from benchmarks import __main__ as main

canary = import_module("benchmarks.canary")


def test_canaries_are_judged_by_the_platforms_own_verdict_and_tabled() -> None:
    claim = canary.CLAIMS[0]
    few = replace(claim, sizes={"small": {"canaries": 12, "rows": 6_000}}, cases=claim.cases[:4])
    said: list[str] = []
    found = canary.judged(few, "small", said.append)
    by_name = {one.case.name: one for one in found}
    assert by_name["2% worse"].ends == {"worse": 1.0}
    assert by_name["2% better"].ends == {"promoted": 1.0}
    assert by_name["2% better"].fixed == 430
    assert by_name["2% better"].rows > 430
    assert by_name["equal"].share == 0.0
    assert by_name["equal"].ends == by_name["equal and cheaper"].ends
    assert said == [f"Canary: {name}" for name in ("2% worse", "equal", "2% better")]
    text = canary.as_text(few, "small", found)
    assert "| 2% better " in text
    assert "12 simulated canaries per case" in text
    told = canary.as_json(few, "small", found)
    assert [t["met"] for t in told["targets"]] == [None] * 4
    assert "canary" in main.NAMES
