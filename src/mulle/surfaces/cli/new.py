"""``mulle new``: a project that runs as it is, from the templates beside this module."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mulle.surfaces.cli.session import session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mulle.core.records.base import Json

__all__ = ["new", "write_project"]


def new(ctx: typer.Context, name: Annotated[str, typer.Argument(help="The folder to make.")]) -> None:
    """Write a project that runs as it is, with data and tests of its features."""
    folder = Path(name)
    written = write_project(folder)
    view: Json = {"id": folder.name, "created_at": _now(), "project": str(folder.resolve()), "files": written}
    session(ctx).show(view, _told)


def write_project(folder: Path) -> list[str]:
    """Write the template's files and make its data; return the files' names.

    Raises
    ------
    UsageError
        When the folder exists and holds something, or the name cannot be a project's.
    MulleError
        When the data could not be made.
    """
    from mulle.core.declare.names import plain_name
    from mulle.core.errors import MulleError, UsageError

    plain_name(folder.resolve().name, "project")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty", next="choose another name", folder=str(folder))
    for name, text in _templates():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{{name}}", folder.resolve().name))
    made = subprocess.run([sys.executable, "make_data.py"], cwd=folder, capture_output=True, text=True, check=False)
    if made.returncode:
        raise MulleError("make_data.py failed", next=made.stderr.strip().splitlines()[-1] if made.stderr.strip() else "")
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _templates() -> list[tuple[str, str]]:
    root = files("mulle.surfaces.cli") / "template"
    found: list[tuple[str, str]] = []
    waiting: list[tuple[str, Traversable]] = [("", root)]
    while waiting:
        prefix, folder = waiting.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                waiting.append((f"{prefix}{entry.name}/", entry))
            elif entry.name.endswith(".tmpl"):
                name = entry.name.removesuffix(".tmpl")
                found.append((prefix + (".gitignore" if name == "gitignore" else name), entry.read_text()))
    return found


def _now() -> str:
    from mulle.core.clock import WallClock, rfc3339

    return rfc3339(WallClock().now())


def _told(view: Json) -> list[RenderableType]:
    steps = [f"cd {view['project']}", "mulle run diagnosis", "mulle status", "mulle up"]
    return [f"wrote {len(view['files'])} files to {view['project']}; next:", *(f"  {step}" for step in steps)]
