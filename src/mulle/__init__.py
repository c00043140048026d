"""Mulle: declare a model once; the loop keeps it alive.

    DatasetVersion -> Run -> ModelVersion -> Deployment -> Prediction -> Label -> Window -> Alert -> (the next) Run

A project is one file, ``project.py``, that declares datasets, a feature function and models with the words below.
``mulle run`` ingests, checks, publishes, searches, gates and registers; ``mulle up`` serves, watches, retrains,
releases and rolls back; ``mulle replay`` plays the same loop over history.

>>> import mulle as ml
>>> iris = ml.Dataset("iris", ml.Files("iris.csv"), key="id", checks=[ml.unique("id")])
>>> @ml.features(iris)
... def shape(rows):
...     return rows.select("petal_length", "petal_width")
>>> ml.Model("species", features=shape, target="species", task="multiclass").metric
'log_loss'
"""

from importlib import import_module as _import_module

__version__ = "0.1.0"

# A static name table behind one lazy __getattr__: `import mulle` loads nothing until a word is used.
_NAMES = {
    "Dataset": "core.declare.dataset",
    "Files": "core.declare.sources",
    "Sql": "core.declare.sources",
    "Kafka": "core.declare.sources",
    "Http": "core.declare.sources",
    "Shared": "core.declare.sources",
    "rows": "core.declare.checks",
    "unique": "core.declare.checks",
    "not_null": "core.declare.checks",
    "one_of": "core.declare.checks",
    "between": "core.declare.checks",
    "matches": "core.declare.checks",
    "sql": "core.declare.checks",
    "rows_like_previous": "core.declare.checks",
    "rows_as_source": "core.declare.checks",
    "foreign_key": "core.declare.checks",
    "holds": "core.declare.checks",
    "increasing": "core.declare.checks",
    "fresh": "core.declare.checks",
    "no_duplicates": "core.declare.checks",
    "same_distribution": "core.declare.checks",
    "passes": "core.declare.checks",
    "features": "core.declare.features",
    "words": "core.declare.text",
    "ngrams": "core.declare.text",
    "hashed": "core.declare.text",
    "lookup": "core.declare.features",
    "asof": "core.declare.features",
    "history": "core.declare.features",
    "Model": "core.declare.model",
    "each": "core.declare.fleet",
    "holdout": "core.declare.training",
    "window": "core.declare.training",
    "expanding": "core.declare.training",
    "sliding": "core.declare.training",
    "groups": "core.declare.training",
    "stratified": "core.declare.training",
    "kfold": "core.declare.training",
    "select": "core.declare.select",
    "Search": "core.declare.training",
    "linear": "core.declare.candidates",
    "lasso": "core.declare.candidates",
    "elastic_net": "core.declare.candidates",
    "hist_gradient_boosting": "core.declare.candidates",
    "knn": "core.declare.candidates",
    "naive_bayes": "core.declare.candidates",
    "svm": "core.declare.candidates",
    "xgboost": "core.declare.candidates",
    "catboost": "core.declare.candidates",
    "custom": "core.declare.candidates",
    "onnx": "core.declare.candidates",
    "floats": "core.declare.ranges",
    "ints": "core.declare.ranges",
    "choices": "core.declare.ranges",
    "lightgbm": "core.declare.candidates",
    "ridge": "core.declare.candidates",
    "logistic": "core.declare.candidates",
    "random_forest": "core.declare.candidates",
    "extra_trees": "core.declare.candidates",
    "dummy": "core.declare.candidates",
    "at_most": "core.declare.gates",
    "at_least": "core.declare.gates",
    "no_worse_than_champion": "core.declare.gates",
    "each_slice": "core.declare.gates",
    "parity": "core.declare.gates",
    "generalisation_gap": "core.declare.gates",
    "calibration": "core.declare.gates",
    "fairness": "core.declare.gates",
    "p50": "core.declare.gates",
    "p99": "core.declare.gates",
    "throughput": "core.declare.gates",
    "peak_memory": "core.declare.gates",
    "bundle_size": "core.declare.gates",
    "bad_input": "core.declare.gates",
    "satisfies": "core.declare.gates",
    "metric": "core.declare.metric",
    "canary": "core.declare.rollout",
    "shadow": "core.declare.rollout",
    "blue_green": "core.declare.rollout",
    "immediate": "core.declare.rollout",
    "Log": "core.declare.log",
    "Monitor": "core.declare.monitor",
    "service": "core.declare.service",
    "Retrain": "core.declare.retrain",
    "Batch": "core.declare.batch",
    "psi": "core.declare.monitor",
    "js": "core.declare.monitor",
    "wasserstein": "core.declare.monitor",
    "null_rate": "core.declare.monitor",
    "read": "surfaces.python",
    "load": "surfaces.python",
    "project": "surfaces.python",
}

__all__ = [*_NAMES, "__version__"]


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(_import_module(f"mulle.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'mulle' has no attribute '{name}'")
