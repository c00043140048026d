"""What is shown while the demo plays and when it is over, in a terminal and in a pipe."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from mulle.core.clock import instant
from mulle.surfaces.demo.live import live
from mulle.surfaces.demo.tables import closing

START, END = instant("2013-03-01"), instant("2013-03-11")
EVENTS = (
    {"kind": "stage", "at": "", "text": "deriving the tables"},
    {"kind": "tick", "at": "2013-03-06T00:00:00Z", "text": "", "requests": 1234, "failed": 2},
    {"kind": "hold_back", "at": "2013-03-06T00:00:00Z", "text": "air-time@2: worse [by far]", "requests": 1234, "failed": 2},
)


@pytest.mark.parametrize("terminal", [True, False])
def test_every_happening_is_a_line_with_its_simulated_date(terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    with live(console, START, END) as said:
        for event in EVENTS:
            said(event)
    assert "deriving the tables" in out.getvalue()
    assert any(all(w in line for w in ("2013-03-06", "hold back", "worse [by far]")) for line in out.getvalue().splitlines())


def test_a_terminal_shows_date_and_counts_on_its_moving_line():
    out = io.StringIO()
    with live(Console(file=out, force_terminal=True, width=120, color_system=None), START, END) as said:
        for event in EVENTS:
            said(event)
    assert "1,234 requests · 2 failed" in out.getvalue()


def test_a_pipe_is_not_flooded_by_ticks():
    out = io.StringIO()
    with live(Console(file=out, width=120), START, END) as said:
        for _ in range(100):
            said(EVENTS[1])
    assert out.getvalue() == ""


def printed(account) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200)
    for item in closing(account, Path("my demo")):
        console.print(item)
    return out.getvalue()


def test_the_end_tells_of_every_run_deployment_and_hold_back_with_cause_and_gate(account):
    text = printed(account)
    assert "rejected by at_most(mae, 14): <b>9</b>" in text
    assert "champion 1 80%, canary 2 20%" in text
    assert "one_of(carrier)" in text
    assert [line.split() for line in text.splitlines() if line.startswith("psi of wind")] == [
        ["psi", "of", "wind", "2", "1", "2013-06-02"]
    ]


def test_the_headline_and_the_next_steps_come_last(account):
    text = printed(account)
    assert "Mean MAE, June 2013: 12.00 frozen -> 6.00 Mulle  (50.0% lower)" in text
    assert text.index("Mean MAE") > text.index("MAE by month")
    assert "mulle explain P1 --project 'my demo'" in text
