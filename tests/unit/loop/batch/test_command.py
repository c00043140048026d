"""``mulle batch`` as people and scripts call it: one JSON document, the exit codes of the surface, and what scored what."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from batch_parts import MODEL, opened, rows

from mulle.loop.parts import Parts
from mulle.surfaces.cli.main import call

BATCHED = MODEL + 'nightly = ml.Batch(model, trips, "scores/%Y/", "0 5 * * *")\n'


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    made = opened(tmp_path / "project", BATCHED)
    rows(300).write_parquet(made.settings.project / "rows.parquet")
    return made


def asked(parts: Parts, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = call(["--project", str(parts.settings.project), *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_batch_prints_its_manifest_and_explain_finds_it_again(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("batch", "trip", "--input", "rows.parquet", "--output", "out/", "--json")
    code, out, _ = asked(parts, capsys, *words)
    told = json.loads(out)
    assert code == 0
    assert {"id", "created_at", "causes", "model", "version", "bundle", "rows_in", "rows_out", "rejected"} <= set(told)
    assert told["rows_out"] == pl.read_parquet(parts.settings.project / "out/part-*.parquet").height == 300
    for name in (told["id"], str(parts.settings.project / "out" / "part-00000.parquet")):
        assert json.loads(asked(parts, capsys, "explain", name, "--json")[1]) == told
    code, out, _ = asked(parts, capsys, *words[:-1], "--processes", "2")
    assert code == 0
    assert "trip@1 scored 300 of 300 rows of rows.parquet" in out


def test_rows_set_apart_are_told_and_too_many_are_exit_1(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    bad = rows(300).with_columns(size=pl.when(pl.col("id") == 7).then(float("inf")).otherwise("size"))
    bad.write_parquet(parts.settings.project / "rows.parquet")
    words = ("batch", "trip", "--input", "rows.parquet", "--output")
    code, out, _ = asked(parts, capsys, *words, "out/")
    assert code == 0
    assert "1 rows were set apart" in out
    assert "1 x size: expected a finite Float64" in out
    code, out, err = asked(parts, capsys, *words, "strict/", "--max-rejected", "0", "--json")
    assert (code, out) == (1, "")
    assert json.loads(err)["rejected"] == 1
    assert asked(parts, capsys, *words, "other/", "--format", "xlsx")[0] == 2
    assert asked(parts, capsys, "batch", "nobody", "--input", "rows.parquet", "--output", "out/")[0] == 2


def test_status_tells_what_is_scheduled(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    (item,) = json.loads(asked(parts, capsys, "status", "--json")[1])["batches"]
    assert (item["model"], item["input"], item["cron"], item["last"]) == ("trip", "trips", "0 5 * * *", None)
    assert item["next"].endswith("T05:00:00Z")
    assert "batch of trip on trips: next" in asked(parts, capsys, "status")[1]
