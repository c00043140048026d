"""Commands that move a model's pointer, and those that freeze its automation and let it go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mulle.surfaces.cli.session import Session, session

if TYPE_CHECKING:
    from mulle.core.records.deployment import Deployment

__all__ = ["deploy", "known", "pause", "promote", "resume", "rollback"]

OneModel = Annotated[str, typer.Argument()]
Where = Annotated[str, typer.Option("--environment", help="production or staging.")]
Why = Annotated[str, typer.Option(help="The reason, kept with the record.")]


def deploy(
    ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="MODEL@VERSION")], environment: Where = "production"
) -> None:
    """Give all traffic to a version."""
    from mulle.loop.operate import deploy as move
    from mulle.loop.views.chain import find_version

    call = session(ctx)
    if "@" not in name:
        name = f"{name}@latest"
    version = find_version(call.standing, name)
    _moved(call, move(call.standing, version.model, version.version, by=call.by, environment=known(environment)))


def rollback(
    ctx: typer.Context,
    model: OneModel,
    to: Annotated[int | None, typer.Option(help="The version to go back to; default: the champion before.")] = None,
    environment: Where = "production",
) -> None:
    """Give all traffic back to an earlier champion."""
    from mulle.loop.operate import rollback as move

    call = session(ctx)
    _moved(call, move(call.standing, model, by=call.by, to=to, environment=known(environment)))


def promote(
    ctx: typer.Context,
    model: OneModel,
    environment: Annotated[
        str | None, typer.Option("--environment", help="production: begin there the release of what staging has.")
    ] = None,
) -> None:
    """End a canary or a shadow now: its version takes all traffic; without one, release in production what staging has."""
    from mulle.core.errors import UsageError
    from mulle.loop.operate import promote as move
    from mulle.loop.operate import promote_staged

    call = session(ctx)
    if environment not in (None, "production"):
        raise UsageError(f"nothing is promoted to {environment}", next=f"`mulle deploy {model}@VERSION --environment staging`")
    _moved(call, (move if environment is None else promote_staged)(call.standing, model, by=call.by))


def pause(ctx: typer.Context, model: OneModel, why: Why = "") -> None:
    """Freeze a model's automation: no runs, no moves of its pointer; it serves, logs and is watched as before."""
    from mulle.loop.operate import pause as move

    call = session(ctx)
    _moved(call, move(call.standing, model, by=call.by, why=why))


def resume(ctx: typer.Context, model: OneModel, why: Why = "") -> None:
    """Let a paused model's automation go on."""
    from mulle.loop.operate import resume as move

    call = session(ctx)
    _moved(call, move(call.standing, model, by=call.by, why=why))


def known(environment: str) -> str:
    """Return the name of an environment.

    Raises
    ------
    UsageError
        When there is none of that name.
    """
    from mulle.core.errors import UsageError
    from mulle.core.records.deployment import PRODUCTION, STAGING

    if environment not in (PRODUCTION, STAGING):
        raise UsageError(f"no environment '{environment}'", next=f"choose from {PRODUCTION}, {STAGING}")
    return environment


def _moved(call: Session, deployment: Deployment) -> None:
    from mulle.loop.views.chain import deployment_view
    from mulle.surfaces.cli import render

    call.show(deployment_view(deployment), render.deployment)
