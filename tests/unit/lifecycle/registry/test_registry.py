"""From a fitted pipeline to a bundle that is served: compiled, proved, written, read back."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mulle.core.declare.training import dummy, extra_trees, lightgbm, logistic, random_forest, ridge
from mulle.core.errors import BundleError
from mulle.core.hashing import hash_folder
from mulle.core.records.bundle import FORMAT, Contract
from mulle.kernel.bundle import Predictor, read_contract
from mulle.kernel.fitted import answers, classes_of
from mulle.kernel.histograms import build_reference
from mulle.kernel.project import load_project
from mulle.kernel.sample import prove_sample
from mulle.kernel.transform import cast_inputs, encode, feature_specs, raw_inputs, run_transform
from mulle.lifecycle.evaluation.gates import Evidence, judge
from mulle.lifecycle.registry.bundle import write_bundle
from mulle.lifecycle.registry.card import card
from mulle.lifecycle.registry.compile import compile_model
from mulle.lifecycle.registry.latency import measure_p99
from mulle.lifecycle.registry.native import dump_native, load_native
from mulle.lifecycle.registry.parity import prove
from mulle.lifecycle.registry.sample import make_sample
from mulle.lifecycle.training.candidates import defaults
from mulle.lifecycle.training.fit import fit

PROJECT = """
import polars as pl
import mulle as ml
from ours import half

flights = ml.Dataset("flights", ml.Files("f.csv"), key="flight_id", time="at", outcome=["air_time"])

@ml.features(flights)
def flight_features(rows):
    return rows.select("carrier", "distance", hour=pl.col("at").dt.hour(), at="at", half=half("distance"))

