"""Asking the running inference server: plain HTTP, answers and problems turned back into our own words."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from mulle.core.errors import MulleError, NotFound, Unavailable, UsageError
from mulle.core.settings import Settings
from mulle.surfaces.door import token_of

__all__ = ["get", "held_back_bundles", "input_types", "inference_url", "post", "told_by_server"]


def inference_url(settings: Settings) -> str:
    """Return where the inference server of these settings listens.

    Examples
    --------
    >>> inference_url(Settings())
    'http://127.0.0.1:8801'
    """
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host
    return f"http://{host}:{settings.inference_port}"


def post(settings: Settings, path: str, body: object, *, timeout: float = 60.0) -> dict[str, Any]:
    """Post JSON to the inference server and return its answer.

    Raises
    ------
    Unavailable
        When no server answers.
    MulleError
        The problem the server told, as the error it stands for.
    """
    data = json.dumps(body).encode()
    request = urllib.request.Request(inference_url(settings) + path, data, {"Content-Type": "application/json"})
    answer: dict[str, Any] = json.loads(_send(request, settings, timeout))
    return answer


def get(settings: Settings, path: str, *, timeout: float = 5.0) -> str:
    """Get a text from the inference server; raises as `post` does."""
    return _send(urllib.request.Request(inference_url(settings) + path), settings, timeout)


def _send(request: urllib.request.Request, settings: Settings, timeout: float) -> str:
    url = inference_url(settings)
    if token := token_of():
        request.add_header("Authorization", f"Bearer {token}")
    # An http_proxy in the environment must not swallow requests to the machine's own server.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        raise _told(error) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            f"no inference server answers at {url}", next="start it with `mulle up` (or `mulle serve` alone)", url=url
        ) from error


def _told(error: urllib.error.HTTPError) -> MulleError:
    try:
        problem = json.loads(error.read())
        detail, slug = str(problem["detail"]), str(problem.get("type", "")).rsplit("/", 1)[-1]
    except (ValueError, KeyError, TypeError):
        return Unavailable(f"the server answered {error.code} {error.reason}", next="see its log") if error.code >= 500 else \
            UsageError(f"the server answered {error.code} {error.reason}")  # fmt: skip
    facts = {k: v for k, v in problem.items() if k not in {"type", "title", "status", "detail", "next", "retryable"}}
    return _kind(slug, error.code)(detail, next=str(problem.get("next", "")), **facts)


def _kind(slug: str, status: int) -> type[MulleError]:
    kinds, waiting = {}, [MulleError]
    while waiting:
        kind = waiting.pop()
        kinds[kind.slug] = kind
        waiting.extend(kind.__subclasses__())
    fallback = NotFound if status == 404 else Unavailable if status >= 500 else UsageError
    return kinds.get(slug, fallback)


def input_types(settings: Settings, model: str) -> dict[str, str]:
    """Ask which type (``FP64``, ``INT64``, ``BOOL``, ``BYTES``) each of a model's inputs has."""
    told = json.loads(get(settings, f"/v2/models/{model}"))
    return {i["name"]: i["datatype"] for i in told["inputs"]}


def told_by_server(settings: Settings) -> dict[str, Any]:
    """Ask the running server for what `status_view` says of it: ``refused`` and ``server``."""
    try:
        # Something else may listen there, which keeps ours from it.
        answers = "live" in json.loads(get(settings, "/v2/health/live", timeout=2.0))
    except (MulleError, ValueError, TypeError):
        answers = False
    return {
        "refused": held_back_bundles(settings) if answers else {},
        "server": {"state": "answers" if answers else "silent", "url": inference_url(settings)},
    }


def held_back_bundles(settings: Settings) -> dict[str, str]:
    """Say by model what of its routes the running server refuses to load; nothing where no server tells."""
    try:
        told = json.loads(get(settings, "/v1/routes", timeout=0.5))
        return {name: str(model["problem"]["detail"]) for name, model in told["models"].items() if model.get("problem")}
    except (MulleError, ValueError, KeyError, TypeError, AttributeError):
        return {}
