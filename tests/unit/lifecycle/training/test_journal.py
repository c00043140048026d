"""A search's journal: what is torn or another search's is left out, and its time is counted over its lives."""

from __future__ import annotations

import re
from pathlib import Path

from mulle.lifecycle.training.journal import Journal


def test_a_line_that_was_cut_off_and_another_search_s_files_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    done = {"score": 1.0}
    first = Journal(folder, "this search")
    assert first.run(0, {"candidate": "ridge"}, lambda: done) == done
    first.close(done=False)
    with (folder / "trials.jsonl").open("a") as file:
        file.write('{"began": 1}\n{"ended": 1, "settings": {"cand')
    again = Journal(folder, "this search")
    assert (again.holds(0), again.holds(1), again.interrupted) == (True, False, True)
    assert again.run(0, {"candidate": "ridge"}, lambda: {"score": 2.0}) == done
    assert again.run(1, {"candidate": "ridge"}, lambda: {"score": 2.0}) == {"score": 2.0}
    again.close(done=False)
    third = Journal(folder, "this search")
    assert (third.holds(1), third.interrupted) == (True, False)
    third.close(done=False)
    other = Journal(folder, "another search")
    assert not other.holds(0)
    other.close(done=True)
    assert not folder.exists()


def test_the_time_that_a_search_has_taken_is_counted_over_its_lives(tmp_path: Path) -> None:
    first = Journal(tmp_path / "search", "s")
    first.run(0, {}, lambda: {"score": 1.0})
    first.close(done=False)
    path = tmp_path / "search" / "trials.jsonl"
    path.write_text(re.sub(r'"spent": [0-9.]+', '"spent": 50.0', path.read_text()))
    again = Journal(tmp_path / "search", "s")
    assert 50 <= again.spent < 60
    again.close(done=True)
