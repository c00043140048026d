"""Commands about alerts: which there are, who is told, and when nobody shall be."""

from __future__ import annotations

from typing import Annotated

import typer

from mulle.surfaces.cli.group import CommandGroup
from mulle.surfaces.cli.session import session

__all__ = ["AlertsGroup", "group", "ls", "silence", "test", "unsilence"]


class AlertsGroup(CommandGroup):
    """``mulle alerts`` alone, or with a model or options, lists."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put ``ls`` in front of what names no command."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["ls", *args]
        return super().parse_args(ctx, args)


def ls(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this model's.")] = None,
    state: Annotated[str | None, typer.Option(help="open or closed.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
) -> None:
    """List alerts, newest first; `mulle alerts` alone does the same."""
    from mulle.core.errors import UsageError
    from mulle.loop.views.chain import alerts_view
    from mulle.surfaces.cli import render

    if state not in {None, "open", "closed"}:
        raise UsageError(f"no alert state '{state}'", next="choose open or closed")
    call = session(ctx)
    call.show(alerts_view(call.standing, model=model, state=state, limit=limit), render.alerts)


def silence(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, or '*' for all.")],
    span: Annotated[str, typer.Option("--for", help="For how long, such as 2h.")],
    why: Annotated[str, typer.Option(help="What the reason is; kept in the record.")] = "",
) -> None:
    """Send nothing of a model for a while; alerts are recorded all the same, and what is open at the end is sent then."""
    from mulle.core.records.base import to_json
    from mulle.loop.monitoring.telling import silence as begin
    from mulle.surfaces.cli.table import facts
    from mulle.surfaces.words import moment

    call = session(ctx)
    made = to_json(begin(call.standing, model, span, by=call.by, why=why))
    call.show(made, lambda v: [facts({"silent": v["model"], "until": moment(v["until"]), "why": v["causes"][0]["why"]})])


def unsilence(ctx: typer.Context, model: Annotated[str, typer.Argument(metavar="MODEL", help="As it was silenced.")]) -> None:
    """End a silence now."""
    from mulle.core.records.base import to_json
    from mulle.loop.monitoring.telling import silence as begin
    from mulle.surfaces.cli.table import facts

    call = session(ctx)
    call.show(to_json(begin(call.standing, model, None, by=call.by)), lambda v: [facts({"told again of": v["model"]})])


def test(ctx: typer.Context) -> None:
    """Send every receiver a test message; exit 3 when one does not take it."""
    from mulle.core.errors import UsageError
    from mulle.loop.monitoring.telling import try_receivers
    from mulle.surfaces.cli.table import table
    from mulle.surfaces.words import cell

    call = session(ctx)
    receivers = call.standing.receivers()
    if not receivers:
        raise UsageError("nobody is told of alerts", next="set `alerts` in mulle.toml (or MULLE_ALERTS) to Apprise URLs")
    told = try_receivers(receivers, call.standing.clock.now())
    columns = ("receiver", "verdict", "detail", "next")
    call.show(
        {"items": told, "next": None},
        lambda v: [table("Receivers", columns, [[cell(i[c]) for c in columns] for i in v["items"]])],
    )
    if any(item["verdict"] == "fail" for item in told):
        raise typer.Exit(3)


def group() -> typer.Typer:
    """Give the commands their names."""
    named = typer.Typer(cls=AlertsGroup, help="List alerts; silence them; try who is told.", rich_markup_mode=None)
    for command in (ls, silence, unsilence, test):
        named.command(command.__name__)(command)
    return named
