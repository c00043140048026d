"""The command that searches the home's log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mulle.surfaces.cli.session import Session, session

if TYPE_CHECKING:
    from datetime import datetime

    from mulle.core.records.base import Json
    from mulle.kernel.logs import Wanted

__all__ = ["logs"]

_PAUSE = 0.3


def logs(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only lines about this model; of a fleet, its members' too.")] = None,
    run: Annotated[str | None, typer.Option(help="Only lines about this run.")] = None,
    request: Annotated[
        str | None, typer.Option(help="Only lines about this request, by X-Request-Id, our own id or a prediction's.")
    ] = None,
    level: Annotated[str, typer.Option(help="This level and those above: debug, info, warning, error, critical.")] = "info",
    since: Annotated[str | None, typer.Option(help="Not older than this span (1h) or time (RFC 3339).")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the last ones.", min=1, max=100_000)] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Then show what is added, until it is stopped.")] = False,
) -> None:
    """Search what the processes of this home have logged, oldest first."""
    from mulle.kernel.logs import LEVELS, Wanted
    from mulle.loop.views.logbook import logs_view

    call = session(ctx)
    if level not in LEVELS:
        from mulle.core.errors import UsageError

        raise UsageError(f"no level '{level}'", next=f"choose from {', '.join(LEVELS)}")
    wanted = Wanted(model=model, run=run, request=request, level=level, since=_instant(call, since))
    view = logs_view(call.standing, wanted, limit)
    if call.json and not follow:
        call.show(view, lambda _: [])
        return
    for line in view["items"]:
        _tell(call, line)
    if follow:
        _follow(call, wanted)


def _instant(call: Session, since: str | None) -> datetime | None:
    from mulle.core.clock import duration, instant
    from mulle.core.errors import DeclarationError

    if since is None:
        return None
    try:
        return call.standing.clock.now() - duration(since)
    except DeclarationError:
        return instant(since)


def _follow(call: Session, wanted: Wanted) -> None:
    import time

    from mulle.kernel.logs import follow_log

    def wait() -> bool:
        time.sleep(_PAUSE)
        return True

    for line in follow_log(call.settings.home, wanted, wait):
        _tell(call, line)


def _tell(call: Session, line: Json) -> None:
    import json

    # One document a line: a listing without an end has no brackets to close.
    sys.stdout.write((json.dumps(line, ensure_ascii=False) if call.json else _words(line)) + "\n")
    sys.stdout.flush()


def _words(line: Json) -> str:
    about = " ".join(f"{name}={line[name]}" for name in ("model", "run", "request") if line.get(name))
    text = str(line["text"]).encode("unicode_escape").decode() if not str(line["text"]).isprintable() else line["text"]
    error = f" [{line['error']['type']}: {line['error']['detail']}]" if line.get("error") else ""
    return f"{line['at']} {line['level']:<7} {line['process']:<6} {text}{error}  {about}".rstrip()
