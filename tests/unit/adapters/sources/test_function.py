"""A function as a source: its rows, its position, and its failures told by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from mulle.adapters.sources.function import FunctionReader
from mulle.core.declare.sources import Function
from mulle.core.errors import DataError, Unavailable

FRAME = pl.DataFrame({"x": [1, 2]})


@pytest.mark.parametrize(
    "given", [FRAME, FRAME.lazy(), [FRAME[:1], FRAME[1:]], iter([FRAME])], ids=["frame", "lazy", "list", "iter"]
)
def test_rows_may_be_given_in_any_form(given: Any) -> None:
    batch = FunctionReader(Function(lambda position: given)).read({})
    assert batch is not None
    assert batch.frame().equals(FRAME)
    assert batch.repeats is not None, "rows alone are everything, each time"
    assert batch.positions == {"position": {}}


def test_the_position_it_gave_is_handed_back() -> None:
    met = []

    def orders(position: dict[str, Any]) -> tuple[pl.DataFrame, dict[str, Any]] | None:
        met.append(dict(position))
        start = position.get("next", 0)
        position["next"] = 99  # what it does to its argument is nobody's business
        return (FRAME + start, {"next": start + 2}) if start < 4 else None

    reader, positions = FunctionReader(Function(orders)), {}
    found = []
    while (batch := reader.read(positions)) is not None:
        assert batch.repeats is None
        assert batch.origin == "orders()"
        found += batch.frame()["x"].to_list()
        positions = batch.positions
    assert found == [1, 2, 3, 4]
    assert met == [{}, {"next": 2}, {"next": 4}]


@pytest.mark.parametrize("given", [None, FRAME.clear(), [], (FRAME.clear(), {"next": 1}), (None, {})])
def test_no_rows_are_nothing_new(given: Any) -> None:
    assert FunctionReader(Function(lambda position: given)).read({}) is None


def test_frames_of_a_generator_get_one_schema() -> None:
    def rows(_: object) -> Iterator[pl.DataFrame]:
        yield pl.DataFrame({"x": [1]})
        yield pl.DataFrame({"x": [0.5], "y": ["a"]})

    batch = FunctionReader(Function(rows)).read({})
    assert batch is not None
    assert batch.frame().rows() == [(1.0, None), (0.5, "a")]


@pytest.mark.parametrize("given", [3, "text", [3], {"x": [1]}, (FRAME, 3), (FRAME, {"at": {1}}), (FRAME, FRAME), (FRAME, {}, 1)])
def test_what_are_no_rows_is_refused_by_name(given: Any) -> None:
    def orders(_: object) -> Any:
        return given

    with pytest.raises(DataError, match=r"orders\(\)"):
        FunctionReader(Function(orders)).read({})


def test_its_failure_is_told_with_the_cause() -> None:
    def orders(_: object) -> Iterator[pl.DataFrame]:
        yield FRAME
        raise ZeroDivisionError("shop closed")

    with pytest.raises(DataError, match=r"orders\(\) failed: ZeroDivisionError: shop closed") as caught:
        FunctionReader(Function(orders)).read({})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def away(_: object) -> Any:
        raise Unavailable("the shop is closed")

    with pytest.raises(Unavailable):
        FunctionReader(Function(away)).read({})
