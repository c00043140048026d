"""Hostile rows are answered or refused by the contract; what else happens is told."""

from __future__ import annotations

import polars as pl
import pytest
from making import NOW, PROJECT, make

from mulle.core.errors import TransformError
from mulle.kernel.bundle import Predictor
from mulle.lifecycle.registry.hostile import KINDS, try_bad_input


class Spoiled:
    """A predictor whose transform runs into `failing` rows."""

    def __init__(self, inner: Predictor, failing, error: BaseException | None = None, answer: float | None = None) -> None:
        self.contract, self._inner, self._failing, self._error, self._answer = inner.contract, inner, failing, error, answer

    def transform(self, joined: pl.DataFrame) -> pl.DataFrame:
        self._spoil = self._failing(joined)
        if self._spoil and self._error is not None:
            raise self._error
        return self._inner.transform(joined)

    def score(self, features: pl.DataFrame):
        found = self._inner.score(features)
        if self._spoil and self._answer is not None:
            found.values[0] = self._answer
        return found


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_a_sound_model_answers_or_refuses_every_kind(tmp_path, task):
    made = make(tmp_path, task=task)
    found = try_bad_input(made.predictor(), made.joined, now=NOW)
    assert found.failed == {}
    assert found.rows == found.answered + found.refused
    assert found.refused > 0, "infinities are no numbers of the contract"
    assert found.answered > len(KINDS)


@pytest.mark.parametrize(
    ("kind", "failing", "error"),
    [
        ("nulls", lambda rows: rows["distance"].is_null().any(), TransformError("cannot take nothing", next="")),
        ("empty text", lambda rows: (rows["carrier"] == "").any(), ValueError("empty")),
        ("extremes", lambda rows: (rows["distance"] > 1e300).any(), OverflowError("too large")),
        ("long text", lambda rows: (rows["carrier"].str.len_chars() > 1_000).any(), pl.exceptions.PanicException("index")),
    ],
)
def test_any_other_error_is_a_failure_with_its_row(tmp_path, kind, failing, error):
    made = make(tmp_path)
    found = try_bad_input(Spoiled(made.predictor(), failing, error), made.joined, now=NOW)
    assert list(found.failed) == [kind]
    assert type(error).__name__ in found.failed[kind]
    assert found.rows > found.answered + found.refused


def test_an_answer_that_is_no_number_is_a_failure(tmp_path):
    made = make(tmp_path)
    spoiled = Spoiled(made.predictor(), lambda rows: rows["carrier"].is_null().any(), answer=float("nan"))
    assert "the answer is nan" in try_bad_input(spoiled, made.joined, now=NOW).failed["nulls"]


def test_a_users_function_that_cannot_take_extremes_is_found_out(tmp_path):
    text = PROJECT.replace('"distance", hour', 'pl.col("distance").cast(pl.Int32).alias("distance"), hour')
    made = make(tmp_path, project_text=text)
    failed = try_bad_input(made.predictor(), made.joined, now=NOW).failed
    assert list(failed) == ["extremes"]
    assert failed["extremes"].startswith("distance is 1.7e+308: TransformError: feature function flight_features failed")


def test_the_rows_tried_are_what_a_client_could_send(tmp_path):
    made = make(tmp_path)
    seen: list[dict[str, object]] = []

    def watched(joined: pl.DataFrame) -> bool:
        seen.append(joined.rows(named=True)[0])
        return False

    try_bad_input(Spoiled(made.predictor(), watched), made.joined, now=NOW)
    assert {str(row["carrier"])[:7] for row in seen} >= {"None", "", "\u2603 never"}
    assert {row["at"].year for row in seen} >= {1, 9999}
