"""Text, times and arrays become numbers, and the same ones whether a row comes alone or among many."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulle.core.declare.text import LONGEST, hashed, ngrams, words
from mulle.core.errors import DeclarationError, TransformError
from mulle.core.records.base import from_json, to_json
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.encode import ITEMS, encode, feature_specs, unseen
from mulle.kernel.terms import TERMS
from mulle.kernel.transform import prove_row_wise

COMPLAINTS = [f"the {c} {t} arrived {s} on day {i % 30}" for i, (c, t, s) in enumerate(
    [(c, t, s) for c in ("red", "blue", "green") for t in ("chair", "table", "lamp") for s in ("broken", "late", "fine")]
)]  # fmt: skip
MOMENTS = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=37 * i) for i in range(len(COMPLAINTS))]
TRAIN = pl.DataFrame(
    {
        "text": COMPLAINTS,
        "code": [f"c{i % 4}" for i in range(len(COMPLAINTS))],
        "at": MOMENTS,
        "tags": [["a", "b"][: i % 3] for i in range(len(COMPLAINTS))],
        "pixels": [[i / 2, i / 3, 1.0] for i in range(len(COMPLAINTS))],
        "size": [float(i) for i in range(len(COMPLAINTS))],
    },
    schema_overrides={"at": pl.Datetime("us", "UTC")},
)
SPECS = feature_specs(TRAIN)


def kinds(specs: tuple[FeatureSpec, ...], column: str) -> list[str]:
    return [s.kind for s in specs if s.column == column]


def test_each_column_becomes_what_it_is() -> None:
    assert set(kinds(SPECS, "text")) == {"term"}
    assert kinds(SPECS, "code") == ["category"]
    assert [s.name for s in SPECS if s.column == "at"] == ["at", "at: month", "at: day", "at: weekday", "at: hour"]
    assert [s.part for s in SPECS if s.column == "tags"] == ["a", "b"]
    assert [s.name for s in SPECS if s.column == "pixels"] == ["pixels: 0", "pixels: 1", "pixels: 2"]
    assert encode(TRAIN, SPECS).shape == (TRAIN.height, len(SPECS))
    assert tuple(from_json(FeatureSpec, to_json(s)) for s in SPECS) == SPECS


def test_terms_are_weighed_as_scikit_learn_weighs_them() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    specs = [s for s in SPECS if s.column == "text"]
    theirs = TfidfVectorizer(token_pattern=r"\w{2,}", vocabulary=[s.part for s in specs]).fit(COMPLAINTS)
    asked = [*COMPLAINTS, "RED red chair, and something else", "nothing that is known", ""]
    mine = encode(pl.DataFrame({"text": asked}), specs)
    assert mine == pytest.approx(theirs.transform(asked).toarray(), abs=1e-6)


def test_only_terms_that_rows_share_are_kept_and_only_so_many() -> None:
    random = np.random.default_rng(0)
    vocabulary = [f"word{i}" for i in range(2000)]
    texts = [" ".join(random.choice(vocabulary, 20)) + f" secret{i}" for i in range(600)]
    specs = feature_specs(pl.DataFrame({"t": texts}))
    assert len(specs) == TERMS
    assert not [s for s in specs if "secret" in s.part]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["New York City", "Rome", "Rio de Janeiro"] * 30, "category"),
        ([f"AB{i}" for i in range(100)], "category"),
        ([f"order number {i} of the customer" for i in range(100)], "term"),
        ([None] * 50 + [f"order number {i} of the customer" for i in range(50)], "term"),
        ([f"unlike{i} anything{i} else{i}" for i in range(100)], "category"),
        (["a b c"] * 100, "category"),
        ([None] * 10, "category"),
        ([""] * 10, "category"),
    ],
)
def test_text_is_told_from_categories(values: list[str | None], kind: str) -> None:
    assert set(kinds(feature_specs(pl.DataFrame({"t": values}, schema={"t": pl.String})), "t")) == {kind}


def test_the_user_says_otherwise_by_the_type_of_the_column() -> None:
    frame = pl.DataFrame({"t": COMPLAINTS, "c": ["red chair", "chair"] * 13 + ["red"]})
    assert kinds(feature_specs(frame.select(pl.col("t").cast(pl.Categorical))), "t") == ["category"]
    assert {s.part for s in feature_specs(frame.select(c=words("c")))} == {"red", "chair"}
    assert {len(s.part) for s in feature_specs(frame.select(c=ngrams("c", 4)))} == {4}
    assert len(feature_specs(frame.select(h=hashed("t", 16)))) == 16
    for function in (lambda r: r.select(c=words("c")), lambda r: r.select(c=ngrams("c")), lambda r: r.select(c=hashed("c", 8))):
        prove_row_wise(function, frame)


@pytest.mark.parametrize(
    "refused", [lambda: ngrams("c", 0), lambda: ngrams("c", 9), lambda: hashed("c", 1), lambda: hashed("c", 5000)]
)
def test_pieces_and_buckets_have_bounds(refused: Callable[[], pl.Expr]) -> None:
    with pytest.raises(DeclarationError) as caught:
        refused()
    assert caught.value.next.startswith("choose from")


def test_hashing_counts_words_that_training_never_saw() -> None:
    made = pl.DataFrame({"t": ["new words", "words words", None, ""]}).select(h=hashed("t", 4096))
    matrix = encode(made, feature_specs(made))
    assert np.nansum(matrix, axis=1).tolist() == [2, 2, 0, 0]
    assert np.isnan(matrix[2]).all()
    assert (matrix[0] * matrix[1]).sum() == 2, "the same word is the same column"


def test_nothing_said_is_not_nothing_known() -> None:
    specs = [s for s in SPECS if s.column == "text"]
    matrix = encode(pl.DataFrame({"text": [None, "", "zzz yyy"]}, schema={"text": pl.String}), specs)
    assert np.isnan(matrix[0]).all()
    assert not matrix[1:].any()


def test_what_follows_a_very_long_text_is_not_read() -> None:
    specs = [s for s in SPECS if s.column == "text"]
    long = "chair " * (LONGEST // 6)
    matrix = encode(pl.DataFrame({"text": [long, long + " " * 10 + "lamp " * 1_000_000]}), specs)
    assert matrix[0].tolist() == matrix[1].tolist()


def test_times_have_parts_and_those_that_never_vary_are_left_out() -> None:
    days = pl.DataFrame({"d": [date(2021, 3, 1), date(2021, 3, 2), None]})
    specs = feature_specs(days)
    assert [s.name for s in specs] == ["d", "d: day", "d: weekday"]
    assert encode(days, specs)[:, 1:].tolist()[:2] == [[1.0, 1.0], [2.0, 2.0]]
    assert np.isnan(encode(days, specs)[2]).all()


def test_arrays_and_lists_are_laid_out_and_gaps_are_nan() -> None:
    lists = pl.DataFrame({"p": [[1.0, 2.0], [3.0], None, [], [None, 4.0], [5.0, 6.0, 7.0]]})
    specs = feature_specs(lists.head(2))
    expected = [[1, 2], [3, math.nan], [math.nan] * 2, [math.nan] * 2, [math.nan, 4], [5, 6]]
    np.testing.assert_array_equal(encode(lists, specs), np.array(expected, dtype=np.float32))
    arrays = pl.DataFrame({"p": [[1, 2], None]}, schema={"p": pl.Array(pl.UInt8, 2)})
    np.testing.assert_array_equal(encode(arrays, feature_specs(arrays)), [[1, 2], [np.nan, np.nan]])
    with pytest.raises(TransformError, match=f"lists of {ITEMS + 1} numbers"):
        feature_specs(pl.DataFrame({"p": [[0.0] * (ITEMS + 1)]}))


def test_a_column_of_another_type_than_in_training_and_a_name_that_is_taken_are_refused() -> None:
    for frame in (TRAIN.with_columns(pixels=pl.lit("one")), TRAIN.with_columns(at=pl.lit("soon"))):
        with pytest.raises(TransformError, match="was something else in training"):
            encode(frame, SPECS)
    with pytest.raises(TransformError, match="two features are named 'p: 0'"):
        feature_specs(pl.DataFrame({"p": [[1.0]], "p: 0": [1.0]}))


def test_a_column_without_any_value_is_encoded() -> None:
    nothing = pl.DataFrame({name: [None, None] for name in TRAIN.columns})
    assert np.isnan(encode(nothing, SPECS)).all()


TEXTS = st.one_of(
    st.none(),
    st.just(""),
    st.text(max_size=60),
    st.lists(st.sampled_from(["red", "CHAIR", "lamp", "ΣΑΣ", "İ", "x"]), max_size=9).map(" ".join),
    st.integers(1, 30_000).map(lambda n: "red lamp " * n),
)
NUMBERS = st.one_of(st.none(), st.floats(width=32))
ROWS = st.fixed_dictionaries(
    {
        "text": TEXTS,
        "code": st.one_of(st.none(), st.sampled_from(["c1", "c2", "new", ""])),
        "at": st.one_of(st.none(), st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))),
        "tags": st.one_of(st.none(), st.lists(st.sampled_from(["a", "b", "new", None]), max_size=4)),
        "pixels": st.one_of(st.none(), st.lists(NUMBERS, max_size=5)),
        "size": NUMBERS,
    }
)


@settings(deadline=None, max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=6))
def test_any_row_is_encoded_alike_alone_among_others_and_among_very_many(rows: list[dict[str, object]]) -> None:
    frame = pl.DataFrame(rows, schema=TRAIN.schema)
    whole = encode(frame, SPECS)
    assert not np.isinf(whole).any()
    for i in range(frame.height):
        np.testing.assert_array_equal(encode(frame[i], SPECS)[0], whole[i])
    many = encode(pl.concat([TRAIN.head(1), frame, *[TRAIN] * 30]), SPECS)
    np.testing.assert_array_equal(many[1 : 1 + frame.height], whole)
    marked = unseen(frame, SPECS, whole)
    assert marked == {i: ("code",) for i, row in enumerate(rows) if row["code"] in ("new", "")}


@settings(deadline=None, max_examples=40)
@given(st.lists(ROWS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_selection_of_columns_gives_the_same_numbers(rows: list[dict[str, object]], random: object) -> None:
    frame = pl.DataFrame(rows, schema=TRAIN.schema)
    chosen = [i for i, s in enumerate(SPECS) if s.kind != "term" and random.random() < 0.5]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(encode(frame, tuple(SPECS[i] for i in chosen)), encode(frame, SPECS)[:, chosen])
