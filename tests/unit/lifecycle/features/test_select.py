"""Which features a model keeps: those that tell about the target, bounded as declared, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import features
from mulle.core.declare.model import Model
from mulle.core.declare.select import By, Select, select
from mulle.core.declare.sources import Files
from mulle.core.errors import DeclarationError
from mulle.core.records.bundle import FeatureSpec
from mulle.lifecycle.features.select import Selection, _how_many, choose_features

NAMES = ("noise", "strong", "bent", "code", "serial", "gaps")
SPECS = tuple(
    FeatureSpec(name=n, kind="category" if n in ("code", "serial") else "number", categories=("a", "b", "c", "d")) for n in NAMES
)
BY: tuple[By, ...] = ("importance", "mutual_information")


def rows(n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """The target follows strong, bent (not in a line) and code; whether gaps is missing tells too."""
    dice = np.random.default_rng(0)
    matrix = dice.normal(size=(n, len(NAMES))).astype(np.float32)
    matrix[:, 3] = dice.integers(0, 4, n)
    matrix[:, 4] = np.arange(n)
    missing = dice.random(n) < 0.3
    matrix[missing, 5] = np.nan
    target = 3 * matrix[:, 1] + 2 * matrix[:, 2] ** 2 + 4 * (matrix[:, 3] == 2) + 4 * missing + dice.normal(size=n)
    return matrix, target.astype(np.float64)


def chosen(task: str = "regression", *, seed: int = 0, **bounds: object) -> Selection:
    matrix, target = rows()
    answers = target if task == "regression" else np.where(target > np.median(target), "late", "fine").astype(object)
    return choose_features(matrix, answers, SPECS, task=task, select=select(**bounds), seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("task", ["regression", "binary"])
def test_what_tells_is_kept_and_noise_is_not(by: By, task: str) -> None:
    found = chosen(task, top=4, by=by)
    assert found.by == by
    assert found.kept == ("strong", "bent", "code", "gaps")
    assert set(found.scores) == set(NAMES)
    assert list(found.scores.values()) == sorted(found.scores.values(), reverse=True)


@pytest.mark.parametrize("by", BY)
def test_the_same_rows_and_seed_choose_the_same(by: By) -> None:
    assert chosen(top=3, by=by, seed=7) == chosen(top=3, by=by, seed=7)


def test_importance_is_a_share_of_all_gain() -> None:
    assert sum(chosen(top=1).scores.values()) == pytest.approx(1.0)


def test_a_code_that_is_different_on_every_row_tells_nothing() -> None:
    found = chosen("binary", top=1, by="mutual_information")
    assert found.scores["serial"] < 0.05 < found.scores["strong"]


def test_bounds_hold_together_and_the_best_always_stays() -> None:
    assert len(chosen(share=0.99, top=2).kept) == 2
    assert chosen(at_least=2.0).kept == ("strong",)
    few, many = chosen(share=0.4).kept, chosen(share=0.97).kept
    assert len(few) < len(many)
    assert set(few) <= set(many)


def test_rows_that_tell_nothing_at_all_keep_the_first() -> None:
    blank = np.full((100, len(NAMES)), np.nan, dtype=np.float32)
    target = np.arange(100.0)
    for by in BY:
        found = choose_features(blank, target, SPECS, task="regression", select=select(share=0.5, top=1, by=by), seed=0)
        assert found.kept == ("noise",)


SCORES = st.lists(st.floats(0, 100), min_size=1, max_size=12).map(lambda v: np.array(sorted(v, reverse=True)))


@given(SCORES, st.integers(1, 20), st.floats(0.01, 1), st.floats(0, 100))
def test_every_bound_is_kept_and_more_bounds_keep_fewer(scores: np.ndarray, top: int, share: float, least: float) -> None:
    def kept(top: int | None, share: float | None, least: float | None) -> int:
        return _how_many(scores, Select(by="importance", top=top, share=share, at_least=least))

    both = kept(top, share, least)
    assert both == max(1, min(kept(top, None, None), kept(None, share, None), kept(None, None, least)))
    assert 1 <= both <= len(scores)
    assert scores[: kept(None, share, None)].sum() >= share * scores.sum() * (1 - 1e-9)
    assert kept(None, share, None) == 1 or scores[: kept(None, share, None) - 1].sum() < share * scores.sum()


@pytest.mark.parametrize(
    "bounds", [{}, {"top": 0}, {"share": 0.0}, {"share": 1.5}, {"at_least": -1.0}, {"top": 3, "by": "luck"}], ids=str
)
def test_a_selection_that_cannot_be_is_refused_where_it_is_declared(bounds: dict[str, object]) -> None:
    with pytest.raises(DeclarationError, match="select"):
        select(**bounds)  # type: ignore[arg-type]


def test_a_model_takes_a_selection_and_nothing_else() -> None:
    shape = features(Dataset("d", Files("d.csv")))(lambda rows: rows)
    model = Model("m", features=shape, target="y", task="regression", select=select(top=2))
    assert model.select == Select(by="importance", top=2, share=None, at_least=None)
    assert Model("m", features=shape, target="y", task="regression").select is None
    with pytest.raises(DeclarationError, match="select is a int"):
        Model("m", features=shape, target="y", task="regression", select=10)  # type: ignore[arg-type]
