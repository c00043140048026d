"""Policies of a replay side by side, killed in the middle and played again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mulle.adapters.metadata.connect import open_metadata

sys.path.insert(0, str(Path(__file__).parent))
from replay_project import write_project

POLICIES = ("frozen", "every-window", "declared", "swift:cooldown=2d,rollout=immediate,search=90d")


def replaying(folder: Path, *words: str) -> list[str]:
    """The command; its words beside the policies of a replay of eight days in which the world changes."""
    asked = [part for policy in POLICIES for part in ("--policy", policy)]
    command = [sys.executable, "-m", "mulle", "--project", str(folder), "replay", "minutes", "--json"]
    return [*command, "--from", "2024-01-24", "--to", "2024-02-01", *asked, *words]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("policies") / "project", days=31)


@pytest.fixture(scope="module")
def compared(world: Path) -> dict[str, Any]:
    """Killed in its second policy, asked again, and played once more from the start."""
    page = world / "page.html"
    first = subprocess.Popen(replaying(world), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    root = world / ".mulle" / "replays"
    deadline = time.monotonic() + 600
    while not any(any((p.parent / "every-window" / "log").glob("*.seg")) for p in root.glob("*/frozen.json")):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.wait()
    (folder,) = (p.parent for p in root.glob("*/question.json"))
    before = (folder / "frozen.json").stat().st_mtime_ns
    left = (folder / "every-window" / "serve.lock").read_text()
    told = [subprocess.run(replaying(world, "--html", str(page)), capture_output=True, text=True, timeout=900) for _ in range(2)]
    assert [t.returncode for t in told] == [0, 0], told[0].stderr[-3000:]
    went_on, anew = (json.loads(t.stdout) for t in told)
    return {
        "folder": folder,
        "before": before,
        "left": left,
        "went_on": went_on,
        "anew": anew,
        "err": told[0].stderr,
        "page": page,
    }


def test_a_replay_that_was_killed_goes_on_and_plays_no_finished_policy_again(compared: dict[str, Any]) -> None:
    assert compared["went_on"]["id"] == compared["folder"].name != compared["anew"]["id"]
    assert "policy frozen was played before" in compared["err"]
    assert (compared["folder"] / "frozen.json").stat().st_mtime_ns == compared["before"]
    if compared["left"]:
        with pytest.raises(ProcessLookupError):
            os.kill(int(compared["left"]), signal.SIG_DFL)


def test_policies_stand_side_by_side_with_figures_of_their_own(compared: dict[str, Any]) -> None:
    found, accounts = compared["went_on"]["policies"], compared["went_on"]["accounts"]
    assert list(found) == ["frozen", "every-window", "declared", "swift"]
    assert {p["requests"] for p in found.values()} == {accounts["frozen"]["rows"]}
    assert {p["failed_requests"] for p in found.values()} == {0}
    assert (found["frozen"]["retrainings"], found["frozen"]["promotions"]) == (0, 0)
    assert (found["every-window"]["retrainings"], found["every-window"]["promotions"]) == (8, 8)
    assert 1 <= found["declared"]["retrainings"] < 8
    assert found["frozen"]["alerts"] >= 1, "a frozen model is watched like any other"
    assert found["every-window"]["score"] < 0.9 * found["frozen"]["score"]
    assert found["every-window"]["cpu_seconds"] > found["frozen"]["cpu_seconds"] > 0
    assert {w for r in accounts["swift"]["deployments"][1:] for w in [r["action"]]} <= {"deploy", "rollback"}, "no canary"
    # What was served frozen is what the first model of any other policy would have said.
    assert found["frozen"]["score"] == pytest.approx(accounts["declared"]["policies"]["frozen"]["score"], rel=1e-6)
    for name, policy in found.items():
        months = [(m["rows"], m[name]) for m in compared["went_on"]["by_month"]]
        assert policy["score"] == pytest.approx(sum(n * s for n, s in months) / sum(n for n, _ in months))


def test_a_policy_that_searches_seldom_trains_the_settings_it_has_on_newer_rows(compared: dict[str, Any]) -> None:
    swift = compared["went_on"]["accounts"]["swift"]
    runs = open_metadata(f"sqlite:///{swift['home']}/mulle.db").runs
    assert [len(runs.trials(r["id"])) for r in swift["runs"]] == [3] + [0] * (len(swift["runs"]) - 1)
    assert len(swift["runs"]) > 1
    assert swift["runs"][1]["model_version"] == 2
    assert compared["went_on"]["policies"]["swift"]["score"] < compared["went_on"]["policies"]["frozen"]["score"]


def test_asked_twice_it_says_the_same(compared: dict[str, Any]) -> None:
    clocked = {"seconds", "compute_seconds", "cpu_seconds"}
    one, two = (
        {name: {k: v for k, v in told.items() if k not in clocked} for name, told in compared[which]["policies"].items()}
        for which in ("went_on", "anew")
    )
    assert one == two
    assert compared["went_on"]["by_month"] == compared["anew"]["by_month"]


def test_the_page_needs_no_network_and_names_every_policy_and_run(compared: dict[str, Any]) -> None:
    page = compared["page"].read_text()
    assert "<script src=" not in page
    assert all(name in page for name in compared["anew"]["policies"])
    assert page.count("policy every-window: a window of 1 days ended") == 8
