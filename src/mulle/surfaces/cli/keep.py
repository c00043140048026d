"""Commands that keep a home: clear it out, back it up, make it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mulle.surfaces.cli.session import session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mulle.core.records.base import Json

__all__ = ["backup", "gc", "restore"]

OneFile = Annotated[Path, typer.Argument(metavar="FILE")]


def gc(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what no retained record needs, once it is older than the setting keep; logged rows as ml.Log(keep=...) says.

    A version that was ever deployed, the latest of each model, what a run under way works with and all records stay.
    """
    from mulle.loop.keeping.retention import gc_view
    from mulle.surfaces.cli import shown

    call = session(ctx)
    with call.waiting("looking for what nothing needs"):
        view = gc_view(call.parts, dry_run=dry_run)
    call.show(view, shown.swept)


def backup(ctx: typer.Context, file: OneFile) -> None:
    """Write the home as it stands to one file, while the loop runs; what lies on other servers is named, not included."""
    from mulle.bootstrap.keeping import back_up

    call = session(ctx)
    with call.waiting("reading the home"):
        told = back_up(call.settings, file)
    call.show(told, _backed_up)


def restore(ctx: typer.Context, file: OneFile) -> None:
    """Make an empty home from a backup; nothing is written before every hash was right."""
    from mulle.bootstrap.keeping import restore as make

    call = session(ctx)
    with call.waiting("reading the backup"):
        told = make(call.settings, file)
    call.show(told, _restored)


def _backed_up(told: Json) -> list[RenderableType]:
    lines = [f"{told['files']} files, {told['bytes'] / 1e6:.1f} MB in {told['file']}", f"sha256 {told['sha256']}"]
    return ["\n".join([*lines, *(f"not included: {what}" for what in told["left_out"])])]


def _restored(told: Json) -> list[RenderableType]:
    lines = [f"{told['home']}: {told['files']} files, {told['records']} rows of records, as of {told['created_at']}"]
    return ["\n".join([*lines, *(f"not included: {what}" for what in told["left_out"]), "next: `mulle doctor`, then `mulle up`"])]
