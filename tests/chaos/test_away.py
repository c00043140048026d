"""Stores that go away while `mulle up` works with them: database, bucket, tracking server. ``AWAY=60`` for a minute of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

import boto3
import psutil
import pytest
from chaos_home import add_trips, make_home
from tests.ports import free_port
from uphome import MULLE, Up, fetched, until

from mulle.core.errors import NotFound
from mulle.loop.training.tracked import untold

AWAY = float(os.environ.get("AWAY", "5"))
SERVICES = Path(__file__).parents[1] / "services"


class Wire:
    """A port that leads to a server, and that can be cut: whoever comes is refused, and who is there is thrown out."""

    def __init__(self, port: int) -> None:
        self._target, self.port = port, free_port()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.join()

    def join(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        assert self._listener is not None
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in tuple(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    def _copy(self, here: socket.socket, there: socket.socket) -> None:
        self._open.add(here)
        with suppress(OSError):
            while data := here.recv(1 << 16):
                there.sendall(data)
        with suppress(OSError):
            there.shutdown(socket.SHUT_WR)
        self._open.discard(here)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_home(tmp_path / "project").folder


def began(folder: Path, environment: dict[str, str]) -> Up:
    """Train and deploy the first model where the environment says, then start the loop."""
    up = Up(folder, environment)
    done = subprocess.run(
        [*MULLE, "run", "duration"], cwd=folder, env={**os.environ, **up.environment}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    up.start()
    return up


def served_on(up: Up, failed: int) -> None:
    """See that no request failed meanwhile, and that a run goes through now."""
    assert up.failed == failed, f"{up.failed - failed} requests failed while it was away"
    last = up.run()
    assert up.ended(last) == "succeeded", up.log[-3000:]
    up.stop()
    up.holds_all()


def test_the_database_is_restarted_under_a_run(project: Path) -> None:
    if shutil.which("runuser") is None and os.getuid() == 0:
        pytest.skip("no runuser")
    # Where the server's own user may go, too.
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    folder = root / "pg"
    url = subprocess.run(
        [SERVICES / "postgres.sh", "start", folder], capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()
    up = None
    try:
        up = began(project, {"MULLE_DATABASE": url})
        with up.traffic():
            until(up.ask, "it answers")
            failed = up.failed
            add_trips(project, 400, 40)
            run = up.run()
            until(lambda: up.state(run) == "running", "it runs")
            subprocess.run([SERVICES / "postgres.sh", "restart", folder], check=True, timeout=60)
            assert up.ended(run) in ("succeeded", "failed"), "it ends, whatever stage the database left it in"
        served_on(up, failed)
    finally:
        if up is not None:
            up.end()
        subprocess.run([SERVICES / "postgres.sh", "stop", folder], check=False)
        shutil.rmtree(root)


def test_the_bucket_is_away_for_a_while(project: Path) -> None:
    endpoint = os.environ.get("MULLE_TEST_S3", "")
    if not endpoint:
        pytest.skip("MULLE_TEST_S3 is not set")
    wire = Wire(int(endpoint.rpartition(":")[2]))
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{wire.port}", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ALLOW_HTTP": "true",
    }  # fmt: skip
    bucket = f"c{uuid4().hex[:12]}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=bucket)
        up = began(project, {**environment, "MULLE_LAKE": f"s3://{bucket}/lake"})
        try:
            with up.traffic():
                until(up.ask, "it answers")
                failed = up.failed
                wire.cut()
                time.sleep(AWAY)
                assert up.ask(), "serving needs no bucket"
                wire.join()
                until(lambda: logged(up), "the log is drained")
            served_on(up, failed)
        finally:
            up.end()


def logged(up: Up) -> bool:
    parts = up.parts()
    try:
        found = set(parts.lake.scan("predictions").select("id").collect()["id"])
    except NotFound:
        return False
    finally:
        parts.online.close()
    return set(up.acknowledged[:20]) <= found


def test_the_tracking_server_is_away_while_a_model_is_trained_and_released(project: Path, tmp_path: Path) -> None:
    port = free_port()
    store = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--artifacts-destination",
               str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip

    def served() -> subprocess.Popen[bytes]:
        with (tmp_path / "mlflow.log").open("ab") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until(lambda: fetched(port, "GET", "/health") is not None or _listens(port), "MLflow answers", 300)
        return server

    server, up = served(), None
    try:
        up = began(project, {"MULLE_TRACKING": f"http://127.0.0.1:{port}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
                             "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"})  # fmt: skip
        with up.traffic():
            until(up.ask, "it answers")
            failed = up.failed
            ended(server)
            add_trips(project, 400, 40)
            run = up.run()
            assert up.ended(run) == "succeeded", "no run waits for MLflow"
            assert untold(up.home)
            assert up.failed == failed
            assert [up.ask() for _ in range(5)] == [True] * 5
            server = served()
            until(lambda: not untold(up.home), "MLflow is told what it missed")
        served_on(up, failed)
        parts = up.parts()
        version = parts.metadata.models.of_run(run)
        assert version is not None
        assert version.tracking["version"] == "2"
        parts.online.close()
    finally:
        if up is not None:
            up.end()
        ended(server)


def ended(server: subprocess.Popen[bytes]) -> None:
    """End a server with all that it started."""
    with suppress(psutil.NoSuchProcess):
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    server.wait(20)


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
