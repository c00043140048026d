"""A group of commands whose help says of each what it does in a whole sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperGroup

if TYPE_CHECKING:
    import typer
    from typer._click import HelpFormatter

__all__ = ["CommandGroup"]

_LONGEST = 400


class CommandGroup(TyperGroup):
    """A group that shows its help when no command is named, in whole sentences where Typer's own cuts them short."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Ask for help where nothing was asked for."""
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: typer.Context, formatter: HelpFormatter) -> None:  # type: ignore[override]
        """Write each command with the first sentence of its help."""
        rows = [(name, self.commands[name].get_short_help_str(_LONGEST)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
