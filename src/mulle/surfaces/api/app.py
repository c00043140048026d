"""The control plane: a JSON API over the same views as the command line, its reference, and the status page."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from mulle.core.clock import WallClock
from mulle.core.declare.fleet import fleet_of
from mulle.core.errors import Conflict, MulleError, NotFound, UsageError
from mulle.core.hashing import new_id
from mulle.core.records.base import Cause, to_json
from mulle.loop.monitoring.telling import silence
from mulle.loop.monitoring.windows import monitor_view
from mulle.loop.operate import deploy, pause, promote, resume, rollback, start_run
from mulle.loop.parts import Parts
from mulle.loop.views.chain import (
    alerts_view,
    datasets_view,
    deployment_view,
    history_view,
    model_view,
    models_view,
    run_view,
    runs_view,
    versions_view,
)
from mulle.loop.views.lineage import explain_view
from mulle.loop.views.status import status_view
from mulle.surfaces.api.metrics import LoopMetrics
from mulle.surfaces.api.page import reference_page, status_page
from mulle.surfaces.door import check_binding, check_request, token_of
from mulle.surfaces.reach import inference_url, told_by_server

__all__ = ["create_app"]

log = logging.getLogger("mulle.control")

Document = dict[str, Any]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]
Next = Callable[[Request], Awaitable[Response]]


def create_app(parts_factory: Callable[[], Parts]) -> FastAPI:
    """Make the control plane's app.

    Parameters
    ----------
    parts_factory : callable
        Gives the wired parts; asked at each request, so that it may hand out the engine's own.

    Raises
    ------
    UsageError
        When the settings bind beyond loopback and no token is set.
    """
    settings = parts_factory().settings
    check_binding(settings)
    token = token_of()
    app = FastAPI(title="Mulle", summary="The control plane.", version="1", docs_url=None, redoc_url=None)
    app.state.parts = parts_factory

    @app.middleware("http")
    async def door(request: Request, call_next: Next) -> Response:
        try:
            check_request(settings, request.method, request.headers, token)
        except MulleError as error:
            return _problem(error)
        return await call_next(request)

    app.include_router(_reading(), prefix="/api/v1")
    app.include_router(_changing(), prefix="/api/v1")
    app.include_router(_pages())
    figures = LoopMetrics(parts_factory)
    app.get("/metrics", include_in_schema=False)(lambda: Response(figures.text(), media_type=CONTENT_TYPE_LATEST))
    _tell_errors(app)
    return app


def _parts(request: Request) -> Parts:
    found: Parts = request.app.state.parts()
    return found


Wired = Annotated[Parts, Depends(_parts)]


def _reading() -> APIRouter:
    router = APIRouter(tags=["look"])
    plain: dict[str, Callable[..., Document]] = {
        "/status": _status, "/models": _models, "/models/{model}": _model, "/runs": _runs, "/runs/{run}": _run,
        "/history/{model}": _history, "/alerts": _alerts, "/monitor/{model}": _monitor, "/datasets": _datasets,
        "/datasets/{dataset}": _versions, "/explain/{prediction}": _explain,
    }  # fmt: skip
    for path, endpoint in plain.items():
        router.get(path, name=endpoint.__name__.strip("_"))(endpoint)
    return router


def _status(parts: Wired) -> Document:
    """Say in words how each model stands, and whether the engine runs."""
    return status_view(parts, **told_by_server(parts.settings))


def _models(parts: Wired, model: str | None = None, limit: Limit = 50, after: str | None = None) -> Document:
    """List model versions, newest first."""
    return models_view(parts, model=model, limit=limit, after=after)


def _model(parts: Wired, model: str) -> Document:
    """Show a model version by ``name``, ``name@7`` or ``name@champion``."""
    return model_view(parts, model)


def _runs(
    parts: Wired, model: str | None = None, state: str | None = None, limit: Limit = 20, after: str | None = None
) -> Document:
    """List runs, newest first."""
    return runs_view(parts, model=model, state=state, limit=limit, after=after)


def _run(parts: Wired, run: str) -> Document:
    """Show a run with its stages, trials and gates."""
    return run_view(parts, run)


def _history(parts: Wired, model: str, at: str | None = None, limit: Limit = 100) -> Document:
    """List a model's deployments; with ``at``, the one in force then."""
    return history_view(parts, model, at=at, limit=limit)


def _alerts(parts: Wired, model: str | None = None, state: str | None = None, limit: Limit = 50) -> Document:
    """List alerts, newest first."""
    return alerts_view(parts, model=model, state=state, limit=limit)


def _monitor(parts: Wired, model: str, limit: Limit = 30) -> Document:
    """Show a model's latest windows."""
    return monitor_view(parts, model, limit=limit)


def _datasets(parts: Wired) -> Document:
    """List datasets with their last version."""
    return datasets_view(parts)


def _versions(parts: Wired, dataset: str, limit: Limit = 50, after: int | None = None) -> Document:
    """List a dataset's versions and quarantined batches."""
    return versions_view(parts, dataset, limit=limit, after=after)


def _explain(parts: Wired, prediction: str) -> Document:
    """Show a prediction's whole chain."""
    return explain_view(parts, prediction)


