"""Commands that change something or keep running: runs, replays, the engine and the servers."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.markup import escape

from mulle.surfaces.cli.session import Session, session
from mulle.surfaces.words import moment

if TYPE_CHECKING:
    from mulle.core.records.base import Json
    from mulle.loop.parts import Parts

__all__ = ["demo", "ended", "log_to", "progress_of", "replay", "run", "serve", "up"]

Progress = Callable[[str, str, float], None]
OneModel = Annotated[str, typer.Argument()]


def run(
    ctx: typer.Context,
    model: OneModel,
    why: Annotated[str, typer.Option(help="The reason, kept with the run.")] = "asked for on the command line",
    explain: Annotated[
        bool, typer.Option("--explain", help="Also show what was measured, with intervals, and where the model is weak.")
    ] = False,
) -> None:
    """Ingest, check, publish, search, judge and register a model; exit 1 when it is rejected or fails."""
    from mulle.loop.runner import run_model

    call = session(ctx)
    call.parts.project.model(model)
    with progress_of(call, f"run {model}") as progress:
        record = run_model(call.parts, model, causes=[call.person(why)], progress=lambda _, *told: progress(*told))
    ended(call, record.id, explain=explain)


def ended(call: Session, run: str, *, explain: bool = False) -> None:
    """Show a run that has ended, and at last what serves now; exit 1 when it did not succeed."""
    from mulle.loop.rollout.standing import what_serves
    from mulle.loop.views.chain import run_view
    from mulle.surfaces.cli import render
    from mulle.surfaces.cli.table import coloured

    view = run_view(call.parts, run)
    shown = render.run_explained if explain else render.run
    call.show(view | {"serves": what_serves(call.parts, view)}, lambda told: [*shown(told), coloured(told["serves"])])
    if view["state"] != "succeeded":
        raise typer.Exit(1)


def replay(
    ctx: typer.Context,
    model: OneModel,
    start: Annotated[str, typer.Option("--from", help="Where history starts to be played.")],
    end: Annotated[str, typer.Option("--to", help="Where it ends.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="declared, frozen, every-window, or a variant like slow:cooldown=7d,on=drift; may be repeated."),
    ] = None,
    step: Annotated[str, typer.Option(help="Time between two looks of the loop.")] = "1d",
    html: Annotated[Path | None, typer.Option(help="Also write the comparison as a page.")] = None,
) -> None:
    """Play the loop over history, in a home of its own: each policy beside the others, or the declared one beside a frozen model.

    A variant changes words of ml.Retrain (cron, on, cooldown ...; several causes joined by +), window, delay and min_rows of
    ml.Monitor, or rollout=immediate. Killed half-way, the same command goes on with the policies that were not finished.
    """
    from mulle.core.clock import duration, instant
    from mulle.surfaces.cli import render
    from mulle.surfaces.replay_page import replay_page
    from mulle.surfaces.replays import play

    call = session(ctx)
    call.parts.project.model(model)
    with _telling(call, f"replay {model}") as said:
        span = (instant(start), instant(end))
        view = play(call.settings, call.parts.project, model, *span, said, policy or (), duration(step))
    if html is not None:
        html.write_text(replay_page(view), encoding="utf-8")
        view["html"] = str(html)
    call.show(view, render.replayed)


def up(ctx: typer.Context) -> None:
    """Start everything: engine, schedules, monitoring, inference server and the control plane with its status page."""
    from mulle.kernel.logs import keep_log
    from mulle.loop.live import up as start
    from mulle.surfaces.api.serve import serve_control
    from mulle.surfaces.door import check_binding

    call = session(ctx)
    where = call.settings
    check_binding(where)

    def control(parts: Callable[[], Parts]) -> None:
        # Said only now: another engine on this home would have ended it before.
        call.err.print(f"status page and API  http://{where.host}:{where.port}")
        call.err.print(f"inference            http://{where.host}:{where.inference_port}")
        call.err.print("[dim]Ctrl-C stops it[/]")
        serve_control(parts)

    log_to(sys.stderr)
    keep_log(where.home, "up")
    start(call.standing, control=control)


def serve(
    ctx: typer.Context,
    environment: Annotated[str | None, typer.Option(help="Whose routes it answers by: production or staging.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port (default: the setting).", min=1)] = None,
) -> None:
    """Start the inference server alone."""
    from mulle.surfaces.cli.release import known
    from mulle.surfaces.door import check_binding

    call = session(ctx)
    where = replace(call.settings, environment=known(environment or call.settings.environment))
    where = where if workers is None else replace(where, workers=workers)
    check_binding(where)
    call.err.print(f"inference of {where.environment}  http://{where.host}:{where.inference_port}")
    if where.workers > 1:
        # The parent of the workers loads nothing of what they serve with.
        from mulle.loop.server import environment as variables
        from mulle.surfaces.inference.workers import Workers

        Workers(where, {**os.environ, **variables(where)}).run()
        return
    from mulle.bootstrap.inference import wire_inference
    from mulle.surfaces.inference.app import create_app
    from mulle.surfaces.inference.serve import serve as run_server

    run_server(where, create_app(wire_inference(where), where))


def demo(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where the demo's project is written.")] = Path("mulle-demo"),
    end: Annotated[str, typer.Option("--to", help="The first day that is not played.")] = "2014-01-01",
    connections: Annotated[int, typer.Option(help="Requests in flight, at most.")] = 16,
    force: Annotated[bool, typer.Option(help="Replace what an earlier demo left in the folder.")] = False,
) -> None:
    """Heal a model on the flights of 2013: train, deploy, then replay the year with drift, bad data and canaries."""
    from mulle.core.clock import instant
    from mulle.core.errors import UsageError
    from mulle.surfaces.demo.live import live
    from mulle.surfaces.demo.main import START, DemoOptions
    from mulle.surfaces.demo.main import demo as play
    from mulle.surfaces.demo.tables import closing

    call = session(ctx)
    if call.project is not None or call.home is not None:
        raise UsageError("the demo writes a project of its own, with its home in it", next="name its folder with --folder")
    options = DemoOptions(folder=folder, end=instant(end), connections=connections, force=force)
    with live(call.err, START, options.end) as said:
        account = play(options, said)
    call.show(account, lambda view: closing(view, folder))
    if account["failed_requests"]:
        raise typer.Exit(1)


def log_to(stream: TextIO) -> None:
    """Let what the loop tells its logger be read where the command runs; importing Mulle configures no logging."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("mulle")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


