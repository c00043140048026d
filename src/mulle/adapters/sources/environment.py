"""Fills ``${NAME}`` in a declaration's text from the environment, so that no secret stands in a project."""

from __future__ import annotations

import os
import re

from mulle.core.errors import UsageError

__all__ = ["filled", "hidden"]

_NAME = re.compile(r"\$\{(\w+)\}")


def filled(text: str) -> str:
    """Replace each ``${NAME}`` by the environment's value of that name.

    Raises
    ------
    UsageError
        When a name is not set; the error names it.

    Examples
    --------
    >>> os.environ["SHOP_USER"] = "ada"
    >>> filled("postgresql://${SHOP_USER}@db/shop")
    'postgresql://ada@db/shop'
    """
    return _NAME.sub(lambda found: _value(found.group(1)), text)


def hidden(words: object, *templates: str) -> str:
    """Write words (an error, say) without the values that the templates took from the environment.

    Examples
    --------
    >>> os.environ["SHOP_TOKEN"] = "s3cret"
    >>> hidden("no answer from https://shop/s3cret", "https://shop/${SHOP_TOKEN}")
    'no answer from https://shop/***'
    """
    text = str(words)
    values = {os.environ.get(name, "") for template in templates for name in _NAME.findall(template)}
    for value in sorted(filter(None, values), key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def _value(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise UsageError(
            f"the environment has no {name}", next=f"set {name} for the process that reads the source", variable=name
        ) from None
