"""Commands about runs: list, show, cancel, go on with, repeat; and the worker that takes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mulle.surfaces.cli.act import ended, log_to, progress_of
from mulle.surfaces.cli.session import Session, session, write_page

if TYPE_CHECKING:
    from mulle.core.records.run import Run

__all__ = ["cancel", "ls", "repeat", "resume", "show"]

OneRun = Annotated[str, typer.Argument(metavar="RUN")]
Limit = Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)]
OfModel = Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this model's.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="What the run does otherwise: trials=50, timeout=5m, seed=1 ...; repeatable."),
]
Detached = Annotated[bool, typer.Option("--detach", help="Do not wait for its end: an engine of this home takes it.")]


def ls(
    ctx: typer.Context,
    model: OfModel = None,
    state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    limit: Limit = 20,
    after: Annotated[str | None, typer.Option(help="Continue below this run.")] = None,
) -> None:
    """List runs, newest first."""
    from mulle.core.errors import UsageError
    from mulle.core.records.run import STATES
    from mulle.loop.views.chain import runs_view
    from mulle.surfaces.cli import render

    if state is not None and state not in STATES:
        raise UsageError(f"no run state '{state}'", next=f"choose from {', '.join(STATES)}")
    call = session(ctx)
    call.show(runs_view(call.standing, model=model, state=state, limit=limit, after=after), render.runs)


def show(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN")],
    page: Annotated[
        Path | None, typer.Option(help="Also write the search as one HTML page: history, parameters, importance.")
    ] = None,
) -> None:
    """Show a run: its cause, stages and trials, what was measured of the winner, and the gates."""
    from mulle.loop.views.chain import run_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    if page is not None:
        from mulle.loop.views.models import search_view
        from mulle.surfaces.search_page import search_page

        view = search_view(call.standing, run)
        write_page(page, search_page(view, view["importance"]))
    call.show(run_view(call.standing, run), render.run_explained)


def cancel(
    ctx: typer.Context,
    run: OneRun,
    why: Annotated[str, typer.Option(help="The reason, kept with the run.")] = "",
) -> None:
    """End a run that waits or runs: what computes for it is killed, and what it still finds is not kept."""
    from mulle.loop.takeup import cancel_run
    from mulle.loop.views.chain import run_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    cancel_run(call.standing, run, by=call.by, why=why)
    call.show(run_view(call.standing, run), render.run)


def resume(
    ctx: typer.Context,
    run: OneRun,
    start: Annotated[
        str | None, typer.Option("--from", help="The first stage that is done again; default: where it ended.")
    ] = None,
    change: Changes = None,
    why: Annotated[str, typer.Option(help="The reason, kept with the run.")] = "",
    detach: Detached = False,
) -> None:
    """Go on with a run that failed or was cancelled, or fork any run from a stage, as a new run; exit 1 when it fails too."""
    _go_on(session(ctx), run, start, change or [], why, detach)


def repeat(
    ctx: typer.Context,
    run: OneRun,
    change: Changes = None,
    why: Annotated[str, typer.Option(help="The reason, kept with the run.")] = "",
    detach: Detached = False,
) -> None:
    """Repeat a run on the same data with the same code, with other parameters of the search; exit 1 when it fails."""
    _go_on(session(ctx), run, "features", change or [], why, detach)


def worker(ctx: typer.Context) -> None:
    """Take runs beside other workers of this home, until told to stop; needs records on PostgreSQL."""
    import signal
    import sys
    import threading

    from mulle.kernel.logs import keep_log
    from mulle.loop.runner import work

    call = session(ctx)
    log_to(sys.stderr)
    keep_log(call.settings.home, "worker")
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    work(call.parts, stop, lambda: call.err.print("[dim]waiting for runs; Ctrl-C stops it[/]"))


def _go_on(call: Session, run: str, start: str | None, change: list[str], why: str, detach: bool) -> None:
    from mulle.loop.runner import await_run
    from mulle.loop.takeup import take_up
    from mulle.loop.training.changes import read_changes
    from mulle.loop.views.chain import run_view
    from mulle.surfaces.cli import render

    made: Run = take_up(call.parts, run, by=call.by, start=start, changes=read_changes(change), why=why)
    if detach:
        call.show(run_view(call.parts, made.id), render.run)
        return
    with progress_of(call, f"run {made.model}") as progress:
        await_run(call.parts, made, lambda _, *told: progress(*told))
    ended(call, made.id)
