"""A stream's log counts what its transactions count: in doubt it waits, and is settled by how far the group has read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mulle.core.errors import LogNotWritable
from mulle.lifecycle.serving.log import SUFFIX, pack, read_records
from mulle.lifecycle.serving.pending import PendingLog

PLACE, OTHER = ("trips", 0), ("trips", 1)


def finished(folder: Path) -> list[bytes]:
    """The payloads of what the drainer would take."""
    return [r.payload for p in sorted(folder.glob(f"predictions-*{SUFFIX}")) for r in read_records(p.read_bytes())]


def died(folder: Path, *committed: str, doubtful: str, reads: dict[tuple[str, int], int]) -> str:
    """Leave what a process leaves that was killed with one transaction open; gives that one's mark."""
    log = PendingLog(folder, "g")
    for number, words in enumerate(committed):
        log.write([pack(words.encode())], {PLACE: number + 1})
        log.commit()
    mark = log.write([pack(doubtful.encode())], reads)
    log._release()  # as the kernel does it
    return mark


def settled(folder: Path, read: dict[tuple[str, int], tuple[int, str]]) -> list[bytes]:
    later = PendingLog(folder, "g")
    later.resolve(read)
    return finished(folder)


def test_what_is_committed_is_handed_over_between_transactions_alone(tmp_path: Path) -> None:
    log = PendingLog(tmp_path, "g")
    log.write([pack(b"1"), pack(b"2")], {PLACE: 2})
    assert finished(tmp_path) == []
    log.commit()
    log.write([pack(b"3")], {PLACE: 3})
    log.cut()
    log.settle(now=True)
    assert finished(tmp_path) == [b"1", b"2"]
    log.write([pack(b"4")], {PLACE: 4})
    log.commit()
    log.close()
    assert finished(tmp_path) == [b"1", b"2", b"4"]
    assert list(tmp_path.glob("stream-*")) == []


def test_a_doubtful_transaction_counts_when_the_groups_offsets_bear_its_mark(tmp_path: Path) -> None:
    mark = died(tmp_path, "1", "2", doubtful="3", reads={PLACE: 7, OTHER: 9})
    assert sorted(PendingLog(tmp_path, "g").doubts()) == [PLACE, OTHER]
    assert settled(tmp_path, {PLACE: (7, mark), OTHER: (9, mark)}) == [b"1", b"2", b"3"]
    assert PendingLog(tmp_path, "g").doubts() == []


@pytest.mark.parametrize("read", [(4, "earlier"), (-1001, ""), (7, "done again by another")])
def test_it_does_not_when_they_do_not(tmp_path: Path, read: tuple[int, str]) -> None:
    died(tmp_path, "1", "2", doubtful="3", reads={PLACE: 7})
    assert settled(tmp_path, {PLACE: read}) == [b"1", b"2"]
    assert list(tmp_path.glob("stream-*")) == []


def test_nothing_is_settled_before_every_partition_is_known_nor_of_the_living_nor_of_another_group(tmp_path: Path) -> None:
    died(tmp_path, "1", doubtful="2", reads={PLACE: 7, OTHER: 9})
    assert settled(tmp_path, {PLACE: (7, "x")}) == []
    living = PendingLog(tmp_path, "g")
    living.write([pack(b"5")], {PLACE: 8})
    other = PendingLog(tmp_path, "h")
    assert other.doubts() == []
    other.resolve({PLACE: (7, ""), OTHER: (9, "")})
    assert finished(tmp_path) == []
    assert len(list(tmp_path.glob("stream-*.pending"))) == 2


def test_a_transaction_of_our_own_whose_end_nobody_told_is_in_doubt_too(tmp_path: Path) -> None:
    log = PendingLog(tmp_path, "g")
    mark = log.write([pack(b"1")], {PLACE: 3})
    assert log.doubts() == [PLACE]
    log.resolve({PLACE: (3, mark)})
    assert finished(tmp_path) == [b"1"]


def test_a_log_that_cannot_be_written_stops_the_transaction(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.write_text("a file stands where the folder should")
    with pytest.raises(LogNotWritable, match="cannot be written"):
        PendingLog(folder, "g").write([pack(b"1")], {PLACE: 1})
