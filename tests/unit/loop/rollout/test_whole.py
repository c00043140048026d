"""No pointer moves to a bundle whose files changed; and when a run has ended it is said what serves."""

from __future__ import annotations

import pytest
from test_releases import HOUR, START, advance, begin, both, last, look, modes, opened, version

from mulle.core.errors import BundleError
from mulle.loop.monitoring.telling import message_of
from mulle.loop.operate import deploy, promote, rollback
from mulle.loop.parts import Parts
from mulle.loop.rollout.standing import what_serves
from mulle.loop.views.status import status_view

__all__ = ["opened"]


def spoil(parts: Parts, *numbers: int) -> None:
    """Change a file of these versions' bundles."""
    for number in numbers:
        (parts.settings.home / "bundles" / f"b{number}" / "model.onnx").write_bytes(b"rot")


@pytest.mark.parametrize("rotten", [(3,), (3, 1)])
def test_the_loop_goes_back_to_the_newest_champion_whose_files_are_whole_or_stays_and_says_so_once(opened, rotten):
    parts = opened("ml.canary(50, 100)")
    version(parts, 3)
    deploy(parts, "m", 3, by="ada")
    begin(parts)
    promote(parts, "m", by="ada")
    advance(parts, START + HOUR)
    both(parts, 2, 3, {2: 2.0, 3: 1.0}, START + HOUR)
    spoil(parts, *rotten)
    found = look(parts, START + 2 * HOUR)
    why = last(parts).causes[0].why
    assert "worse: " in why
    assert "; @3 is not gone back to: " in why
    assert "b3 is not the bundle that was registered: expected " in why
    if rotten == (3,):
        assert (last(parts).action, modes(parts)) == ("rollback", {1: "champion"})
        return
    assert (last(parts).action, modes(parts)) == ("hold", {2: "champion", 3: "shadow"})
    assert next(text for kind, _, text in found.happenings if kind == "hold").endswith(
        "no champion before it is whole: restore the folder, or `mulle deploy m@VERSION`"
    )
    assert "and stays for now (" in status_view(parts)["models"][0]["says"]
    assert not [h for h in look(parts, START + 3 * HOUR).happenings if h[0] == "hold"]
    (alert,) = (a for a in parts.metadata.alerts.list("m", state="open") if a.signal == "rollback")
    assert (alert.severity, alert.evidence["reason"] == why, alert.next) == (
        "critical", True, "restore the folder, or `mulle deploy m@VERSION`",
    )  # fmt: skip
    (told,) = (u for u in parts.metadata.outbox.due(parts.clock.now()) if u.alert.id == alert.id)
    assert "b3 is not the bundle that was registered" in message_of(told).body
    (parts.settings.home / "bundles" / "b1" / "model.onnx").unlink()
    look(parts, START + 4 * HOUR)
    assert (last(parts).action, modes(parts)) == ("rollback", {1: "champion"}), "put right, it is gone back to"
    look(parts, START + 5 * HOUR)
    assert not [a for a in parts.metadata.alerts.list("m", state="open") if a.signal == "rollback"]


def test_a_person_is_refused_a_version_whose_files_changed_and_told_of_one_that_is_whole(opened):
    parts = opened("ml.canary(50, 100)")
    version(parts, 3)
    deploy(parts, "m", 3, by="ada")
    begin(parts)
    spoil(parts, 2, 3)
    with pytest.raises(BundleError, match="b2 is not the bundle that was registered"):
        promote(parts, "m", by="ada")
    (parts.settings.home / "bundles" / "b2" / "model.onnx").unlink()
    promote(parts, "m", by="ada")
    with pytest.raises(BundleError, match="m@3 is not gone back to: ") as refused:
        rollback(parts, "m", by="ada")
    assert refused.value.next == "restore the folder, or go back to one that is whole: `mulle rollback m --to 1`"
    assert modes(parts) == {2: "champion", 3: "shadow"}
    spoil(parts, 1)
    with pytest.raises(BundleError) as refused:
        rollback(parts, "m", by="ada", to=1)
    assert refused.value.next == "restore the folder, or see `mulle models ls m`"


def test_what_staging_has_is_refused_to_production_when_its_files_changed(opened):
    parts = opened('ml.canary(50, 100, staging=True, hold="1h")')
    begin(parts)
    spoil(parts, 2)
    with pytest.raises(BundleError, match="b2 is not the bundle that was registered"):
        promote(parts, "m", by="ada")
    assert modes(parts) == {1: "champion"}


def test_when_a_run_has_ended_it_is_said_what_serves_and_why(opened):
    parts = opened("ml.canary(20, 100, approval=True)")
    run = {"model": "m", "model_version": 2, "state": "succeeded", "gates": [], "reason": "", "release": ""}

    def said(**more: object) -> str:
        return what_serves(parts, run | more)

    assert said(model_version=1) == "m 1 serves production"
    gates = [
        {"name": "at_most(mae)", "verdict": "fail", "reason": "6 is above 5"},
        {"name": "parity", "verdict": "pass", "reason": ""},
    ]
    refused = said(model_version=None, state="rejected", gates=gates, reason="a gate failed")
    assert refused == "m 1 goes on serving production: gate at_most(mae) refused (6 is above 5)"
    assert said(model_version=None, state="failed", reason="no rows").endswith("production: no rows")
    assert said(model_version=None, state="cancelled").endswith("production: the run ended as cancelled")
    assert said(model_version=None).endswith("production: the run left its shared model as it is")
    assert said(release="m is paused by ada").endswith("production: m is paused by ada")
    assert said(model="n") == "nothing of n serves production yet: 2 is not released: `mulle deploy n@2` releases it by hand"
    begin(parts)
    assert said() == "m 1 goes on serving production: 2 takes 20% as a canary"
    promote(parts, "m", by="ada")
    assert said() == "m 2 serves production"
