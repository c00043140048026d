"""JSON lines: rows, appended rows, and broken lines told by number."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mulle.adapters.sources import lines
from mulle.adapters.sources.files import FilesReader
from mulle.core.declare.sources import Files
from mulle.core.errors import DataError


def reader(folder: Path, content: str | bytes) -> FilesReader:
    (folder / "a.jsonl").write_bytes(content.encode() if isinstance(content, str) else content)
    return FilesReader(folder, Files("a.jsonl"))


@pytest.mark.parametrize("size", [64, 1 << 20])
def test_columns_may_come_late_and_integers_widen(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", size)
    content = '\ufeff{"id": "1", "x": 1}\n' * 1 + '{"id": "2", "x": 1}\n' * 20 + '\n{"id": "3", "x": 2.5, "late": true}'
    batch = reader(tmp_path, content).read({})
    assert batch is not None
    found = batch.frame()
    assert found.schema == {"id": pl.String, "x": pl.Float64, "late": pl.Boolean}
    assert found.height == 22
    assert found.row(-1) == ("3", 2.5, True)
    assert found.row(0) == ("1", 1.0, None)


def test_lines_appended_are_read_alone(tmp_path: Path) -> None:
    source = reader(tmp_path, '{"id": 1}\n')
    first = source.read({})
    assert first is not None
    reader(tmp_path, '{"id": 1}\n{"id": 2}\n')
    second = source.read(first.positions)
    assert second is not None
    assert second.frame()["id"].to_list() == [2]
    assert second.positions["files"]["a.jsonl"]["rows"] == 2


BROKEN = {
    "truncated": (b'{"id": 1}\n{"id": 2}\n{"id":', "line 3: not JSON"),
    "broken": (b'{"id": 1}\n{"id": oops}\n{"id": 3}\n', "line 2: not JSON"),
    "a list": (b'{"id": 1}\n[1]\n', "line 2: not a JSON object"),
    "text among numbers": (b'{"id": 1}\n\n{"id": "x"}\n', "line 3: column 'id' is text, and a number before"),
    "truth among numbers": (b'{"id": 1}\n{"id": true}\n', "line 2: column 'id' is a truth value"),
    "an object among texts": (b'{"id": "a"}\n{"id": {"b": 1}}\n', "line 2: column 'id' is an object"),
    "utf-16": ('{"id": 1}\n'.encode("utf-16"), "UTF-16"),
    "NUL": (b'{"id": 1}\n{"id": 2}\0\n', "line 2: holds a NUL byte"),
    "not UTF-8": ('{"id": "é"}\n'.encode("latin-1"), "line 1"),
}


@pytest.mark.parametrize(("content", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_are_refused_and_the_line_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        reader(tmp_path, content).read({})
    assert "a.jsonl" in caught.value.detail
    assert said in caught.value.detail


def test_mixed_kinds_are_refused_across_blocks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 64)
    with pytest.raises(DataError, match="column 'id'"):
        reader(tmp_path, '{"id": 1}\n' * 50 + '{"id": "x"}\n' * 50).read({})
