"""Commands that only look: each opens the parts, takes one view and shows it."""

from __future__ import annotations

from typing import Annotated

import typer

from mulle.surfaces.cli.session import session

__all__ = [
    "doctor", "explain", "history", "plan", "status",
]  # fmt: skip

Limit = Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)]
OfModel = Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this model's.")]


def status(ctx: typer.Context) -> None:
    """Say in words how each model stands, and whether the engine runs."""
    from mulle.loop.views.status import status_view
    from mulle.surfaces.cli import render
    from mulle.surfaces.reach import told_by_server

    call = session(ctx)
    view = status_view(call.standing, **told_by_server(call.settings))
    call.show(view, render.status)


def plan(ctx: typer.Context) -> None:
    """Say what the declaration would change against what is deployed; checks run on a sample; exit 1 when one fails."""
    from mulle.core.clock import rfc3339
    from mulle.loop.views.plan import plan as make_plan
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
    from mulle.loop.views.lineage import explain_view
    from mulle.surfaces.cli import render
    from mulle.surfaces.cli.flow import scored

    call = session(ctx)
    manifest = batch_manifest(call.settings.home, prediction)
    if manifest is not None:
        call.show(manifest, scored)
        return
    call.show(explain_view(call.standing, prediction, contributions=contributions), render.explained)


def history(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument()],
    at: Annotated[str | None, typer.Option(help="What was in production at this time (RFC 3339; UTC without offset).")] = None,
    limit: Limit = 100,
    environment: Annotated[str, typer.Option("--environment", help="production or staging.")] = "production",
) -> None:
    """List a model's deployments, or say what served at a time: versions, shares, the data and code each was made by."""
    from mulle.loop.views.chain import history_view
    from mulle.surfaces.cli import render
    from mulle.surfaces.cli.release import known

    call = session(ctx)
    view = history_view(call.standing, model, at=at, limit=limit, environment=known(environment))
    call.show(view, render.history)


def doctor(ctx: typer.Context) -> None:
    """Try every store, port and package that Mulle needs here; exit 1 when one fails."""
    from mulle.core.clock import WallClock
    from mulle.loop.keeping.doctor import doctor_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    view = doctor_view(call.settings, lambda: call.parts, WallClock())
    call.show(view, render.doctor)
    if any(check["verdict"] == "fail" for check in view["checks"]):
        raise typer.Exit(1)
