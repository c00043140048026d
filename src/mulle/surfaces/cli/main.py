"""The entry of the command line: global options, the commands' names, and how errors leave."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from mulle.core.errors import MulleError, UsageError
from mulle.surfaces.cli import act, alerts, data, flow, keep, logs, look, models, monitor, new, release, runs, traffic
from mulle.surfaces.cli.group import CommandGroup
from mulle.surfaces.cli.session import Session

__all__ = ["build", "call", "main"]

_FLAGS = {"--json", "--debug"}
_WITH_VALUE = {"--project", "--home"}
_INTERRUPTED = 130


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str
        Without the program's name. Global options may stand anywhere.

    Returns
    -------
    int
        0 done; 1 a check, gate or comparison said no; 2 wrong use; 3 the other side is away; 130 interrupted.
    """
    moved = _globals_first(arguments)
    as_json, debug = "--json" in moved, "--debug" in moved
    try:
        answer = typer.main.get_command(build())(moved, prog_name="mulle", standalone_mode=False)
        return answer if isinstance(answer, int) else 0
    except MulleError as error:
        return _leave(error, as_json, debug)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our answer has enough (`mulle runs ls | head`); the interpreter must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _leave(_translated(error), as_json, debug)


def build() -> typer.Typer:
    """Give every command its name."""
    app = typer.Typer(
        name="mulle", cls=CommandGroup, add_completion=False, pretty_exceptions_enable=False, callback=_globals,
        rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        epilog="--project, --home, --json and --debug may stand anywhere. Exit codes: 0 done, 1 a check or gate said no, "
        "2 wrong use, 3 the other side is away, 130 interrupted.",
    )  # fmt: skip
    single: tuple[Callable[..., None], ...] = (
        new.new, look.plan, act.demo, act.up, runs.worker, act.serve, act.run, act.replay, look.explain, traffic.predict,
        traffic.predictions, flow.batch, flow.stream, traffic.label, keep.gc, keep.backup, keep.restore,
        look.status, release.deploy, release.rollback, release.promote, release.pause, release.resume, look.history,
        monitor.monitor, logs.logs, look.doctor,
    )  # fmt: skip
    for command in single:
        app.command(command.__name__)(command)
    groups: Mapping[str, tuple[str, Mapping[str, Callable[..., None]]]] = {
        "runs": ("List, show, cancel, resume and repeat runs.", {n: getattr(runs, n) for n in runs.__all__}),
        "models": (
            "List, show, compare, reproduce and import model versions.",
            {n.rstrip("_"): getattr(models, n) for n in models.__all__},
        ),
        "data": ("Bring rows in, check, compare, look into, share and forget them.", {n: getattr(data, n) for n in data.__all__}),
    }
    for name, (words, commands) in groups.items():
        group = typer.Typer(cls=CommandGroup, help=words, rich_markup_mode=None)
        for inner, function in commands.items():
            group.command(inner)(function)
        app.add_typer(group, name=name)
    app.add_typer(alerts.group(), name="alerts")
    return app


def _version(asked: bool) -> None:
    if asked:
        from mulle import __version__

        typer.echo(f"mulle {__version__}")
        raise typer.Exit


def _globals(
    ctx: typer.Context,
    project: Annotated[Path | None, typer.Option(help="Folder that holds project.py (default: here).")] = None,
    home: Annotated[Path | None, typer.Option(help="Everything Mulle keeps (default: .mulle in the project).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Mulle: declare a model once; the loop keeps it alive."""
    del version
    ctx.obj = Session(project=project, home=home, json=json, debug=debug)


def _globals_first(arguments: Sequence[str]) -> list[str]:
    """Move the global options in front of the command, wherever they stand.

    Examples
    --------
    >>> _globals_first(["runs", "ls", "--json", "--home", "x"])
    ['--json', '--home', 'x', 'runs', 'ls']
    """
    front: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            rest += [word, *waiting]
            break
        if word in _FLAGS or (word.split("=", 1)[0] in _WITH_VALUE and "=" in word):
            front.append(word)
        elif word in _WITH_VALUE:
            front += [word, *waiting[:1]]
            del waiting[:1]
        else:
            rest.append(word)
    return front + rest


def _translated(error: Exception) -> MulleError:
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "mulle"
        return UsageError(error.format_message().strip(), next=f"see `{path} --help`")
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("mulle"):
        return MulleError(f"the package {error.name} is missing", next="install Mulle from its lock again; --debug shows where")
    return MulleError(f"{type(error).__name__}: {error}", next="this looks like a fault of ours: run with --debug and report it")


def _leave(error: MulleError, as_json: bool, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    if as_json:
        sys.stderr.write(json.dumps(error.problem(), default=str) + "\n")
    else:
        sys.stderr.write(f"error: {error.detail}\n" + (f"next: {error.next}\n" if error.next else ""))
    return error.exit_code
