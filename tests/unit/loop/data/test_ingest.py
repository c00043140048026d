"""What a source and its labels give reaches the table once, whole, and whatever else came in the same look."""

from __future__ import annotations

import json
import sqlite3
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tests.unit.loop.conftest import WHY

from mulle.bootstrap.parts import wire
from mulle.core.errors import DataError
from mulle.core.settings import load_settings
from mulle.lifecycle.data.version import read_version
from mulle.lifecycle.features.join import join_offline
from mulle.loop.data.datasets import restore_version
from mulle.loop.data.ingest import ingest_all
from mulle.loop.data.offline import read_dataset
from mulle.loop.keeping.forget import forget
from mulle.loop.parts import Parts


def opened(folder: Path, text: str) -> Parts:
    (folder / "project.py").write_text("import json\nimport polars as pl\nimport mulle as ml\n" + textwrap.dedent(text))
    return wire(load_settings({"project": folder}, {}))


def ingest(parts: Parts, **options: Any) -> dict[str, Any]:
    return {i["dataset"]: i for i in ingest_all(parts, causes=WHY, **options)["items"]}


def column(parts: Parts, dataset: str, name: str, by: str = "id") -> list[Any]:
    return read_dataset(parts, dataset).sort(by)[name].to_list()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


LABEL = "id,t,y,k\na,2024-01-01T00:00:00Z,5.0,2024-01-03T00:00:00Z\n"
LABELLED = 'key="id", time="t", known_at="k", outcome="y", labels=ml.Files("l/*.csv")'


def test_a_label_survives_a_source_that_gives_all_rows_again(tmp_path: Path) -> None:
    parts = opened(
        tmp_path,
        f"""
        def rows(position):
            return pl.DataFrame({{"id": ["a", "b"], "t": ["2024-01-01T00:00:00Z"] * 2, "x": [1, 2]}})
        d = ml.Dataset("d", rows, {LABELLED})
        """,
    )
    ingest(parts)
    write(tmp_path / "l/1.csv", LABEL)
    for _ in range(3):
        ingest(parts)
        assert column(parts, "d", "y") == [5.0, None]


