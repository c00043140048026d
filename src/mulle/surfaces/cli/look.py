"""Commands that only look: each opens the parts, takes one view and shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mulle.surfaces.cli.session import session, write_page

__all__ = [
    "alerts", "doctor", "explain", "history", "monitor", "plan",
    "runs_ls", "runs_show", "status",
]  # fmt: skip

Limit = Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)]
OfModel = Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this model's.")]


def status(ctx: typer.Context) -> None:
    """Say in words how each model stands, and whether the engine runs."""
    from mulle.loop.status import status_view
    from mulle.surfaces.cli import render
    from mulle.surfaces.reach import errors_last_hour

    call = session(ctx)
    call.show(status_view(call.parts, errors=errors_last_hour(call.settings)), render.status)


def plan(ctx: typer.Context) -> None:
    """Say what the declaration would change against what is deployed; checks run on a sample; exit 1 when one fails."""
    from mulle.core.clock import rfc3339
    from mulle.loop.plan import plan as make_plan
    from mulle.surfaces.cli import render

    call = session(ctx)
    head = {"id": call.parts.project.code, "created_at": rfc3339(call.parts.clock.now())}
    view = {**head, **make_plan(call.parts)}
    call.show(view, render.planned)
    if view["verdict"] != "pass":
        raise typer.Exit(1)


def explain(
    ctx: typer.Context,
    prediction: Annotated[str, typer.Argument(metavar="PREDICTION_ID|BATCH")],
    contributions: Annotated[
        bool, typer.Option("--contributions", help="Also tell what each feature did to the answer.")
    ] = False,
) -> None:
    """Show a prediction's whole chain: features, route, label, window, alerts, run and data.

    Of a batch (its job's id, its output folder or a file in it) it shows what scored what.
    """
    from mulle.loop.batch.job import batch_manifest
    from mulle.loop.lineage import explain_view
    from mulle.surfaces.cli import render
    from mulle.surfaces.cli.flow import scored

    call = session(ctx)
    manifest = batch_manifest(call.settings.home, prediction)
    if manifest is not None:
        call.show(manifest, scored)
        return
    call.show(explain_view(call.parts, prediction, contributions=contributions), render.explained)


def runs_ls(
    ctx: typer.Context,
    model: OfModel = None,
    state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    limit: Limit = 20,
    after: Annotated[str | None, typer.Option(help="Continue below this run.")] = None,
) -> None:
    """List runs, newest first."""
    from mulle.core.errors import UsageError
    from mulle.core.records.run import STATES
    from mulle.loop.views import runs_view
    from mulle.surfaces.cli import render

    if state is not None and state not in STATES:
        raise UsageError(f"no run state '{state}'", next=f"choose from {', '.join(STATES)}")
    call = session(ctx)
    call.show(runs_view(call.parts, model=model, state=state, limit=limit, after=after), render.runs)


def runs_show(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN")],
    page: Annotated[
        Path | None, typer.Option(help="Also write the search as one HTML page: history, parameters, importance.")
    ] = None,
) -> None:
    """Show a run: its cause, stages and trials, what was measured of the winner, and the gates."""
    from mulle.loop.views import run_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    if page is not None:
        from mulle.loop.models import search_view
        from mulle.surfaces.search_page import search_page

        view = search_view(call.parts, run)
        write_page(page, search_page(view, view["importance"]))
    call.show(run_view(call.parts, run), render.run_explained)


def history(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument()],
    at: Annotated[str | None, typer.Option(help="What was in production at this time (RFC 3339; UTC without offset).")] = None,
    limit: Limit = 100,
) -> None:
    """List a model's deployments, or say what was in production at a time."""
    from mulle.loop.views import history_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    call.show(history_view(call.parts, model, at=at, limit=limit), render.history)


def alerts(
    ctx: typer.Context,
    model: OfModel = None,
    state: Annotated[str | None, typer.Option(help="open or closed.")] = None,
    limit: Limit = 50,
) -> None:
    """List alerts, newest first."""
    from mulle.core.errors import UsageError
    from mulle.loop.views import alerts_view
    from mulle.surfaces.cli import render

    if state not in {None, "open", "closed"}:
        raise UsageError(f"no alert state '{state}'", next="choose open or closed")
    call = session(ctx)
    call.show(alerts_view(call.parts, model=model, state=state, limit=limit), render.alerts)


def monitor(ctx: typer.Context, model: Annotated[str, typer.Argument()], limit: Limit = 30) -> None:
    """Show a model's latest windows: drift, quality and performance against their bounds."""
    from mulle.loop.views import monitor_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    call.show(monitor_view(call.parts, model, limit=limit), render.monitored)


def doctor(ctx: typer.Context) -> None:
    """Try every store, port and package that Mulle needs here; exit 1 when one fails."""
    from mulle.core.clock import WallClock
    from mulle.loop.doctor import doctor_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    view = doctor_view(call.settings, lambda: call.parts, WallClock())
    call.show(view, render.doctor)
    if any(check["verdict"] == "fail" for check in view["checks"]):
        raise typer.Exit(1)
