"""Pausing and moving pointers on the command line: what is said in words, and what a wrong word is told."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from mulle.core.errors import ProjectError
from mulle.kernel.project import hash_code
from mulle.loop.declared import note_broken
from mulle.loop.operate import snapshot_code
from mulle.surfaces.cli.main import call


@pytest.fixture
def cli(home, capsys, monkeypatch):
    monkeypatch.chdir(home.folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = call(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_pause_is_said_wherever_one_looks_until_it_ends(cli):
    code, out, _ = cli("pause", "air-time", "--why", "prices change")
    assert code == 0
    assert "pause" in out
    assert "version 1 75%" in out or "75%" in out, "the canary stays as it is"
    assert "its automation is paused by" in cli("status")[1]
    assert "prices change" in cli("status")[1]
    assert "its automation is paused" in cli("history", "air-time")[1]
    assert "prices change" in cli("monitor", "air-time")[1]
    again = cli("pause", "air-time", "--json")
    assert (again[0], json.loads(again[2])["detail"]) == (1, "air-time is paused already")
    assert json.loads(cli("resume", "air-time", "--json")[1])["paused"] is False
    assert "paused" not in cli("status")[1]
    items = json.loads(cli("history", "air-time", "--json")[1])["items"]
    assert [i["action"] for i in items] == ["resume", "pause", "canary", "deploy"]


def test_a_canary_is_promoted_by_hand_and_watched_and_gone_back_from(cli):
    promoted = json.loads(cli("promote", "air-time", "--json")[1])
    assert [(r["version"], r["mode"], r["share"]) for r in promoted["routes"]] == [(2, "champion", 1.0), (1, "shadow", 0.0)]
    assert "it is watched beside version 1" in cli("status")[1]
    assert json.loads(cli("rollback", "air-time", "--json")[1])["to"] == 1


def test_history_at_an_instant_says_what_served_made_of_which_data_by_which_code(cli):
    code, out, _ = cli("history", "air-time", "--at", "2013-03-02 08:00")
    assert code == 0
    for said in ("air-time@1 as champion, 75%", "air-time@2 as canary, 25%", "run-1", "flights@1 (10 rows, h1)", "c0de"):
        assert said in out


def test_environments_are_two(cli):
    assert json.loads(cli("deploy", "air-time@2", "--environment", "staging", "--json")[1])["environment"] == "staging"
    assert "staging has version 2" not in cli("status")[1], "it is the canary already"
    assert json.loads(cli("history", "air-time", "--environment", "staging", "--json")[1])["items"][0]["to"] == 2
    code, _, err = cli("history", "air-time", "--environment", "attic")
    assert (code, "choose from production, staging" in err) == (2, True)
    assert cli("promote", "air-time", "--environment", "staging")[0] == 2


def test_a_bundle_whose_files_changed_is_not_deployed_and_nothing_moves(cli, home, request):
    version = home.parts.metadata.models.get("air-time", 2)
    contract = Path(version.address) / "bundle.json"
    # Every copy of the home names these files.
    request.addfinalizer(partial(contract.write_text, contract.read_text()))
    contract.write_text("{}")
    before = cli("history", "air-time", "--json")[1]
    code, _, err = cli("deploy", "air-time@2")
    assert (code, "is not the bundle that was registered: expected" in err, "next: restore the folder" in err) == (1, True, True)
    assert cli("history", "air-time", "--json")[1] == before


@pytest.mark.parametrize("known", [False, True])
def test_a_project_file_that_is_broken_keeps_nobody_from_looking_and_going_back(cli, home, known):
    in_force = snapshot_code(home.parts)
    file = home.folder / "project.py"
    # What the loop has found to end its process is not executed by whoever only looks.
    file.write_text(file.read_text() + ("import os\nos._exit(0)\n" if known else "raise RuntimeError('poison')\n"))
    if known:
        error = ProjectError("it ended the process that loaded it", next="take that out of it")
        note_broken(home.parts.settings.home, error, home.parts.clock.now(), tried=hash_code(home.folder), in_force=in_force)
    said = "it ended the process" if known else "RuntimeError: poison"
    for looked in (("status",), ("alerts",), ("runs", "ls"), ("models", "ls"), ("monitor", "air-time"), ("history", "air-time")):
        code, out, err = cli(*looked)
        assert (code, said in err, "this goes by the last good declaration" in err, bool(out)) == (0, True, True, True), looked
    assert json.loads(cli("promote", "air-time", "--json")[1])["to"] == 2
    assert json.loads(cli("rollback", "air-time", "--json")[1])["to"] == 1
    assert json.loads(cli("pause", "air-time", "--json")[1])["paused"] is True
    if not known:
        assert cli("run", "air-time")[0] == 2, "what trains goes by the file"
