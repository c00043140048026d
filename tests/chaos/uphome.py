"""`mulle up` as a process that is asked, told labels, hurt and looked into; and what its home must hold in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO

import polars as pl
import psutil
from chaos_home import START, THREADS
from tests.ports import free_port

from mulle.bootstrap.parts import wire
from mulle.core.clock import rfc3339
from mulle.core.errors import NotFound
from mulle.core.records.base import Cause, Json
from mulle.core.records.run import Run, run_state
from mulle.core.settings import load_settings
from mulle.loop.operate import start_run
from mulle.loop.parts import Parts

MULLE = [sys.executable, "-m", "mulle"]
FINAL = ("succeeded", "rejected", "failed", "cancelled")
WHY = (Cause(type="person", id="test", why="a test asked"),)


@dataclass
class Up:
    """A project whose loop and server run as `mulle up`."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    failed: int = 0
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.port, self.control = free_port(), free_port()
        self.environment |= {
            "MULLE_TICK": "250ms", "MULLE_INFERENCE_PORT": str(self.port), "MULLE_PORT": str(self.control),
            "MULLE_GRPC_PORT": "0", "MULLE_PROJECT": str(self.folder), "MULLE_PROCESSES": "1",
        }  # fmt: skip
        self._asked = 0

    @property
    def home(self) -> Path:
        return self.folder / ".mulle"

    @property
    def log(self) -> str:
        path = self.folder / "up.log"
        return path.read_text() if path.exists() else ""

    def parts(self) -> Parts:
        """Open the stores from here, beside the process."""
        environment = {k: v for k, v in self.environment.items() if k.startswith("MULLE_")}
        return wire(load_settings({}, environment))

    def start(self, *, serving: bool = True) -> None:
        """Start the process; it answers predictions when this returns, where a model is deployed."""
        self.process = subprocess.Popen(
            [*MULLE, "up"], cwd=self.folder, env={**os.environ, **THREADS, **self.environment}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        # Over a pipe: its own disk may be full.
        threading.Thread(target=self._listen, args=(self.process.stdout,), daemon=True).start()
        until(self.answers if serving else self.told, "mulle up answers")

    def serve(self) -> None:
        """Start the server alone; it answers when this returns."""
        command, environment = [*MULLE, "serve"], {**os.environ, **THREADS, **self.environment}
        self.process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        threading.Thread(target=self._listen, args=(self.process.stdout,), daemon=True).start()
        until(self.ask, "mulle serve answers")

    def _listen(self, told: IO[bytes]) -> None:
        for line in told:
            with (self.folder / "up.log").open("ab") as log:
                log.write(line)

    def told(self) -> bool:
        """Whether the control plane answers."""
        assert self.process is not None
        assert self.process.poll() is None, self.log[-3000:]
        return self.status() is not None

    def status(self) -> Json | None:
        """What the control plane says of the models; None while it does not answer."""
        return fetched(self.control, "GET", "/api/v1/status")

    def answers(self) -> bool:
        """Whether the server of this very process answers a prediction."""
        return self.told() and self.ask()

    def ask(self, rows: int = 2) -> bool:
        """Ask for predictions; what is acknowledged must never be lost."""
        self._asked += 1
        at = rfc3339(START + timedelta(days=9, seconds=self._asked))
        row = {"at": at, "area": "north", "kind": "car", "distance": 7.5}
        body = {"rows": [{"id": 1_000_000 + 10 * self._asked + n, **row} for n in range(rows)]}
        found = fetched(self.port, "POST", "/v1/models/duration/predict", body)
        if found is None:
            self.failed += 1
            return False
        self.acknowledged += [p["id"] for p in found["predictions"]]
        return True

    def label(self) -> None:
        """Tell the outcome of the last prediction that was acknowledged."""
        if self.acknowledged and self.acknowledged[-1] not in self.labelled:
            told = {"model": "duration", "labels": [{"prediction_id": self.acknowledged[-1], "value": 14.0}]}
            last = self.acknowledged[-1]
            if fetched(self.port, "POST", "/v1/labels", told) is not None:
                self.labelled.append(last)

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Ask and tell labels all the while."""
        halt = threading.Event()

        def go() -> None:
            while not halt.is_set():
                self.ask()
                self.label()
                halt.wait(0.02)

        thread = threading.Thread(target=go)
        thread.start()
        try:
            yield
        finally:
            halt.set()
            thread.join()

    def run(self) -> str:
        """Record a run of the model; the loop takes it up."""
        parts = self.parts()
        try:
            return start_run(parts, "duration", causes=WHY).id
        finally:
            parts.online.close()

    def state(self, run: str) -> str:
        parts = self.parts()
        try:
            return run_state(parts.metadata.runs.events(run))
        finally:
            parts.online.close()

    def ended(self, run: str, seconds: float = 300) -> str:
        """Wait for a run's end; return its state."""
        until(lambda: self.state(run) in FINAL, f"run {run} ends", seconds)
        return self.state(run)

    def pids(self, kind: str) -> list[int]:
        """The processes of a kind: ``engine``, ``server``, ``worker`` (they compute, or others are forked from them)."""
        assert self.process is not None
        if kind == "engine":
            return [self.process.pid]
        server = (self.home / "serve.lock").read_text()
        if kind == "server":
            return [int(server)] if server.isdecimal() else []
        try:
            nurseries = [c for c in psutil.Process(self.process.pid).children() if str(c.pid) != server]
            return [c.pid for nursery in nurseries for c in (nursery, *nursery.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Hurt a process, and see that it is gone when it is killed."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        if self.process is not None and pid == self.process.pid and number == signal.SIGKILL:
            self.process.wait(20)

    def stop(self) -> None:
        """End it as a service manager does; it must end well, and leave no server."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(180) == 0, self.log[-3000:]
        assert fetched(self.port, "GET", "/v2/health/live") is None, "a server was left behind"

    def end(self) -> None:
        """Leave no process, however the test ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        left = self.home / "serve.lock"
        for pid in [left.read_text()] if left.exists() else []:
            if pid.isdecimal() and psutil.pid_exists(int(pid)) and "mulle" in " ".join(psutil.Process(int(pid)).cmdline()):
                os.kill(int(pid), signal.SIGKILL)

    def holds_all(self) -> None:
        """See that nothing acknowledged is lost and no record is doubled; the process was stopped before."""
        parts = self.parts()
        try:
            for table, wanted, name in (("predictions", self.acknowledged, "id"), ("labels", self.labelled, "prediction_id")):
                found = _rows(parts, table, name)
                assert len(found) == len(set(found)), f"{table}: doubled"
                assert set(wanted) <= set(found), f"{table}: {len(set(wanted) - set(found))} of {len(wanted)} lost"
            assert list((self.home / "log").glob("*.seg")) == []
            for run in parts.metadata.runs.list(limit=1000):
                _told_once(parts, run)
            deployments = parts.metadata.deployments.all()
            assert len({d.id for d in deployments}) == len(deployments)
            versions = [v.version for v in parts.metadata.models.list("duration", limit=1000)]
            assert sorted(versions) == list(range(1, len(versions) + 1))
        finally:
            parts.online.close()


def _rows(parts: Parts, table: str, column: str) -> list[str]:
    try:
        return parts.lake.scan(table).select(pl.col(column)).collect()[column].drop_nulls().to_list()
    except NotFound:
        return []


def _told_once(parts: Parts, run: Run) -> None:
    told = [(e.kind, e.name, e.state) for e in parts.metadata.runs.events(run.id)]
    assert len(told) == len(set(told)), f"{run.id}: an event is there twice"
    assert sum(name in FINAL for kind, name, _ in told if kind == "state") <= 1, f"{run.id} ended twice"
    made = [v for v in parts.metadata.models.list("duration", limit=1000) if v.run == run.id]
    assert len(made) <= 1, f"{run.id} made {len(made)} versions"
    trials = [t.number for t in parts.metadata.runs.trials(run.id)]
    assert len(trials) == len(set(trials)), f"{run.id}: a trial is there twice"


def fetched(port: int, method: str, path: str, body: Json | None = None) -> Json | None:
    """Ask; None when there is no answer or a refusal."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"content-type": "application/json"} if text else {})
        reply = connection.getresponse()
        content = reply.read()
        return dict(json.loads(content)) if reply.status < 300 and content[:1] == b"{" else {} if reply.status < 300 else None
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()


def until(true: Callable[[], bool], what: str, seconds: float = 180) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
