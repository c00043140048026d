"""The demo as it happens: a bar over simulated time with a line per happening; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mulle.core.clock import instant
from mulle.core.records.base import Json

if TYPE_CHECKING:
    from rich.console import Console

    from mulle.loop.replay.play import Said

__all__ = ["live"]

_STYLES = {
    "run": "cyan", "verdict": "green", "alert": "yellow", "canary": "magenta", "promote": "bold green",
    "hold_back": "bold red", "quarantine": "bold red",
}  # fmt: skip
_EVERY = 5.0
"""Seconds between two status lines where there is no terminal."""


@contextmanager
def live(console: Console, start: datetime, end: datetime) -> Iterator[Said]:
    """Show what is said until the block ends.

    Parameters
    ----------
    console : rich Console
        Lines that move only when it is a terminal.
    start, end : datetime
        The simulated span.

    Yields
    ------
    callable
        To be told of happenings: ``kind``, ``at``, ``text``, and ``requests`` and ``failed`` so far.
    """
    if not console.is_terminal:
        yield _Plain(console)
        return
    counts = TextColumn("{task.fields[counts]}")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), counts, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Moving(bar, start, end)


class _Rate:
    """Requests a second since the traffic began."""

    def __init__(self) -> None:
        self._began: float | None = None

    def counts(self, event: Json) -> str:
        now = time.monotonic()
        self._began = self._began or now
        requests, failed = event.get("requests", 0), event.get("failed", 0)
        passed = now - self._began
        rate = f" · {requests / passed:,.0f}/s" if passed > 1 else ""
        return f"{requests:,} requests{rate} · {failed} failed"


class _Moving:
    def __init__(self, bar: Progress, start: datetime, end: datetime) -> None:
        self._bar, self._start, self._rate = bar, start, _Rate()
        self._task = bar.add_task("", total=max(1.0, (end - start) / timedelta(days=1)), counts="")

    def __call__(self, event: Json) -> None:
        if event["kind"] == "stage":
            self._bar.update(self._task, description=str(event["text"]), counts="", refresh=True)
            return
        at = instant(str(event["at"]))
        passed = (at - self._start) / timedelta(days=1)
        if event["kind"] == "tick":
            self._bar.update(self._task, completed=passed, description=f"{at:%Y-%m-%d}", counts=self._rate.counts(event))
            return
        line = Table.grid(padding=(0, 2))
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, min_width=10)
        line.add_column(overflow="fold")
        line.add_row(Text(f"{at:%Y-%m-%d}", style="dim"), Text(_word(event), style=_style(event)), Text(str(event["text"])))
        self._bar.console.print(line)


class _Plain:
    def __init__(self, console: Console) -> None:
        self._console, self._rate = console, _Rate()
        self._began = self._last = time.monotonic()

    def __call__(self, event: Json) -> None:
        text = str(event["text"])
        if event["kind"] == "stage":
            self._print(text)
        elif event["kind"] != "tick":
            self._print(f"{str(event['at'])[:10]}  {_word(event):<10}  {text}")
        else:
            counts = self._rate.counts(event)
            now = time.monotonic()
            if now - self._last >= _EVERY:
                self._last = now
                self._print(f"{str(event['at'])[:10]}  {'...':<10}  {counts} · {now - self._began:.0f} s")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def _word(event: Json) -> str:
    return str(event["kind"]).replace("_", " ")


def _style(event: Json) -> str:
    text = str(event["text"])
    if event["kind"] == "verdict" and text.startswith("held back"):
        return "bold red"
    return "dim" if event["kind"] == "alert" and text.endswith(": closed") else _STYLES.get(str(event["kind"]), "")
