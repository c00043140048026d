"""Commands about model versions: list, show, compare, make again, and bring in from MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mulle.surfaces.cli.session import session, write_page

__all__ = ["compare", "import_", "ls", "reproduce", "show"]

_VERSION = typer.Argument(metavar="MODEL[@VERSION]")


def ls(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this model's.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATASET@VERSION", help="Only versions that were trained on these rows.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
    after: Annotated[str | None, typer.Option(help="Continue below this id.")] = None,
    members: Annotated[bool, typer.Option("--members", help="List a fleet's members instead, the worst first.")] = False,
) -> None:
    """List model versions, newest first; of a fleet, also sum up its members."""
    from mulle.core.errors import UsageError
    from mulle.loop.views.chain import models_view
    from mulle.loop.views.members import members_view
    from mulle.loop.views.models import saw_view
    from mulle.surfaces.cli import render, render_members

    call = session(ctx)
    if members:
        if model is None:
            raise UsageError("--members of which fleet?", next="write mulle models ls MODEL --members")
        call.show(members_view(call.standing, model, limit=limit, after=after), render_members.members)
        return
    if data is not None:
        view = saw_view(call.standing, data)
        view["items"] = [i for i in view["items"] if model in (None, i["model"])][:limit]
        call.show(view, render.saw)
        return
    call.show(models_view(call.standing, model=model, limit=limit, after=after), render.models)


def show(
    ctx: typer.Context,
    name: Annotated[str, _VERSION],
    page: Annotated[Path | None, typer.Option(help="Also write its card as one HTML page, figures drawn.")] = None,
) -> None:
    """Show a model version: metrics, parity, data and the run that made it."""
    from mulle.loop.views.chain import model_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    if page is not None:
        from mulle.loop.views.models import card_view
        from mulle.surfaces.card_page import card_page

        write_page(page, card_page(card_view(call.standing, name)))
    call.show(model_view(call.standing, name), render.model)


def compare(ctx: typer.Context, names: Annotated[list[str], typer.Argument(metavar="MODEL@VERSION ...")]) -> None:
    """Lay versions side by side: metrics, parameters, features and data that differ."""
    from mulle.loop.views.models import compare_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    call.show(compare_view(call.standing, names), render.compared)


def reproduce(
    ctx: typer.Context,
    name: Annotated[str, _VERSION],
    tolerance: Annotated[
        float | None, typer.Option(help="Largest difference, as a share of the target's spread (default: its parity's).", min=0)
    ] = None,
) -> None:
    """Train a version again from its recorded data, code, settings and seed; exit 1 when its answers differ."""
    from mulle.loop.views.models import reproduce_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    try:
        with call.waiting(f"training {name} again"):
            view = reproduce_view(call.parts, name, tolerance=tolerance)
    finally:
        call.parts.compute().close()
    call.show(view, render.reproduced)
    if not view["reproduced"]:
        raise typer.Exit(1)


def import_(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="models:/NAME/VERSION", help="In MLflow; also models:/NAME@ALIAS.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The declared model that it becomes a version of.")],
    trust: Annotated[
        bool,
        typer.Option(
            help="Open a pickle: it may run anything on this machine, so do it only for a version whose maker you know. "
            "Only one whose tracking store lies on this machine's own disk; one that came over a network is never opened."
        ),
    ] = False,
) -> None:
    """Bring a model version that MLflow has into the loop: judged by the gates like any challenger; exit 1 when rejected."""
    from mulle.loop.runner import run_model
    from mulle.loop.training.imported import OPTION, fetch_model
    from mulle.loop.views.chain import run_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    call.parts.project.model(model)
    with call.waiting(f"importing {source}"):
        given = fetch_model(call.parts, source, trust=trust)
        causes = [call.person(f"asked to import {given['from']}")]
        record = run_model(call.parts, model, causes=causes, options={OPTION: given})
    view = run_view(call.parts, record.id)
    call.show(view, render.run)
    if view["state"] != "succeeded":
        raise typer.Exit(1)