@contextmanager
def _telling(call: Session, title: str) -> Iterator[Callable[[Json], None]]:
    """Tell what happens in a long play: where it is on one moving line, each event on a line that stays."""
    with progress_of(call, title) as progress:

        def said(event: Json) -> None:
            if event.get("text"):
                call.err.print(f"{moment(event['at'])}  {escape(str(event['text']))}")
            elif call.err.is_terminal:
                requests = f"{event['requests']:,} requests" if "requests" in event else ""
                progress(moment(event["at"]), requests, 0.0)

        yield said


@contextmanager
def progress_of(call: Session, title: str) -> Iterator[Progress]:
    """Tell stages as they go: a moving line in a terminal, one line each elsewhere; always on stderr."""
    if not call.err.is_terminal:
        yield lambda stage, state, seconds: call.err.print(f"{stage}: {state} {f'({seconds:.1f} s)' if seconds else ''}".rstrip())
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
    with Bar(*columns, console=call.err, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def told(stage: str, state: str, seconds: float) -> None:
            bar.update(task, description=f"{title}: {stage} {state}")
            done, every = _share(state)
            bar.update(task, completed=done, total=every)
            if state in {"done", "skipped", "failed"}:
                bar.console.print(f"  {stage:<10} {state} [dim]{seconds:.1f} s[/]")

        yield told


def _share(state: str) -> tuple[float, float | None]:
    """Read how far a stage is from what it says, ``1,200 of 10,000``; nothing known makes the bar pulse."""
    done, of, every = state.partition(" of ")
    if not of:
        return 0.0, None
    return float(done.replace(",", "")), float(every.replace(",", ""))
