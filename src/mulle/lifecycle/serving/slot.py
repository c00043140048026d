"""A stream process's place of work: the same name in each life, so that a new one ends what the last left open."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from pathlib import Path

from mulle.core.hashing import hash_bytes

__all__ = ["take_slot"]


def take_slot(folder: Path, group: str) -> str:
    """Take the lowest free place of a group in this home, and name it; held by a lock as long as the process lives.

    Two machines that see one folder have names of their own: a file's lock may not reach that far.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = hash_bytes(f"{socket.gethostname()}\0{folder}\0{group}".encode())[:12]
    number = 0
    while True:
        handle = os.open(folder / f"{re.sub(r'[^a-zA-Z0-9.-]', '_', group)}-{number}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            number += 1
            continue
        return f"mulle-{group}-{place}-{number}"
