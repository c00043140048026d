"""An environment per peer, made by uv from exact pins, so that no peer runs with somebody else's versions."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["PeerMissing", "python_of"]

_HERE = Path(__file__).parent
_PINS, _ENVIRONMENTS = _HERE / "pins", _HERE / ".environments"
_INSTALL_SECONDS = 900


class PeerMissing(Exception):
    """A peer's environment cannot be made; says why."""


def python_of(peer: str) -> Path:
    """Give the Python of a peer's environment, made when it is absent or its pins have changed.

    Raises
    ------
    PeerMissing
    """
    pins, folder = _PINS / f"{peer}.txt", _ENVIRONMENTS / peer
    python, stamp = folder / "bin" / "python", folder / "pins.sha256"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == digest:
        return python
    uv = _uv()
    base = f"{sys.version_info.major}.{sys.version_info.minor}"
    _run(uv, "venv", "--quiet", "--clear", "--python", getattr(sys, "_base_executable", None) or base, str(folder))
    _run(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), "-r", str(pins))
    stamp.write_text(digest)
    return python


def _uv() -> str:
    # As the Makefile does: the one that pip brought into our environment, else the one on the path.
    for candidate in (str(Path(sys.prefix) / "bin" / "uv"), shutil.which("uv")):
        if candidate and shutil.which(candidate) and not subprocess.run([candidate, "--version"], capture_output=True).returncode:
            return candidate
    raise PeerMissing("uv was not found")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise PeerMissing(f"{' '.join(command[1:3])} took over {_INSTALL_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise PeerMissing(f"{' '.join(command[1:3])}: {' '.join(line.strip() for line in lines[:3])[:300]}")
