"""Tasks that the compute suite runs in other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mulle.core.errors import ContractError


def echo(**arguments: Any) -> dict[str, Any]:
    return arguments


def whoami(wait: float = 0) -> dict[str, Any]:
    time.sleep(wait)
    return {
        "pid": os.getpid(),
        "nice": os.nice(0),
        "threads": [os.environ["OMP_NUM_THREADS"], os.environ["POLARS_MAX_THREADS"]],
        "modules": sorted(m for m in ("dbos", "mlflow", "polars", "decimal") if m in sys.modules),
    }


def noise() -> dict[str, Any]:
    print('{"answer": {"forged": true}}', flush=True)
    os.write(1, b"from C\n")
    os.write(2, b"to stderr\n")
    return {}


def refuse(field: str) -> dict[str, Any]:
    raise ContractError(f"row 3 has no {field}", next="send it", model="air-time", row=3, field=field)


def divide() -> dict[str, Any]:
    return {"x": 1 // 0}


def leave() -> dict[str, Any]:
    raise SystemExit(3)


def unspeakable() -> dict[str, Any]:
    return {"x": object()}


def wordless() -> Any:
    return [1]


def die() -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def compute(started: str) -> dict[str, Any]:
    """Hold the interpreter's lock in C for good, with a process of its own beside it."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    path = Path(started)
    path.with_suffix(".new").write_text(f"{os.getpid()} {other.pid}")
    path.with_suffix(".new").replace(path)
    sum(range(10**14))
    return {}


def hold(megabytes: int) -> dict[str, Any]:
    # Small pieces: each is granted, together they are too much.
    held = [bytes([1]) * 1_000_000 for _ in range(megabytes)]
    return {"held": len(held)}


def ask_for(bytes_: int) -> dict[str, Any]:
    return {"held": len(bytearray(bytes_))}
