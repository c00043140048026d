"""The bundle's page names every member of the record and no other, with its type, and the layout's number."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from datetime import datetime
from pathlib import Path

import pytest

from mulle.core.records.bundle import FORMAT, Contract, FeatureSpec, InputField, JoinSpec
from mulle.core.records.model import Parity
from mulle.lifecycle.registry import bundle as written

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "bundle.md").read_text()
TYPES = {
    int: "integer", str: "text", bool: "boolean", float: "number", datetime: "time", tuple[str, ...]: "list of text",
    tuple[InputField, ...]: "list of inputs", tuple[JoinSpec, ...]: "list of joins", tuple[FeatureSpec, ...]: "list of features",
    dict[str, str]: "object of text", dict[str, int]: "object of integers", dict[str, float]: "object of numbers",
    dict[str, typing.Any]: "object", Parity: "parity",
}  # fmt: skip


def told(section: str) -> dict[str, str]:
    """Members of a section's table and their types."""
    (body,) = re.findall(rf"^#+ {re.escape(section)}\n(.*?)(?=^#|\Z)", PAGE, re.M | re.S)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("| `")]
    return {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def in_words(hint: object) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = [i for i in typing.get_args(hint) if i is not type(None)]
        return f"{in_words(inner)} or null"
    return TYPES[hint]  # type: ignore[index]


@pytest.mark.parametrize(
    ("section", "record"),
    [
        *(("bundle.json", Contract), ("An input", InputField), ("A join", JoinSpec), ("A feature", FeatureSpec)),
        ("Parity", Parity),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_every_member_is_told_with_its_type_and_none_that_is_gone(section: str, record: type) -> None:
    hints = typing.get_type_hints(record)
    assert told(section) == {f.name: in_words(hints[f.name]) for f in dataclasses.fields(record)}


def test_the_layouts_number_and_each_before_it_are_told() -> None:
    assert f"`format` in `bundle.json` is {FORMAT}." in PAGE
    assert re.findall(r"^\| (\d) \|", PAGE, re.M) == [str(n) for n in range(1, FORMAT + 1)]


def test_every_file_is_told() -> None:
    source = Path(written.__file__).read_text()
    for name in set(re.findall(r'made / "([\w.]+)"', source)):
        assert f"| `{name}` |" in PAGE or f"| `{name}/` |" in PAGE
