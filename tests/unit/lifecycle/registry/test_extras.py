"""Trees of XGBoost and CatBoost, recorded from fits by those libraries, answer the same once compiled.

`recorded/extras.json` holds models of XGBoost 3.2.0 and CatBoost 1.2.10 (five trees of depth three on 200 rows, gaps among
them) cut down to what is read, 35 rows with gaps and extremes, and what the libraries answered to them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mulle.kernel.bundle import OUTPUT
from mulle.kernel.graph import open_graph
from mulle.lifecycle.registry.trees import compile_catboost, compile_xgboost

RECORDED = json.loads((Path(__file__).parent / "recorded" / "extras.json").read_text())
ROWS = np.array([[np.nan if v is None else v for v in row] for row in RECORDED["rows"]], dtype=np.float32)
TASKS = ["regression", "binary", "multiclass"]
LINK = {"regression": "identity", "binary": "sigmoid", "multiclass": "softmax"}


class Booster:
    def __init__(self, model):
        self.model = model

    def save_raw(self, kind):
        assert kind == "json"
        return bytearray(json.dumps(self.model).encode())


def compiled(library, model, task):
    return compile_xgboost(Booster(model), 2) if library == "xgboost" else compile_catboost(model, 2, LINK[task])


@pytest.mark.parametrize("library", ["xgboost", "catboost"])
@pytest.mark.parametrize("task", TASKS)
def test_recorded_models_answer_as_their_library_did(library, task):
    recorded = RECORDED[f"{library} {task}"]
    served = open_graph(compiled(library, recorded["model"], task).SerializeToString()).run(OUTPUT, ROWS)
    assert served == pytest.approx(np.array(recorded["answers"]), abs=2e-6, rel=2e-6)


def test_what_has_no_compiled_form_gives_none():
    model = json.loads(json.dumps(RECORDED["xgboost regression"]["model"]))
    model["learner"]["objective"]["name"] = "rank:ndcg"
    assert compile_xgboost(Booster(model), 2) is None
    model = json.loads(json.dumps(RECORDED["xgboost regression"]["model"]))
    model["learner"]["gradient_booster"]["name"] = "dart"
    assert compile_xgboost(Booster(model), 2) is None
    model = json.loads(json.dumps(RECORDED["xgboost regression"]["model"]))
    model["learner"]["gradient_booster"]["model"]["trees"][0]["categories"] = [1]
    assert compile_xgboost(Booster(model), 2) is None
    model = json.loads(json.dumps(RECORDED["catboost regression"]["model"]))
    model["oblivious_trees"][0]["splits"][0]["split_type"] = "OneHotFeature"
    assert compile_catboost(model, 2, "identity") is None
