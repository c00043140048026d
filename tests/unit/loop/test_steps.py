"""What a run's steps take from the runs before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mulle.core.records.base import Json
from mulle.core.records.run import Trial
from mulle.loop.steps import Steps


class Asked:
    """A compute that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Json] = []

    def call(self, task: str, arguments: Json, **_more: Any) -> Json:
        self.asked.append(arguments)
        return {"trials": [], "settings": {"candidate": "ridge", "params": {}}}


def test_a_search_begins_with_the_champions_settings_then_with_those_of_earlier_runs(home):
    def trial(run: str, candidate: str, score: float | None) -> Trial:
        state = "done" if score is not None else "failed"
        return Trial(run=run, number=1, candidate=candidate, params={"of": run}, score=score, state=state, seconds=0.1)

    home.parts.metadata.runs.add_trials(
        [trial("run-1", "lightgbm", 1.0), trial("run-2", "svm", None), trial("run-3", "knn", 2.0)]
    )
    compute = Asked()
    steps = Steps(replace(home.parts, compute=lambda: compute))
    (home.parts.settings.home / "runs" / "run-3").mkdir(parents=True)
    steps.search("run-3", {"publish": {"versions": {}}})
    warm = compute.asked[0]["arguments"]["warm"]
    assert [(s["candidate"], s["params"]) for s in warm] == [
        ("lightgbm", {"of": "run-1"}),
        ("knn", {"of": "run-3"}),
        ("ridge", {"alpha": 1}),
    ]
