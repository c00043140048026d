"""Accounts of replays side by side, and the page that shows them."""

from __future__ import annotations

from typing import Any

from mulle.loop.replay.compare import FIGURES, by_span, compared
from mulle.surfaces.replay_page import replay_page


def account(score: float, runs: int = 1) -> dict[str, Any]:
    """One policy's account with two months and what the first model would have scored beside it."""
    counts = {"score": score, "retrainings": runs - 1, "promotions": 0, "held_back": 1, "alerts": 2}
    run = {"id": "r", "created_at": "2024-01-01T00:00:00Z", "causes": [{"why": "<because>"}], "state": "succeeded",
           "model_version": 1, "seconds": 4.0}  # fmt: skip
    return {
        "policies": {"frozen": {"score": 9.0}, "declared": counts},
        "by_month": [{"month": m, "rows": 5, "frozen": 9.0, "mulle": score} for m in ("2024-02", "2024-01")],
        "by_day": [{"day": "2024-01-01", "rows": 5, "frozen": 9.0, "mulle": score}],
        "runs": [run] * runs, "alerts": [{}, {}], "held_back": [{}], "promotions": 0, "requests": 10, "failed_requests": 0,
        "compute_seconds": 4.5, "cpu_seconds": None, "seconds": 8.0, "home": "/h",
    }  # fmt: skip


def test_each_policy_has_every_figure_in_one_order() -> None:
    found = compared({"frozen": account(5.0), "swift": account(3.0, runs=4)})
    assert [list(told) for told in found["policies"].values()] == [list(FIGURES)] * 2
    assert found["policies"]["swift"]["retrainings"] == 3
    assert found["policies"]["frozen"]["held_back"] == 1
    assert [m["month"] for m in found["by_month"]] == ["2024-01", "2024-02"]
    assert found["by_month"][0] == {"month": "2024-01", "rows": 5, "frozen": 5.0, "swift": 3.0}


def test_a_frozen_model_that_was_not_played_has_a_score_and_no_figures_of_what_did_not_happen() -> None:
    frozen = compared({"declared": account(3.0)})["policies"]["frozen"]
    assert (frozen["score"], frozen["compute_seconds"], frozen["requests"]) == (9.0, 4.0, 0)
    assert frozen["alerts"] is None
    assert by_span({"declared": account(3.0)}, "day")[0]["frozen"] == 9.0


def test_the_page_holds_every_policy_and_escapes_what_people_wrote() -> None:
    accounts = {"a<b": account(3.0), "frozen": account(5.0)}
    view = {"model": "m", "metric": "mae", "from": "2024-01-01T00:00:00Z", "to": "2024-02-01T00:00:00Z"}
    page = replay_page({**view, **compared(accounts), "accounts": accounts})
    assert "<td>a&lt;b</td>" in page
    assert "&lt;because&gt;" in page
    assert "<because>" not in page
