"""Writes the pages that are made from the code: the command line's reference, from the Typer application itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from mulle.surfaces.cli.main import build

__all__ = ["command_line", "commands"]

PAGE = Path(__file__).parent / "reference" / "cli.md"

HEAD = """# Command line

<!-- made by `make docs` from the application; edit the help texts in src/mulle/surfaces/cli instead -->

Exit codes: 0 done; 1 a check, gate or comparison said no; 2 wrong use; 3 the other side is away, trying again may
help; 130 interrupted. Every listing takes `--json` and then prints one document on stdout. Errors go to stderr, as
words, or with `--json` as the problem document of [errors](errors.md).
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Walk the application: the full name and the command, groups before their commands, in order of name."""
    yield from _walk("mulle", get_command(build()))


def command_line() -> str:
    """Render the page."""
    return HEAD + "".join(_section(name, command) for name, command in commands())


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if getattr(command, "hidden", False):
        return
    yield name, command
    for child in sorted(getattr(command, "commands", {})):
        yield from _walk(f"{name} {child}", command.commands[child])


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    usage = [name, *(_argument(p) for p in arguments), *(["[options]"] if options else [])]
    if getattr(command, "commands", None):
        usage.append("COMMAND")
    lines = ["", f"## {name}", "", f"`{' '.join(usage)}`", "", inspect.cleandoc(command.help or "").replace("\f", "").strip()]
    told = [(f"`{_argument(p)}`", p.help or "") for p in arguments if getattr(p, "help", None)]
    told += [(f"`{_option(p)}`", " ".join((getattr(p, "help", "") or "").split())) for p in options]
    if told:
        lines += ["", "| | |", "|---|---|", *(f"| {a} | {b.replace('|', chr(92) + '|')} |" for a, b in told)]
    return "\n".join(lines) + "\n"


def _argument(parameter: Any) -> str:
    word = (getattr(parameter, "metavar", None) or parameter.name or "").upper()
    word = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    return word if parameter.required else f"[{word}]"


def _option(parameter: Any) -> str:
    words = ", ".join(parameter.opts) + ("".join(f" / {o}" for o in parameter.secondary_opts))
    takes = "" if getattr(parameter, "is_flag", False) else f" {(getattr(parameter, 'metavar', None) or parameter.name).upper()}"
    return words + takes


if __name__ == "__main__":
    PAGE.write_text(command_line())
    print(f"wrote {PAGE}")
