"""One call of the command line: its global options, and the parts it opens only when a command needs them."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mulle.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from mulle.core.records.base import Cause, Json
    from mulle.loop.parts import Parts

__all__ = ["Session", "session", "write_page"]

_PIPED_WIDTH = 200


@dataclass
class Session:
    """The global options of one call.

    Attributes
    ----------
    project, home : Path or None
        As given; None leaves them to environment, file and default.
    json : bool
        Print one JSON document instead of words.
    debug : bool
        Show tracebacks.
    """

    project: Path | None = None
    home: Path | None = None
    json: bool = False
    debug: bool = False

    @cached_property
    def settings(self) -> Settings:
        """The settings in force."""
        return load_settings({"project": self.project, "home": self.home})

    @cached_property
    def parts(self) -> Parts:
        """The wired parts: loads the project and opens the stores at first use."""
        from mulle.bootstrap.parts import wire

        return wire(self.settings)

    @cached_property
    def standing(self) -> Parts:
        """The parts for what goes on, is looked at or moved by hand: a project file that is broken keeps nobody from it."""
        from mulle.bootstrap.parts import wire
        from mulle.loop.declared import load_standing

        project, broken = load_standing(self.settings.project, self.settings.home)
        if broken is not None:
            words = f"warning: {broken['detail']}\nthis goes by the last good declaration; next: {broken['next']}\n"
            sys.stderr.write(words)
        return wire(self.settings, project=project)

    @cached_property
    def out(self) -> Console:
        """Where answers go."""
        return _console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """Where progress and errors go, so that answers can be piped."""
        return _console(stderr=True)

    def show(self, view: Json, render: Callable[[Json], list[RenderableType]]) -> None:
        """Print a view: as one JSON document with ``--json``, else as `render` puts it."""
        if self.json:
            sys.stdout.write(json.dumps(view, indent=2, ensure_ascii=False, default=str) + "\n")
            return
        for number, item in enumerate(render(view)):
            if number and not isinstance(item, str):
                self.out.print()
            self.out.print(item)

    def plain(self, text: str) -> RenderableType:
        """Give text that is printed as it is, line by line: to be pasted."""
        from rich.text import Text

        return Text(text, overflow="ignore", no_wrap=True)

    @contextmanager
    def waiting(self, words: str) -> Iterator[None]:
        """Turn a wheel on stderr while something takes long; nothing where nobody watches."""
        if not self.err.is_terminal:
            yield
            return
        with self.err.status(words):
            yield

    def person(self, why: str) -> Cause:
        """Give the cause of what a person asked for here."""
        from mulle.core.records.base import Cause

        return Cause(type="person", id=self.by, why=why)

    @property
    def by(self) -> str:
        """Who asks: the name of the account."""
        try:
            return getpass.getuser()
        except (KeyError, OSError):
            return "unknown"


def session(ctx: typer.Context) -> Session:
    """Return the session of a command's context."""
    found = ctx.find_object(Session)
    return found if found is not None else Session()


def write_page(file: Path, text: str) -> None:
    """Write a page to the file that the user named.

    Raises
    ------
    UsageError
        When it cannot be written there.
    """
    from mulle.core.errors import UsageError

    try:
        file.write_text(text, encoding="utf-8")
        sys.stderr.write(f"wrote {file}\n")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}", next="name another file") from error


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # Rich cuts tables to 80 columns when piped; whoever greps wants whole values.
    return Console(file=stream, width=None if stream.isatty() else _PIPED_WIDTH, highlight=False, soft_wrap=False)