def _changing() -> APIRouter:
    router = APIRouter(tags=["change"])
    changes: dict[str, Callable[..., Document]] = {
        "/models/{model}/deploy": _deploy, "/models/{model}/rollback": _rollback, "/models/{model}/promote": _promote,
        "/models/{model}/pause": _pause, "/models/{model}/resume": _resume,
    }  # fmt: skip
    for path, endpoint in changes.items():
        router.post(path, name=endpoint.__name__.strip("_"))(endpoint)
    router.post("/models/{model:path}/runs", name="start_run", status_code=202)(_start)
    router.post("/alerts/silences", name="silence", status_code=201)(_silence)
    return router


def _start(
    parts: Wired,
    model: str,
    by: Annotated[str, Body(embed=True, max_length=200)] = "api",
    why: Annotated[str, Body(embed=True, max_length=2000)] = "",
) -> Document:
    """Ask for a run; it is queued, and told by ``/runs/{run}``. A run that waits already is enough: 409 names it."""
    parts.project.model(model)
    waiting = parts.metadata.runs.list(fleet_of(model), 1, state="queued")
    if waiting:
        raise Conflict(
            f"run {waiting[0].id} of {model} waits already", next=f"see /api/v1/runs/{waiting[0].id}", run=waiting[0].id
        )
    run = start_run(parts, model, causes=[Cause(type="api", id=by, why=why or f"{by} asked over the API")])
    return run_view(parts, run.id)


def _silence(
    parts: Wired,
    model: Annotated[str, Body(embed=True)],
    span: Annotated[str | None, Body(embed=True, alias="for")] = None,
    by: Annotated[str, Body(embed=True, max_length=200)] = "api",
    why: Annotated[str, Body(embed=True, max_length=2000)] = "",
) -> Document:
    """Send nothing of a model (``*``: of any) for a while; without ``for`` a silence ends now."""
    made: Document = to_json(silence(parts, model, span, by=by, why=why))
    return made


def _deploy(parts: Wired, model: str, version: Annotated[int, Body(embed=True)]) -> Document:
    """Give all traffic to a version."""
    return deployment_view(deploy(parts, model, version, by="api"))


def _rollback(parts: Wired, model: str, to: Annotated[int | None, Body(embed=True)] = None) -> Document:
    """Give all traffic back to an earlier champion."""
    return deployment_view(rollback(parts, model, by="api", to=to))


def _promote(parts: Wired, model: str) -> Document:
    """End a canary or a shadow now: its version takes all traffic; without one, release what staging has."""
    return deployment_view(promote(parts, model, by="api"))


def _pause(parts: Wired, model: str, why: Annotated[str, Body(embed=True, max_length=2000)] = "") -> Document:
    """Freeze a model's automation: no runs, no moves of its pointer."""
    return deployment_view(pause(parts, model, by="api", why=why))


def _resume(parts: Wired, model: str, why: Annotated[str, Body(embed=True, max_length=2000)] = "") -> Document:
    """Let a paused model's automation go on."""
    return deployment_view(resume(parts, model, by="api", why=why))


def _pages() -> APIRouter:
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @router.get("/")
    def front(parts: Wired) -> Response:
        status = status_view(parts, **told_by_server(parts.settings))
        runs, alerts = runs_view(parts, limit=10), alerts_view(parts, limit=10)
        return _html(status_page(status, runs, alerts, tracking=parts.settings.tracking, inference=inference_url(parts.settings)))

    @router.get("/docs")
    def reference(request: Request) -> Response:
        return _html(reference_page(request.app.openapi()))

    return router


def _html(text: str) -> Response:
    # The page needs nothing but its own style; a value that slipped through escaping could still load or run nothing.
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
    return HTMLResponse(text, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"})


def _problem(error: MulleError, request: str = "") -> Response:
    body = json.dumps(error.problem(request_id=request or new_id(WallClock().now())), default=str)
    return Response(body, error.status, media_type="application/problem+json")


def _tell_errors(app: FastAPI) -> None:
    async def ours(request: Request, error: Exception) -> Response:
        if isinstance(error, MulleError):
            return _problem(error)
        id = new_id(WallClock().now())
        log.error("%s %s failed", request.method, request.url.path, exc_info=error, extra={"request": id})
        return _problem(_hidden(id), id)

    async def refused(_: Request, error: Exception) -> Response:
        first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
        field = ".".join(str(part) for part in first["loc"][1:])
        return _problem(UsageError(f"{field or 'the request'}: {first['msg']}", next="see /docs", field=field))

    async def unknown(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        told = NotFound(f"no {request.method} {request.url.path} here", next="see /docs")
        if status != 404:
            told = UsageError(f"{request.method} {request.url.path}: {getattr(error, 'detail', error)}", next="see /docs")  # type: ignore[assignment]
        answer = _problem(told)
        answer.status_code = status
        return answer

    app.add_exception_handler(MulleError, ours)
    app.add_exception_handler(RequestValidationError, refused)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(Exception, ours)


def _hidden(request: str) -> MulleError:
    return MulleError("something failed while answering", next=f"see `mulle logs --request {request}`")
