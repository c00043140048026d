"""One process that does one thing with the dataset of a folder, and may die on the way: ``python ingest_life.py FOLDER WORD``."""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path

from mulle.bootstrap.parts import wire
from mulle.core.errors import MulleError
from mulle.core.records.base import Cause
from mulle.core.settings import load_settings
from mulle.loop.data.datasets import restore_version
from mulle.loop.data.ingest import ingest_all
from mulle.loop.keeping.forget import forget

WHY = (Cause(type="person", id="test", why="a test asked"),)


def main(folder: Path, word: str) -> None:
    if word.startswith("limit="):
        # Any file that would grow beyond this fails as it does on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = int(word.removeprefix("limit="))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    parts = wire(load_settings({"project": folder}, {}))
    try:
        if word == "restore":
            restore_version(parts, "trips@1", causes=WHY)
        elif word == "forget":
            forget(parts, "trips", ["7"], by="test", causes=WHY)
        else:
            told = ingest_all(parts, causes=WHY)
            print(json.dumps([item["action"] for item in told["items"]]))
    except MulleError as error:
        print(json.dumps({"error": type(error).__name__, "detail": error.detail, "next": error.next}))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
