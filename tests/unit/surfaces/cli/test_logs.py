"""Searching the home's log on the command line."""

from __future__ import annotations

import json
import logging

import pytest

from mulle.core.clock import instant
from mulle.kernel.logs import LogFile
from mulle.surfaces.cli.main import call


@pytest.fixture
def run(home, capfd, monkeypatch):
    monkeypatch.setenv("MULLE_PROJECT", str(home.folder))
    handler = LogFile(home.parts.settings.home, "up")
    log = logging.Logger("mulle.loop")
    log.addHandler(handler)
    for number, (level, model, at) in enumerate(
        [("DEBUG", "air-time", "2026-03-01"), ("INFO", "air-time", "2026-03-02"), ("ERROR", "idle", "2026-03-03")]
    ):
        record = log.makeRecord(
            "mulle.loop",
            getattr(logging, level),
            "",
            0,
            f"line {number}\x1b[31m",
            (),
            None,
            extra={"model": model, "run": f"r{number}"},
        )
        record.created = instant(at).timestamp()
        handler.emit(record)

    def told(*words: str) -> tuple[int, str, str]:
        code = call(("logs", *words))
        out = capfd.readouterr()
        return code, out.out, out.err

    return told


def found(run, *words: str) -> list[str]:
    code, out, _ = run(*words, "--json")
    assert code == 0
    return [line["run"] for line in json.loads(out)["items"]]


def test_lines_are_chosen_by_what_is_asked(run):
    assert found(run) == ["r1", "r2"], "from info on"
    assert found(run, "--level", "debug") == ["r0", "r1", "r2"]
    assert found(run, "--level", "error") == ["r2"]
    assert found(run, "--model", "air-time", "--level", "debug") == ["r0", "r1"]
    assert found(run, "--run", "r2") == ["r2"]
    assert found(run, "--since", "2026-03-02T12:00:00Z") == ["r2"]
    assert found(run, "--since", "1s") == []
    assert found(run, "--level", "debug", "--limit", "1") == ["r2"], "the last ones"


def test_a_line_is_told_in_words_and_steers_no_terminal(run):
    _, out, _ = run("--run", "r2")
    assert "error" in out
    assert "model=idle run=r2" in out
    assert "line 2" in out
    assert "\x1b" not in out


def test_a_prediction_of_the_log_is_found_with_the_run_behind_it(run, home):
    (line,) = json.loads(run("--request", "p1", "--since", "2013-01-01", "--json")[1])["items"]
    assert (line["prediction"], line["model"]) == (["p1"], "air-time")
    assert line["run"] == home.parts.metadata.models.get("air-time", line["version"]).run


def test_what_cannot_be_asked_is_told(run):
    assert run("--level", "loud")[0] == 2
    assert run("--since", "soon")[0] == 2
