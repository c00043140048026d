"""A check's word and its arguments as Python text, beside the checks that they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mulle.core.declare.rules import Check

__all__ = ["Proposal", "Trial", "literal", "propose"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """One line of a suggestion.

    Attributes
    ----------
    code : str
        For example ``ml.unique("id")``.
    why : str
        The evidence, in one line.
    """

    code: str
    why: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A proposal and the checks that its code makes, to be held against the rows."""

    proposal: Proposal
    checks: tuple[Check, ...]


def propose(word: Callable[..., tuple[Check, ...]], why: str, *given: object, **named: object) -> Trial:
    """Call a word of `core.declare.checks`, and write the call.

    Examples
    --------
    >>> from mulle.core.declare.checks import between
    >>> propose(between, "seen", "km", 0, 60000).proposal.code
    'ml.between("km", 0, 60_000)'
    """
    arguments = [literal(v) for v in given] + [f"{name}={literal(v)}" for name, v in named.items()]
    said = Proposal(f"ml.{word.__name__}({', '.join(arguments)})", " ".join(why.split()))
    return Trial(said, word(*given, **named))


def literal(value: object) -> str:
    r"""Write a value as Python, as people would.

    Examples
    --------
    >>> literal("^N[0-9]+\\.$"), literal(60000), literal(["a", 'b"'])
    ('r"^N[0-9]+\\.$"', '60_000', '["a", \'b"\']')
    """
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(literal(v) for v in value)}]"
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return repr(value)
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 10_000 else str(value)
    if '"' in value or not value.isprintable():
        return repr(value)
    if "\\" in value:
        return repr(value) if value.endswith("\\") else f'r"{value}"'
    return f'"{value}"'
