"""Our side of the serving claims: the inference server as its users start it, on the home that a run has filled."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

__all__ = ["main"]


def main(folder: Path, port: int, given: str) -> None:
    """Become ``mulle serve``; `given` is ``onnx``, or ``onnx-2`` for so many processes."""
    from mulle.core.settings import Settings
    from mulle.loop.server import environment

    workers = int(given.partition("-")[2] or 1)
    settings = replace(Settings(project=folder).resolved(), inference_port=port, workers=workers)
    os.execve(sys.executable, [sys.executable, "-m", "mulle", "serve"], {**os.environ, **environment(settings)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
