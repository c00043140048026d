"""A stage whose process never ends is ended for it: once, and the run says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mulle.core.records.base import Cause
from mulle.core.records.run import run_state
from mulle.loop.parts import Parts
from mulle.loop.runner import run_model

SOURCE = """
rows = ml.Dataset("rows", ml.Files("rows.csv"), key="id")

@ml.features(rows)
def shape(rows):
    while True:
        pass

m = ml.Model("m", features=shape, target="y", task="regression")
"""


def test_a_function_that_never_ends_fails_its_run_and_is_not_tried_again(opened: Callable[[str], Parts]) -> None:
    parts = opened(SOURCE)
    (parts.settings.project / "rows.csv").write_text("id,x,y\n" + "\n".join(f"{n},{n}.5,{2 * n}.0" for n in range(50)))
    parts = replace(parts, settings=replace(parts.settings, stage_limit="1s"))
    run = run_model(parts, "m", causes=(Cause(type="person", id="ada", why="asked"),))
    events = parts.metadata.runs.events(run.id)
    assert run_state(events) == "failed"
    (reason,) = [event.detail["reason"] for event in events if event.kind == "state" and event.name == "failed"]
    assert reason == "features: mulle.bootstrap.tasks:run_task was not done after 1 s and was killed"
