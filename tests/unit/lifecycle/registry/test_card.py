"""The card tells how sure its figures are and where the model is weak, and nothing of a single person."""

from __future__ import annotations

from making import make

from mulle.core.records.evaluation import Calibration, CalibrationBin, Evaluation, Measured, WeakSlice
from mulle.lifecycle.registry.card import card


def part(rows, mae, low, high):
    return Measured(rows=rows, metrics={"mae": mae}, intervals={"mae": (low, high)})


def evaluation(**more):
    weak = WeakSlice(
        column="note", value="a | b\nsecond line " + "x" * 90, rows=40, metric="mae", inside=9.0, outside=4.0, worse=5.0, low=3.5
    )
    return Evaluation(
        rows=100, metrics={"mae": 5.0}, intervals={"mae": (4.25, 5.75)},
        slices={"person": {"many": part(60, 5.0, 4, 6), "Ada Lovelace": part(1, 1.0, 1, 1)}},
        weak_slices=(weak,), train=part(300, 3.5, 3, 4), calibrations={"10": Calibration(rows=100, error=0.1, bias=-0.5)}, **more,
    )  # fmt: skip


def test_the_card_says_how_sure_its_figures_are(tmp_path):
    text = card(make(tmp_path).contract, {"mae": 5.0}, (), evaluation())
    assert "| mae | 5 | 4.25 to 5.75 | 3.5 |" in text
    assert "The holdout has 100 rows" in text
    assert "| many | 60 | 5 (4 to 6) |" in text
    assert "Answers are off by -0.5 on average" in text


def test_a_slices_value_is_one_short_line_and_nobodys_own(tmp_path):
    text = card(make(tmp_path).contract, {"mae": 5.0}, (), evaluation())
    line = next(line for line in text.splitlines() if line.startswith("| `note` |"))
    assert "a \\| b second line xxx" in line
    assert len(line) < 140
    assert "Ada" not in text


def test_probabilities_are_shown_bin_by_bin(tmp_path):
    bins = (CalibrationBin(low=0.0, high=0.5, rows=80, said=0.2, observed=0.25),)
    found = evaluation()
    found = Evaluation(
        rows=100, metrics={}, intervals={}, slices={}, weak_slices=(), train=found.train,
        calibrations={"2": Calibration(rows=100, error=0.05, brier=0.1, bins=bins)},
    )  # fmt: skip
    text = card(make(tmp_path).contract, {}, (), found)
    assert "Expected calibration error 0.05, Brier score 0.1, on 100 rows" in text
    assert "| 0 to 0.5 | 80 | 0.200 | 0.250 |" in text
    assert "No value or range of one column is worse" in text
