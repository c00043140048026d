"""What was written is read, a torn tail is cut, and a full disk refuses without harming what is there."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulle.core.errors import LogNotWritable
from mulle.lifecycle.serving.log import Segment, pack, read_records


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_a_torn_tail_is_cut_and_nothing_else(payloads: list[bytes], data: st.DataObject) -> None:
    framed = [pack(p) for p in payloads]
    whole = b"".join(framed)
    cut = data.draw(st.integers(0, len(whole)))
    read = list(read_records(whole[:cut], 100))
    ends = [sum(len(f) for f in framed[: i + 1]) for i in range(len(framed))]
    assert [r.payload for r in read] == [p for p, end in zip(payloads, ends, strict=True) if end <= cut]
    assert [r.end - 100 for r in read] == [end for end in ends if end <= cut]


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4), st.data())
def test_a_changed_byte_is_never_read_as_a_record(payloads: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(b"".join(pack(p) for p in payloads))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 0xFF
    read = [r.payload for r in read_records(bytes(whole))]
    assert read == payloads[: len(read)]
    assert len(read) < len(payloads)


def test_the_writer_holds_its_file_and_lets_it_go(tmp_path: Path) -> None:
    segment = Segment(tmp_path, "predictions")
    assert not list(tmp_path.iterdir())
    segment.write([pack(b"one"), pack(b"two")])
    assert segment.path is not None
    with segment.path.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    segment.close()
    with segment.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert segment.path.stat().st_mode & 0o077 == 0


def test_a_large_file_is_followed_by_another(tmp_path: Path) -> None:
    segment = Segment(tmp_path, "labels", largest=64, fsync=True)
    for number in range(10):
        segment.write([pack(b"%020d" % number)])
    segment.close()
    files = sorted(tmp_path.glob("labels-*.seg"))
    payloads = [r.payload for f in files for r in read_records(f.read_bytes())]
    assert len(files) == 4
    assert sorted(payloads) == [b"%020d" % n for n in range(10)]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    with pytest.raises(LogNotWritable) as caught:
        Segment(tmp_path / "log", "predictions").write([pack(b"x")])
    assert caught.value.status == 503


FULL = """
import resource, sys
from pathlib import Path
from mulle.core.errors import LogNotWritable
from mulle.lifecycle.serving.log import Segment, pack, read_records
segment = Segment(Path(sys.argv[1]), "predictions")
segment.write([pack(b"a" * 500)])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for _ in range(3):
    try:
        segment.write([pack(b"b" * 900)])
        raise SystemExit("written beyond the limit")
    except LogNotWritable:
        pass
assert segment.path.stat().st_size == segment.offset == 508
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
segment.write([pack(b"c" * 900)])
assert [r.payload[:1] for r in read_records(segment.path.read_bytes())] == [b"a", b"c"]
"""


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], check=True)


def test_writers_that_wait_for_the_disk_share_its_next_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, disk = list[int](), os.fdatasync

    def slowly(handle: int) -> None:
        turns.append(os.fstat(handle).st_size)
        time.sleep(0.1)
        disk(handle)

    monkeypatch.setattr(os, "fdatasync", slowly)
    segment = Segment(tmp_path, "predictions", fsync=True)
    acknowledged = list[int]()

    def write(number: int) -> None:
        segment.write([pack(b"%04d" % number)])
        acknowledged.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acknowledged) == 16
    assert len(turns) < 8
    assert segment.path is not None
    assert turns[-1] == segment.path.stat().st_size == 16 * len(pack(b"0000"))


def test_what_did_not_reach_the_disk_is_refused_and_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Segment(tmp_path, "predictions", fsync=True)
    segment.write([pack(b"safe")])
    disk, began, refused = os.fdatasync, threading.Event(), list[str]()

    def breaks(handle: int) -> None:
        began.set()
        time.sleep(0.2)
        raise OSError(5, "the disk is gone")

    monkeypatch.setattr(os, "fdatasync", breaks)

    def write(text: bytes) -> None:
        try:
            segment.write([pack(text)])
        except LogNotWritable:
            refused.append(text.decode())

    first = threading.Thread(target=write, args=(b"lost",))
    first.start()
    began.wait()
    second = threading.Thread(target=write, args=(b"with",))  # written while the disk was at it
    second.start()
    for thread in (first, second):
        thread.join()
    assert sorted(refused) == ["lost", "with"]
    monkeypatch.setattr(os, "fdatasync", disk)
    segment.write([pack(b"again")])
    segment.close()
    files = sorted(tmp_path.glob("predictions-*.seg"))
    assert [r.payload for f in files for r in read_records(f.read_bytes())] == [b"safe", b"again"]
