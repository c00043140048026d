"""A run explained shows how sure each figure is, where the model is weak, and every verdict."""

from __future__ import annotations

import json
import shutil
from io import StringIO

from rich.console import Console

from mulle.loop.views.chain import run_view
from mulle.surfaces.cli import render

MEASURED = {"rows": 40, "metrics": {"mae": 9.0}, "intervals": {"mae": [8.0, 10.5]}, "failed": {}}
EVALUATION = {
    **MEASURED,
    "rows": 120,
    "train": {"rows": 400, "metrics": {"mae": 5.25}, "intervals": {}, "failed": {}},
    "slices": {"origin": {"EWR": MEASURED}},
    "weak_slices": [
        {
            "column": "origin",
            "value": "LGA",
            "rows": 31,
            "metric": "mae",
            "inside": 21.0,
            "outside": 7.0,
            "worse": 14.0,
            "low": 6.5,
        }
    ],
    "calibrations": {},
}


def shown(renderables) -> str:
    console = Console(file=StringIO(), width=200)
    for each in renderables:
        console.print(each)
    return console.file.getvalue()


def test_a_run_explained_shows_intervals_weak_slices_and_verdicts(home):
    folder = home.parts.settings.home / "runs" / "run-1"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    view = run_view(home.parts, "run-1")
    text = shown(render.run_explained(view))
    for wanted in ("Holdout, 120 rows", "8 to 10.5", "5.25", "LGA", "6.5", "By origin", "9 (8 to 10.5)", "at_most(mae)", "pass"):
        assert wanted in text
    assert text.index("Where it is weak") < text.index("Gates"), "the verdicts come last, where people look"
    brief = shown(render.run(view))
    assert "at_most(mae)" in brief
    assert "LGA" not in brief
    shutil.rmtree(folder)
    assert "at_most(mae)" in shown(render.run_explained(run_view(home.parts, "run-1")))


def test_a_leaderboard_tells_what_trials_differ_by_and_not_what_the_search_notes_for_itself(home):
    params = {"n_neighbors": 7, "@rows": 4507, "@factory": "there:Made", "@matrix": "plain", "@codes": "both"}
    trial = {"number": 1, "candidate": "knn", "score": 2.0, "state": "done", "failure": "", "seconds": 0.1, "train_on": "120d"}
    view = {**run_view(home.parts, "run-1"), "trials": [{**trial, "params": params}], "winner": {"candidate": "knn"}}
    text = shown(render.run(view))
    assert "n_neighbors 7, codes both, train_on 120d" in text
    assert "@" not in text.split("Trials, best first")[1]
    members = [{"candidate": "knn", "weight": 0.6}, {"candidate": "ridge", "weight": 0.4}]
    view["winner"] = {"candidate": "ensemble", "members": members, "train_on": "120d"}
    assert "ensemble of knn 60%, ridge 40%, trained on 120d" in shown(render.run(view))