model = ml.Model("air-time", features=flight_features, target="air_time", task="regression")
"""
NOW = datetime(2013, 6, 1, tzinfo=UTC)


@dataclasses.dataclass
class Made:
    folder: object
    joined: pl.DataFrame
    truth: np.ndarray
    contract: Contract
    features: object
    fitted: object
    model: bytes | None

    def predictor(self):
        offline = lambda m: answers(self.fitted, m, self.contract.task)  # noqa: E731
        return Predictor.assemble(self.contract, self.features, self.model or offline)

    def proved(self):
        return dataclasses.replace(
            self.contract, parity=prove(self.fitted, self.predictor(), self.joined, tolerance=1e-4, now=NOW)
        )

    def write(self, contract=None):
        contract = contract or self.proved()
        reference = build_reference(self.predictor().transform(self.joined), contract.features, self.joined["distance"])
        native = None if self.model else self.fitted
        return write_bundle(
            self.folder / "bundles", contract=contract, model=self.model, native=native, project_folder=self.folder / "project",
            reference=reference, sample=make_sample(self.predictor(), self.joined, seed=0), card=card(contract, contract.metrics),
        )  # fmt: skip


def make(folder, candidate=None, task="regression", compiled=True, n=300):
    candidate = candidate or lightgbm(n_estimators=30)
    project = folder / "project"
    project.mkdir(exist_ok=True)
    (project / "project.py").write_text(PROJECT)
    (project / "ours.py").write_text("import polars as pl\n\ndef half(name):\n    return pl.col(name) / 2\n")
    random = np.random.default_rng(0)
    raw = pl.DataFrame(
        {
            "flight_id": [f"F{i}" for i in range(n)],
            "carrier": [["AA", "UA", "B6", None][i] for i in random.integers(0, 4, n)],
            "distance": [None if i % 17 == 0 else float(d) for i, d in enumerate(random.uniform(100, 3000, n))],
            "at": [NOW - timedelta(hours=int(h)) for h in random.integers(1, 3000, n)],
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    truth = raw["distance"].fill_null(1500).to_numpy() / 8 + random.normal(0, 5, n)
    target = truth if task == "regression" else np.where(truth > np.median(truth), "late", "fine").astype(object)
    if task == "multiclass":
        target = np.array(["short", "middle", "long"], dtype=object)[np.digitize(truth, np.quantile(truth, [0.3, 0.6]))]
    inputs = raw_inputs(
        {c: str(d) for c, d in raw.schema.items()} | {"at": "Datetime(us, UTC)"},
        hidden=["air_time"],
        key=["flight_id"],
        time="at",
    )
    features = load_project(project).features["flight_features"]
    joined = cast_inputs(raw, inputs)
    table = run_transform(features, joined)
    specs = feature_specs(table)
    settings = {"candidate": candidate.kind, "params": defaults(candidate, task, n)}
    fitted = fit(settings, encode(table, specs), target, task=task, specs=specs, seed=0)
    model = compile_model(fitted, width=len(specs), task=task) if compiled else None
    contract = Contract(
        format=FORMAT, model="air-time", task=task, target="air_time", classes=classes_of(fitted, task), dataset="flights",
        key=("flight_id",), time="at", inputs=inputs, joins=(), features=specs,
        transform={"function": "flight_features", "hash": "h", "code": "c"}, compiled="onnx" if model else "native", parity=None,
        scale=float(np.std(truth)) if task == "regression" else 1.0, run="R1", data={"flights": 3}, data_cutoff=NOW,
        refit_cutoff=NOW, metrics={"mae": 5.0}, settings=settings,
    )  # fmt: skip
    return Made(folder, joined, target, contract, features, fitted, model)


REGRESSORS = [dummy(), ridge(), lightgbm(n_estimators=30), random_forest(n_estimators=5), extra_trees(n_estimators=5)]
CLASSIFIERS = [*REGRESSORS, logistic()]
CASES = [("regression", c) for c in REGRESSORS] + [(t, c) for t in ("binary", "multiclass") for c in CLASSIFIERS]


@pytest.mark.parametrize(("task", "candidate"), CASES, ids=lambda c: c if isinstance(c, str) else c.kind)
def test_every_candidate_compiles_and_the_served_path_answers_alike(tmp_path, task, candidate):
    made = make(tmp_path, candidate, task)
    assert made.model is not None
    proof = made.proved().parity
    assert proof.rows == 300
    assert proof.worst < 1e-5
    assert proof.outside == 0


def test_a_bundle_is_read_back_and_answers_as_the_fitted_model(tmp_path):
    made = make(tmp_path)
    name, address = made.write()
    assert address.name == name == hash_folder(address)
    assert {p.name for p in address.iterdir()} == {
        "bundle.json",
        "model.onnx",
        "transform",
        "reference.json",
        "sample.json",
        "lock.txt",
        "card.md",
    }
    predictor = Predictor.open(address, expected=name)
    shutil.rmtree(made.folder / "project")
    table = predictor.transform(made.joined)
    scores = predictor.score(table)
    assert scores.values == pytest.approx(made.fitted.predict(encode(table, predictor.contract.features)).tolist(), rel=1e-4)
    assert scores.probabilities is None
    assert predictor.contract == made.proved()
    assert set(predictor.reference["features"]) == {"carrier", "distance", "hour", "at", "half"}
    assert hash_folder(address) == name, "reading leaves the folder as it was"


def test_writing_the_same_bundle_twice_gives_the_same_address_and_leaves_no_litter(tmp_path):
    made = make(tmp_path)
    assert made.write() == made.write()
    assert len(list((tmp_path / "bundles").iterdir())) == 1


def test_a_classifier_answers_with_a_label_and_its_probabilities(tmp_path):
    made = make(tmp_path, logistic(), "binary")
    name, address = made.write()
    predictor = Predictor.open(address, expected=name)
    scores = predictor.score(predictor.transform(made.joined))
    assert set(scores.values) == {"fine", "late"}
    assert scores.probabilities.shape == (300, 2)
    assert np.mean(np.array(scores.values) == made.truth) > 0.8


def test_an_unseen_category_is_answered_and_told(tmp_path):
    predictor = make(tmp_path).predictor()
    strange = predictor.transform(make(tmp_path).joined.head(3).with_columns(carrier=pl.Series(["UA", "ZZ", None])))
    scores = predictor.score(strange)
    assert len(scores.values) == 3
    assert scores.unseen == {1: ("carrier",)}
    assert predictor.score(strange.head(0)).values == []


def test_a_model_that_does_not_compile_is_served_by_a_child_that_is_started_again_when_it_dies(tmp_path):
    made = make(tmp_path, random_forest(n_estimators=3), "multiclass", compiled=False)
    assert made.proved().parity.worst == 0
    name, address = made.write()
    assert made.write() == (name, address)
    predictor = Predictor.open(address, expected=name)
    dead = predictor._engine._started()
    dead.kill()
    dead.wait()
    try:
        table = predictor.transform(made.joined)
        matrix = encode(table, predictor.contract.features)
        assert np.array_equal(predictor.run(matrix), answers(made.fitted, matrix, "multiclass"))
        assert set(predictor.score(table).values) == {"short", "middle", "long"}
        child = predictor._engine._child
    finally:
        predictor.close()
    assert child.poll() is not None


def test_a_native_lightgbm_is_read_back_and_a_strange_type_is_not(tmp_path):
    made = make(tmp_path, lightgbm(n_estimators=5), compiled=False)
    matrix = encode(made.predictor().transform(made.joined), made.contract.features)
    (tmp_path / "model.skops").write_bytes(dump_native(made.fitted))
    assert np.array_equal(load_native(tmp_path / "model.skops").predict(matrix), made.fitted.predict(matrix))
    (tmp_path / "model.skops").write_bytes(dump_native(made))
    with pytest.raises(BundleError, match="only models made by Mulle"):
        load_native(tmp_path / "model.skops")


def test_a_bundle_that_was_changed_is_refused(tmp_path):
    name, address = make(tmp_path).write()
    (address / "card.md").write_text("better than it is")
    with pytest.raises(BundleError, match="not the bundle that was registered"):
        Predictor.open(address, expected=name)
    with pytest.raises(BundleError, match="found nothing"):
        Predictor.open(tmp_path / "gone", expected=name)


def test_a_bundle_without_its_proof_or_of_a_later_layout_is_refused(tmp_path):
    made = make(tmp_path)
    with pytest.raises(BundleError, match="parity proof"):
        made.write(made.contract)
    _, address = made.write()
    contract = json.loads((address / "bundle.json").read_text())
    (address / "bundle.json").write_text(json.dumps(contract | {"parity": None}))
    with pytest.raises(BundleError, match="no parity proof"):
        Predictor.open(address)
    (address / "bundle.json").write_text(json.dumps(contract | {"format": FORMAT + 1}))
    with pytest.raises(BundleError, match=f"layout {FORMAT + 1}"):
        read_contract(address)
    (address / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        read_contract(address)


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
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        prove_sample(made.features, made.contract.features, sample)
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.05


def test_a_model_that_answers_otherwise_fails_its_proof(tmp_path):
    made, other = make(tmp_path), make(tmp_path, ridge())
    proof = prove(made.fitted, other.predictor(), made.joined, tolerance=1e-4, now=NOW)
    assert proof.worst > 0.01
    assert proof.outside > 0.5


def test_parity_needs_rows_and_inputs(tmp_path):
    made = make(tmp_path)
    for rows in (made.joined.head(0), made.joined.drop("carrier")):
        with pytest.raises(BundleError, match="parity cannot be proved"):
            prove(made.fitted, made.predictor(), rows, tolerance=1e-4, now=NOW)


def test_a_pipeline_without_a_compiled_form_gives_none(tmp_path):
    from sklearn.ensemble import HistGradientBoostingRegressor

    matrix = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    assert compile_model(HistGradientBoostingRegressor(max_iter=2).fit(matrix, matrix[:, 0]), width=2, task="regression") is None


def test_thresholds_decide_as_the_original_on_neighbouring_floats():
    from lightgbm import LGBMRegressor

    # Every value has its float32 neighbour on the other side of the target's step.
    low = np.random.default_rng(0).uniform(1, 1000, 200).astype(np.float32)
    pairs = np.stack([low, np.nextafter(low, np.float32(np.inf))], axis=1).ravel()[:, None]
    target = np.tile([0.0, 1.0], 200) + pairs[:, 0] * 10
    model = LGBMRegressor(n_estimators=20, num_leaves=200, min_child_samples=1, max_bin=1000, verbose=-1, n_jobs=1).fit(
        pairs, target
    )
    from mulle.kernel.bundle import _Compiled

    served = _Compiled(compile_model(model, width=1, task="regression"), 1).run(pairs)[:, 0]
    assert np.abs(served - model.predict(pairs)).max() / target.std() < 1e-5


def test_the_card_says_which_figures_belong_to_which_fit(tmp_path):
    contract = make(tmp_path).proved()
    gates = judge(
        load_project(tmp_path / "project").model("air-time").gates,
        Evidence(metrics={"mae": 5.0}, rows=10, parity=contract.parity),
    )
    text = card(contract, {"mae": 5.0}, gates)
    for words in (
        "# air-time",
        "flights@3",
        "lightgbm",
        "no figure here is of the refit",
        "| mae | 5 |",
        "no champion yet",
        "`carrier`",
    ):
        assert words in text


def test_the_card_names_the_features_that_were_selected(tmp_path):
    made = make(tmp_path)
    selection = {"by": "importance", "kept": ["distance"], "scores": {"distance": 0.9, "carrier": 0.1}}
    settings = {**made.contract.settings, "selection": selection}
    kept = tuple(f for f in made.contract.features if f.name == "distance")
    text = card(dataclasses.replace(made.contract, settings=settings, features=kept), {"mae": 5.0})
    for words in ("Features kept: 1 of 2, by importance", "| `distance` | number |  | 0.9 |", "Left out: `carrier` (0.1)"):
        assert words in text


def test_latency_is_measured_in_seconds(tmp_path):
    made = make(tmp_path)
    assert 0 < measure_p99(made.predictor(), made.joined, n=20) < 1
