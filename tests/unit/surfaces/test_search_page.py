"""The page of a search shows every trial and needs no network."""

from __future__ import annotations

import json
import re

from mulle.surfaces.search_page import search_page


def trial(number: int, candidate: str, score: float | None, **params: object) -> dict[str, object]:
    failed = {"failure": "timeout", "reason": "not done <after> 3 s"} if score is None else {}
    return {"number": number, "candidate": candidate, "params": params, "score": score, "state": "done", **failed}


TRIALS = [
    trial(0, "dummy", 9.0),
    trial(1, "lightgbm", 3.0, rate=0.1, loss="l1"),
    trial(2, "lightgbm", 4.0, rate=0.3, loss="l2"),
    trial(3, "lightgbm", None, rate=0.2, loss="l2"),
    trial(4, "lightgbm", 2.0, rate=0.2, loss="l2"),
]
RUN = {"id": "R1", "model": "a<b", "trials": TRIALS}


def figures(page: str) -> dict[str, dict[str, object]]:
    found = re.search(r"Object\.entries\((\{.*\})\)\) Plotly", page)
    assert found
    return dict(json.loads(found[1]))


def test_every_trial_is_there_and_the_best_so_far() -> None:
    page = search_page(RUN, {"lightgbm": {"rate": 0.9, "loss": 0.1}})
    shown = figures(page)
    *kinds, best = shown["history"]["data"]  # type: ignore[misc]
    assert {k["name"]: (k["x"], k["y"]) for k in kinds} == {"dummy": ([0], [9.0]), "lightgbm": ([1, 2, 4], [3.0, 4.0, 2.0])}
    assert best["y"] == [9.0, 3.0, 3.0, 2.0]
    (lines,) = shown["lines-1"]["data"]  # type: ignore[misc]
    assert [d["label"] for d in lines["dimensions"]] == ["loss", "rate", "score"]
    assert lines["dimensions"][0]["ticktext"] == ["l1", "l2"]
    (bars,) = shown["share-0"]["data"]  # type: ignore[misc]
    assert bars["y"] == ["loss", "rate"]
    assert "<td>timeout</td><td>not done &lt;after&gt; 3 s</td>" in page
    assert "a&lt;b" in page


def test_it_needs_no_network_and_no_importance() -> None:
    page = search_page({**RUN, "trials": TRIALS[:1]}, {})
    assert set(figures(page)) == {"history"}
    assert "src=" not in page.split("</script>")[-2]
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
