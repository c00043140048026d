"""A bundle proves its transform again when it loads, with rows that are nobody's."""

from __future__ import annotations

import json

import polars as pl
import pytest
from making import PROJECT, make

from mulle.core.errors import BundleError
from mulle.kernel.bundle import Predictor
from mulle.kernel.project import load_project
from mulle.kernel.sample import prove_sample
from mulle.kernel.transform import run_transform
from mulle.lifecycle.registry.sample import make_sample


def transform_changed(address, before, after):
    """Change a bundle's feature function behind its back, as another library or platform would."""
    path = address / "transform" / "project.py"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


@pytest.mark.parametrize(
    ("before", "after", "column", "words"),
    [
        ('half=half("distance")', 'half=pl.col("distance").rank()', "half", "halved"),
        ('half=half("distance")', 'half=pl.col("distance").shift(1)', "half", "row-wise|changes when"),
        ('hour=pl.col("at").dt.hour()', 'hour=pl.len() + 0 * pl.col("at").dt.hour()', "hour", "changes when"),
        ('hour=pl.col("at").dt.hour()', 'hour=pl.col("at").dt.minute() + 1', "hour", "not what it was"),
        ('"carrier", "distance"', '"distance"', "carrier", "no feature 'carrier'"),
    ],
)
def test_a_transform_is_proved_again_when_its_bundle_loads(tmp_path, before, after, column, words):
    _, address = make(tmp_path).write()
    Predictor.open(address)
    transform_changed(address, before, after)
    with pytest.raises(BundleError, match=words) as caught:
        Predictor.open(address)
    assert caught.value.facts["column"] == column
    assert caught.value.facts["bundle"] == address.name
    assert caught.value.status == 500, "not the fault of a request"


def test_a_transform_that_learned_in_the_process_that_registered_it_is_refused_where_it_is_served(tmp_path):
    made = make(tmp_path)
    (tmp_path / "project" / "ours.py").write_text(
        "import polars as pl\n\nSEEN = []\n\ndef half(name):\n    return pl.col(name) / 2\n\n"
        "def centred(rows):\n    if not SEEN:\n"
        "        SEEN.append(rows.select(pl.col('distance').mean()).collect().item() or 0.0)\n"
        "    return pl.col('distance') - SEEN[0]\n"
    )
    text = PROJECT.replace('half=half("distance")', "half=centred(rows)").replace("import half", "import centred, half")
    (tmp_path / "project" / "project.py").write_text(text)
    made.features = load_project(tmp_path / "project").features["flight_features"]
    run_transform(made.features, made.joined)
    _, address = made.write()
    with pytest.raises(BundleError, match="'half' is not what it was when the model was registered"):
        Predictor.open(address)


def test_a_bundle_of_the_layout_before_the_sample_still_opens(tmp_path):
    _, address = make(tmp_path).write()
    (address / "sample.json").unlink()
    with pytest.raises(BundleError, match=r"no readable sample\.json"):
        Predictor.open(address)
    contract = json.loads((address / "bundle.json").read_text())
    (address / "bundle.json").write_text(json.dumps(contract | {"format": 1}))
    assert Predictor.open(address).contract.format == 1
    (address / "bundle.json").write_text(json.dumps(contract))
    (address / "sample.json").write_text('{"inputs": {"x": 1}}')
    with pytest.raises(BundleError, match="sample cannot be read"):
        Predictor.open(address)


def test_the_sample_holds_nobodys_data(tmp_path):
    made = make(tmp_path)
    n = made.joined.height
    joined = made.joined.with_columns(
        pl.Series("plane.owner", [f"Ada {chr(65 + i % 26)}{i} Lovelace" for i in range(n)]),
        pl.Series("plane.code", ["common"] * (n - 2) + ["scarce"] * 2),
        pl.Series("plane.seats", [i % 3 for i in range(n)]),
    )
    sample = make_sample(made.predictor(), joined, seed=3)
    rows = sample.rows
    assert rows.height == 64
    assert rows.schema == joined.schema
    for telling in ("flight_id", "plane.owner", "distance", "at"):
        shared = set(rows[telling].drop_nulls()) & set(joined[telling].drop_nulls())
        assert len(shared) <= 3, f"{telling}: {shared}"
    assert not set(rows["plane.owner"]) & set(joined["plane.owner"])
    assert "scarce" not in rows["plane.code"]
    assert set(rows["plane.seats"]) == {0, 1, 2}
    assert set(rows["carrier"].drop_nulls()) <= {"AA", "UA", "B6"}
    assert joined["distance"].min() < rows["distance"].min()
    assert rows["distance"].max() < joined["distance"].max()
    assert rows.equals(make_sample(made.predictor(), joined, seed=3).rows)


def test_a_text_that_the_function_parses_is_left_empty_in_the_sample(tmp_path):
    made = make(tmp_path)
    text = PROJECT.replace('half=half("distance")', 'half=pl.col("day").str.to_date("%Y-%m-%d").dt.day()')
    (tmp_path / "project" / "project.py").write_text(text)
    made.features = load_project(tmp_path / "project").features["flight_features"]
    joined = made.joined.with_columns(day=pl.col("at").dt.strftime("%Y-%m-%d"))
    rows = make_sample(made.predictor(), joined, seed=0).rows
    assert rows["day"].null_count() == rows.height
    assert rows["flight_id"].null_count() == 0


def test_proving_again_costs_little(tmp_path):
    made = make(tmp_path)
    sample = make_sample(made.predictor(), made.joined, seed=0)
    seen = []

    def counted(rows):
        seen.append(rows.collect().height)
        return made.features(rows)

    prove_sample(counted, made.contract.features, sample)
    assert len(seen) <= 24, "each look at it costs about 2 ms, whatever the rows"
    assert max(seen) <= 1_024, "the sample again and again, as a batch"
    seen.clear()
    prove_sample(counted, made.contract.features, sample, row_wise=False)
    assert seen == [64], "and once where its source was proved before"
