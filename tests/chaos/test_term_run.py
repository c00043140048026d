"""A run whose process gets SIGTERM in each stage ends its stage or does it again, and nothing is doubled."""

from __future__ import annotations

import pytest
from chaos_home import Home, counts, journal, make_home, tracked

from mulle.adapters.metadata.connect import open_metadata
from mulle.core.records.run import FURTHER, STAGES, run_state

WALKED = tuple(stage for stage in STAGES if stage not in FURTHER)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose only run was ended politely in each of its stages, and then left to go on."""
    home = make_home(tmp_path_factory.mktemp("term") / "project")
    for number, stage in enumerate(WALKED):
        life = home.live(f"term:before:{stage}", start=number == 0)
        assert (life.exit, life.survivors) == (0, []), stage
        assert stage in life.started, "it was in this stage when it was told to end"
        assert "succeeded" not in life.state
    last = home.live()
    assert (last.exit, last.survivors) == (0, [])
    home.close()
    return home


def test_it_succeeds_in_the_end_and_each_step_was_committed_once(ended: Home) -> None:
    runs = open_metadata(ended.settings.database).runs
    (run,) = runs.list()
    events = runs.events(run.id)
    assert run_state(events) == "succeeded"
    assert journal(ended.settings, run.id) == list(WALKED)
    told = [(e.kind, e.name, e.state) for e in events]
    assert len(told) == len(set(told))


def test_nothing_is_doubled(ended: Home) -> None:
    found = counts(ended.settings)
    assert (found["runs"], found["model_versions"], found["deployments"], found["dataset_versions"]) == (1, 1, 1, 3)
    assert (found["trials"], found["gate_results"]) == (2, 2)
    assert tracked(ended.settings)["versions"] == [1]