def test_a_label_survives_an_overlap_that_is_read_again(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("create table o(id text, t text, seq int)")
        db.executemany("insert into o values(?, '2024-01-01T00:00:00Z', ?)", [("a", 1), ("b", 2)])
    parts = opened(
        tmp_path, f'd = ml.Dataset("d", ml.Sql("sqlite:///{tmp_path}/x.db", "o", cursor="seq", overlap=10), {LABELLED})'
    )
    ingest(parts)
    write(tmp_path / "l/1.csv", LABEL)
    ingest(parts)
    assert column(parts, "d", "y") == [5.0, None]
    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("insert into o values('c', '2024-01-01T00:00:00Z', 3)")
    ingest(parts)
    assert column(parts, "d", "y") == [5.0, None, None]


def test_a_label_survives_a_corrected_file(tmp_path: Path) -> None:
    parts = opened(tmp_path, f'd = ml.Dataset("d", ml.Files("d.csv"), {LABELLED})')
    write(tmp_path / "d.csv", "id,t,x\na,2024-01-01T00:00:00Z,1\nb,2024-01-01T00:00:00Z,2\n")
    ingest(parts)
    write(tmp_path / "l/1.csv", LABEL)
    ingest(parts)
    write(tmp_path / "d.csv", "id,t,x\na,2024-01-01T00:00:00Z,1\nb,2024-01-01T00:00:00Z,30\n")
    ingest(parts)
    assert column(parts, "d", "x") == [1, 30]
    assert column(parts, "d", "y") == [5.0, None]


def test_labels_that_come_together_with_bad_rows_are_not_lost(tmp_path: Path) -> None:
    parts = opened(tmp_path, f'd = ml.Dataset("d", ml.Files("d/*.csv"), {LABELLED}, checks=[ml.between("x", 0, 10)])')
    write(tmp_path / "d/1.csv", "id,t,x\na,2024-01-01T00:00:00Z,1\n")
    ingest(parts)
    write(tmp_path / "d/2.csv", "id,t,x\nb,2024-01-02T00:00:00Z,999\n")
    write(tmp_path / "l/1.csv", LABEL)
    assert ingest(parts)["d"]["action"] == "quarantined"
    ingest(parts)
    write(tmp_path / "d/3.csv", "id,t,x\nc,2024-01-04T00:00:00Z,3\n")
    ingest(parts)
    assert column(parts, "d", "y")[0] == 5.0


@pytest.mark.parametrize("check", ["ml.rows(at_least=10)", "ml.rows_like_previous()"])
def test_a_few_labels_are_no_small_batch(tmp_path: Path, check: str) -> None:
    parts = opened(tmp_path, f'd = ml.Dataset("d", ml.Files("d/*.csv"), {LABELLED}, checks=[{check}])')
    write(
        tmp_path / "d/1.csv", "id,t,x\na,2024-01-01T00:00:00Z,1\n" + "".join(f"r{i},2024-01-01T00:00:00Z,1\n" for i in range(20))
    )
    ingest(parts)
    write(tmp_path / "l/1.csv", LABEL)
    ingest(parts)
    assert column(parts, "d", "y")[0] == 5.0


def test_history_loaded_with_its_labels_is_history(tmp_path: Path) -> None:
    parts = opened(
        tmp_path,
        f"""
        d = ml.Dataset("d", ml.Files("d.csv"), {LABELLED})
        @ml.features(d, h=ml.history(d, on="g", window="30d", every="1h", m=pl.col("y").mean()))
        def f(rows):
            return rows.select("h.m")
        """,
    )
    write(tmp_path / "d.csv", "id,t,g\na,2024-01-01T00:00:00Z,G\nb,2024-01-10T00:00:00Z,G\n")
    write(tmp_path / "l/1.csv", LABEL)
    ingest(parts)
    version = parts.metadata.datasets.get("d")
    assert version is not None
    table = read_version(parts.lake, parts.project.datasets["d"], version, superseded=True).collect()
    rows = read_dataset(parts, "d").sort("t")
    # First publish: "the rows count as available from known_at on". Its labels came in the same look.
    assert join_offline(rows, parts.project.features["f"], {"d": table})["h.m"].to_list() == [None, 5.0]


def test_when_the_bad_file_is_mended_the_good_one_beside_it_comes_too(tmp_path: Path) -> None:
    parts = opened(tmp_path, 'd = ml.Dataset("d", ml.Files("d/*.csv"), key="id", checks=[ml.between("x", 0, 10)])')
    write(tmp_path / "d/1.csv", "id,x\n1,1\n")
    ingest(parts)
    write(tmp_path / "d/2.csv", "id,x\n2,2\n")
    write(tmp_path / "d/3.csv", "id,x\n3,999\n")
    ingest(parts)
    write(tmp_path / "d/3.csv", "id,x\n3,3\n")
    ingest(parts)
    assert column(parts, "d", "x") == [1, 2, 3]


def read_in_full(folder: Path) -> Parts:
    """Open a project whose source gives all of its rows each time: those that were given last."""
    return opened(
        folder,
        f"""
        def rows(position):
            return pl.DataFrame(json.load(open("{folder}/rows.json")))
        d = ml.Dataset("d", rows, key="id", checks=[ml.between("x", 0, 10)])
        """,
    )


def give(folder: Path, values: list[int]) -> None:
    write(folder / "rows.json", json.dumps([{"id": i, "x": v} for i, v in enumerate(values)]))


def test_a_mended_full_read_comes_whole(tmp_path: Path) -> None:
    parts = read_in_full(tmp_path)
    for values in ([1], [1, 2, 999], [1, 2, 3]):
        give(tmp_path, values)
        ingest(parts)
    assert column(parts, "d", "x") == [1, 2, 3]


def test_a_key_given_twice_in_a_full_read_settles(tmp_path: Path) -> None:
    parts = opened(
        tmp_path,
        """
        def rows(position):
            return pl.DataFrame({"id": ["a", "a"], "x": [1, 2]})
        d = ml.Dataset("d", rows, key="id")
        """,
    )
    ingest(parts)
    for _ in range(3):
        assert ingest(parts)["d"]["action"] == "nothing new"
        assert column(parts, "d", "x") == [2]


def test_a_version_after_an_erasure_counts_the_rows_it_has(tmp_path: Path) -> None:
    parts = opened(tmp_path, 'd = ml.Dataset("d", ml.Files("d/*.csv"), key="id")')
    write(tmp_path / "d/1.csv", "id,x\n1,1\n2,2\n3,3\n")
    ingest(parts)
    forget(parts, "d", ["1", "2"], by="me", causes=WHY)
    write(tmp_path / "d/2.csv", "id,x\n4,4\n")
    assert ingest(parts)["d"]["rows"] == read_dataset(parts, "d").height == 2


def test_a_restore_does_not_bring_turned_away_files_back_to_be_judged_with_good_ones(tmp_path: Path) -> None:
    parts = opened(tmp_path, 'd = ml.Dataset("d", ml.Files("d/*.csv"), key="id", checks=[ml.between("x", 0, 10)])')
    write(tmp_path / "d/1.csv", "id,x\n1,1\n")
    ingest(parts)
    write(tmp_path / "d/2.csv", "id,x\n2,999\n")
    assert ingest(parts)["d"]["action"] == "quarantined"
    restore_version(parts, "d@1", causes=WHY)
    write(tmp_path / "d/3.csv", "id,x\n3,3\n")
    assert ingest(parts)["d"]["action"] == "published"


def test_after_a_restore_a_batch_is_compared_with_the_last_one_that_brought_rows(tmp_path: Path) -> None:
    parts = opened(tmp_path, 'd = ml.Dataset("d", ml.Files("d/*.csv"), key="id", checks=[ml.rows_like_previous()])')
    for n in (1, 2, 3):
        write(tmp_path / f"d/{n}.csv", "id,x\n" + "".join(f"{100 * n + i},1\n" for i in range(20)))
        assert ingest(parts)["d"]["action"] == "published"
        if n == 2:
            restore_version(parts, "d@1", causes=WHY)


def test_an_outcome_that_the_source_gives_stands(tmp_path: Path) -> None:
    parts = opened(tmp_path, f'd = ml.Dataset("d", ml.Files("d/*.csv"), {LABELLED})')
    write(tmp_path / "d/1.csv", "id,t,y\na,2024-01-01T00:00:00Z,\n")
    write(tmp_path / "l/1.csv", LABEL)
    ingest(parts)
    assert column(parts, "d", "y") == [5.0]
    write(tmp_path / "d/2.csv", "id,t,y\na,2024-01-01T00:00:00Z,7.5\n")
    ingest(parts)
    assert column(parts, "d", "y") == [7.5]


def test_outcomes_in_words_where_numbers_are_published_say_what_to_declare(tmp_path: Path) -> None:
    text = 'd = ml.Dataset("d", ml.Files("d.csv"), key="id", outcome="y", labels=ml.Files("l/*.csv"){})'
    parts = opened(tmp_path, text.format(""))
    write(tmp_path / "d.csv", "id,x\n1,1\n2,2\n")
    ingest(parts)
    write(tmp_path / "l/1.csv", "id,y\n1,yes\n")
    with pytest.raises(DataError, match="'y' is String, and Float64") as caught:
        ingest(parts)
    assert 'schema={"y": "String"}' in caught.value.next
    parts = opened(tmp_path, text.format(', schema={"y": "String"}'))
    write(tmp_path / "d.csv", "id,x\n1,1\n2,2\n3,3\n")
    ingest(parts)
    assert column(parts, "d", "y") == ["yes", None, None]


def test_of_many_files_only_those_that_fail_are_turned_away(tmp_path: Path) -> None:
    parts = opened(tmp_path, 'd = ml.Dataset("d", ml.Files("d/*.csv"), key="id", checks=[ml.between("x", 0, 10)])')
    for n in range(9):
        write(tmp_path / f"d/{n}.csv", f"id,x\n{n},{999 if n in (3, 4) else n}\n")
    told = ingest(parts)["d"]
    assert (told["action"], told["rows"]) == ("quarantined", 7)
    assert column(parts, "d", "id") == [0, 1, 2, 5, 6, 7, 8]
    assert len(parts.metadata.datasets.quarantines("d")) == 2
    last = parts.metadata.datasets.get("d")
    assert last is not None
    assert last.bulk, "they are one first load"
    assert ingest(parts)["d"]["action"] == "nothing new"
    assert not parts.lake.parkings("staging")


def test_what_was_turned_away_is_judged_again_when_asked(tmp_path: Path) -> None:
    text = 'd = ml.Dataset("d", ml.Files("d/*.csv"), key="id", checks=[ml.between("x", 0, {})])'
    parts = opened(tmp_path, text.format(10))
    write(tmp_path / "d/1.csv", "id,x\n1,1\n")
    ingest(parts)
    write(tmp_path / "d/2.csv", "id,x\n2,50\n")
    assert ingest(parts)["d"]["action"] == "quarantined"
    parts = opened(tmp_path, text.format(100))
    assert ingest(parts)["d"]["action"] == "nothing new"
    assert ingest(parts, anew=True)["d"]["action"] == "published"
    assert column(parts, "d", "x") == [1, 50]


def test_rows_that_stay_bad_in_a_full_read_keep_no_good_ones_out_and_are_told_once(tmp_path: Path) -> None:
    parts = read_in_full(tmp_path)
    for n, values in enumerate([[1], [1, 999], [1, 999, 3], [1, 999, 3, 4]]):
        give(tmp_path, values)
        assert ingest(parts)["d"]["action"] == ("quarantined" if n == 1 else "published")
        assert ingest(parts)["d"]["action"] == "nothing new"
    assert column(parts, "d", "x") == [1, 3, 4]
    assert len(parts.metadata.datasets.quarantines("d")) == 1


def test_one_source_that_fails_keeps_no_other_waiting_and_is_told(tmp_path: Path) -> None:
    parts = opened(tmp_path, 'a = ml.Dataset("a", ml.Files("a.csv"))\nb = ml.Dataset("b", ml.Files("b.csv"))\n')
    write(tmp_path / "a.csv", "id,x\n1,2,3\n")
    write(tmp_path / "b.csv", "id,x\n1,2\n")
    with pytest.raises(DataError, match=r"a\.csv"):
        ingest(parts)
    assert column(parts, "b", "x") == [2]
