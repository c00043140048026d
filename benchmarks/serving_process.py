"""A server of a load as processes: started on a free port, waited for, looked at, and ended with all its children."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

import psutil

from benchmarks.serving_wire import WIRES, ask
from mulle.loop.server import free_port

__all__ = ["Running", "Server", "started", "versions"]

_ROOT = Path(__file__).parent.parent
_READY_SECONDS = 180
_END_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Somebody who answers a load's requests.

    Attributes
    ----------
    name : str
    module : str
        Run as ``python -m MODULE FOLDER PORT GIVEN``; serves on 127.0.0.1 until it is ended.
    wire : str
        Of `benchmarks.serving_wire.WIRES`.
    given : {"pipeline", "onnx"}
        What it answers with.
    peer : str or None
        Its environment; None for our own.
    note : str
        How it was set: workers, threads, batching.
    libraries : tuple of str
        Whose versions are told.
    """

    name: str
    module: str
    wire: str = "rows"
    given: str = "pipeline"
    peer: str | None = None
    note: str = ""
    libraries: tuple[str, ...] = ()


@dataclass(slots=True)
class Running:
    """A server that runs; `failed` says why it does not."""

    url: str
    process: psutil.Process
    failed: str = ""

    def family(self) -> list[psutil.Process]:
        """Give its processes."""
        with suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    def cpu_seconds(self) -> float:
        """Give the processor seconds of its processes so far."""
        total = 0.0
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory_bytes(self) -> int:
        """Give the memory of its processes, what they share counted once."""
        total = 0
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                full = process.memory_full_info()
                total += getattr(full, "pss", 0) or full.uss
        return total


@contextmanager
def started(server: Server, python: Path, folder: Path, *, probe: str) -> Iterator[Running]:
    """Run a server while the block runs; it has answered `probe` when the block begins, or says why not."""
    port = free_port("127.0.0.1")
    log = folder / f"{server.module.rsplit('.', 1)[-1]}-{server.given}.log"
    # The threads of each are its own to set.
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "VIRTUAL_ENV")}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
    command = [str(python), "-W", "ignore", "-m", server.module, str(folder), str(port), server.given]
    with log.open("w") as output:
        child = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    running = Running(f"http://127.0.0.1:{port}{WIRES[server.wire]}", psutil.Process(child.pid))
    try:
        running.failed = _waited(child, server, running.url, probe, log)
        yield running
    finally:
        _end(child, running.family())


def _waited(child: subprocess.Popen[bytes], server: Server, url: str, probe: str, log: Path) -> str:
    end, said = time.monotonic() + _READY_SECONDS, ""
    while child.poll() is None and time.monotonic() < end:
        try:
            ask(url, server.wire, probe)
        except HTTPError as error:
            said = f"{error.code} {error.read()[:200].decode(errors='replace')}"
        except (OSError, ValueError, KeyError) as error:
            said = str(error)
        else:
            return ""
        time.sleep(0.2)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    state = "it ended" if child.poll() is not None else f"it did not answer within {_READY_SECONDS} s: {said}"
    return f"{state}: {lines[-1][:300] if lines else 'no message'}"


def _end(child: subprocess.Popen[bytes], family: Sequence[psutil.Process]) -> None:
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(_END_SECONDS)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    child.wait()


def versions(python: Path, server: Server) -> dict[str, str]:
    """Ask a server's environment for the versions of its libraries."""
    code = "import json, sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([str(python), "-c", code, *server.libraries], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
