"""The Open Inference Protocol over gRPC: the same runtime, the same words, on a port of its own.

Loaded only when `grpc_port` is set. Errors map to gRPC's statuses; the problem document travels in the trailing metadata
``mulle-problem-bin``. A client's deadline cancels its call, and a call that is cancelled while it waits is not scored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc  # type: ignore[import-untyped]
import orjson
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

import mulle
from mulle.core.clock import duration
from mulle.core.errors import Malformed, NotFound, Unavailable
from mulle.core.settings import Settings
from mulle.kernel.tracing import RequestTraces
from mulle.lifecycle.serving.ids import fresh_ids
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference import repository
from mulle.surfaces.inference.call import Call, count_refused
from mulle.surfaces.inference.door import Door
from mulle.surfaces.inference.messages import METHODS, SERVICE, messages
from mulle.surfaces.inference.problem import problem_of
from mulle.surfaces.inference.tensors import Tensor, check_shape, inputs_of, outputs_of, pack, pick, rows_of, tensors_of, unpack
from mulle.surfaces.inference.v2 import EXTENSIONS

__all__ = ["start_rpc"]

_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND, 409: grpc.StatusCode.FAILED_PRECONDITION, 413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT, 422: grpc.StatusCode.INVALID_ARGUMENT, 429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE, 504: grpc.StatusCode.DEADLINE_EXCEEDED,
}  # fmt: skip
_FAULTS = {
    grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS,
}  # fmt: skip
_OPEN = {"ServerLive", "ServerReady"}
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
_LONGEST = 4000
"""Characters of a problem in the metadata, of which gRPC takes 8 KiB."""


async def start_rpc(
    runtime: Runtime, settings: Settings, door: Door, traces: RequestTraces | None = None
) -> Callable[[], Awaitable[None]]:
    """Serve gRPC beside HTTP; returns what ends it after the calls that it took.

    Raises
    ------
    Unavailable
        When the port is taken.
    """
    service = _Service(runtime, door, traces)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            service.method(name),
            response_serializer=service.messages[f"{name}Response"].SerializeToString,
        )
        for name in METHODS
    }
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", settings.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(settings.workers > 1)),
        )
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise Unavailable(f"gRPC cannot listen on {host}:{settings.grpc_port}", next="set another grpc_port") from error
    await server.start()
    grace = duration(settings.deadline).total_seconds()

    async def end() -> None:
        await server.stop(grace)

    return end


class _Service:
    def __init__(self, runtime: Runtime, door: Door, traces: RequestTraces | None) -> None:
        self._runtime, self._door, self._traces = runtime, door, traces
        self.messages = messages()

    def method(self, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
        """Wrap a method: the door, the clock, the counters, and errors as statuses."""
        handler: Callable[[Call, Any], Awaitable[Any]] = getattr(self, _snake(name))
        kind = self.messages[f"{name}Request"]

        async def answer(data: bytes, context: Any) -> Any:
            started, id = time.perf_counter(), fresh_ids(time.time_ns() // 1000, 1)[0]
            call = Call(id, _headers(context), data, b"", "", None, started)
            if self._traces is not None:
                self._traces.begin(id, call.headers.get(b"traceparent", b"").decode("latin-1"))
            code = grpc.StatusCode.OK
            try:
                if name not in _OPEN:
                    self._door.check(call.headers)
                request = _parsed(kind, data)
                call.model = getattr(request, "model_name", "") or getattr(request, "name", "")
                call.version = _version(request)
                reply = await handler(call, request)
            except asyncio.CancelledError as error:
                count_refused(self._runtime, error, call.model, 504, started, id)
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:
                error = problem_of(error)
                count_refused(self._runtime, error, call.model, error.status, started, id)
                told = orjson.dumps(error.problem(request_id=id), default=str)
                trailing = (("mulle-problem-bin", told),) if len(told) <= _LONGEST else ()
                code = _STATUS.get(error.status, grpc.StatusCode.INTERNAL)
                await context.abort(code, error.detail[:_LONGEST], (("x-request-id", id), *trailing))
            finally:
                if self._traces is not None:
                    _trace(self._traces, name, call, code)
            call.count(self._runtime, 200)
            return reply

        return answer

    async def server_live(self, _call: Call, _request: Any) -> Any:
        return self._make("ServerLiveResponse", live=True)

    async def server_ready(self, _call: Call, _request: Any) -> Any:
        return self._make("ServerReadyResponse", ready=self._runtime.ready())

    async def server_metadata(self, _call: Call, _request: Any) -> Any:
        return self._make("ServerMetadataResponse", name="mulle", version=mulle.__version__, extensions=EXTENSIONS)

    async def model_ready(self, call: Call, _request: Any) -> Any:
        try:
            await self._runtime.contract(call.model, call.version)
        except Unavailable:
            return self._make("ModelReadyResponse", ready=False)
        return self._make("ModelReadyResponse", ready=True)

    async def model_metadata(self, call: Call, _request: Any) -> Any:
        _, contract = await self._runtime.contract(call.model, call.version)
        told = "ModelMetadataResponse.TensorMetadata"
        inputs, outputs = (
            [self._make(told, name=name, datatype=datatype, shape=shape) for name, datatype, shape in tensors]
            for tensors in (inputs_of(contract), outputs_of(contract))
        )
        versions = [str(v) for v in self._runtime.table.versions(call.model)]
        return self._make(
            "ModelMetadataResponse", name=call.model, versions=versions, platform=f"mulle_{contract.compiled}",
            inputs=inputs, outputs=outputs,
        )  # fmt: skip

    async def model_infer(self, call: Call, request: Any) -> Any:
        raw = len(request.raw_input_contents) > 0
        answers = await call.predict(self._runtime, rows_of(_inputs(request)))
        outputs = pick(tensors_of(answers), {o.name: True for o in request.outputs})
        reply = self._make(
            "ModelInferResponse", model_name=call.model, model_version=str(call.answered), id=request.id or call.request
        )
        reply.parameters["prediction_ids"].string_param = ",".join(answer["id"] for answer in answers)
        for tensor in outputs:
            told = reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            if raw:
                reply.raw_output_contents.append(pack(tensor))
            else:
                values = [v.encode() for v in tensor.values] if tensor.datatype == "BYTES" else tensor.values
                getattr(told.contents, _CONTENTS[tensor.datatype]).extend(values)
        return reply

    async def repository_index(self, _call: Call, request: Any) -> Any:
        told = "RepositoryIndexResponse.ModelIndex"
        items = repository.index(self._runtime, ready=request.ready)
        return self._make("RepositoryIndexResponse", models=[self._make(told, **item) for item in items])

    async def repository_model_load(self, call: Call, request: Any) -> Any:
        await repository.load(self._runtime, call.model, request.parameters)
        return self._make("RepositoryModelLoadResponse")

    async def repository_model_unload(self, call: Call, _request: Any) -> Any:
        await repository.unload(self._runtime, call.model)
        return self._make("RepositoryModelUnloadResponse")

    def _make(self, kind: str, /, **fields: object) -> Any:
        return self.messages[kind](**fields)


def _trace(traces: RequestTraces, method: str, call: Call, code: grpc.StatusCode) -> None:
    # Names of attributes and which statuses are the server's faults: OpenTelemetry's conventions for gRPC.
    about: dict[str, str | int | float] = {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": method}
    about |= {"rpc.grpc.status_code": code.value[0], "mulle.request": call.request}
    about |= {"mulle.model": call.model} if call.model else {}
    about |= {"mulle.version": call.answered, "mulle.route": call.route} if call.route else {}
    traces.end(call.request, f"{SERVICE}/{method}", about, f"status {code.name}" if code in _FAULTS else "")


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise Malformed("the message cannot be read", next=f"send a {kind.DESCRIPTOR.full_name}") from error


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _headers(context: Any) -> dict[bytes, bytes]:
    pairs = context.invocation_metadata() or ()
    return {name.encode(): value.encode() if isinstance(value, str) else value for name, value in pairs}


def _version(request: Any) -> int | None:
    told = getattr(request, "model_version", "") or getattr(request, "version", "")
    if not told:
        return None
    if not (told.isascii() and told.isdigit() and len(told) < 10):
        raise NotFound(f"version {told[:40]!r} is no version of ours", next="versions are whole numbers")
    return int(told)


def _inputs(request: Any) -> list[Tensor]:
    raws = request.raw_input_contents
    if len(raws) and len(raws) != len(request.inputs):
        raise Malformed(f"{len(raws)} raw contents for {len(request.inputs)} tensors", next="send one for each tensor")
    return [_tensor(tensor, raws[number] if len(raws) else None) for number, tensor in enumerate(request.inputs)]


def _tensor(tensor: Any, raw: bytes | None) -> Tensor:
    shown = tensor.name[:80]
    if "shared_memory_region" in tensor.parameters:
        raise Malformed("shared_memory_region is not spoken here", next="send the data", field=shown)
    if raw is None:
        values = _contents(tensor, shown)
    elif tensor.contents.ListFields():
        raise Malformed(f"tensor {shown} has contents and raw contents", next="send one of them", field=shown)
    else:
        values = unpack(shown, tensor.datatype, raw)
    return Tensor(tensor.name, tensor.datatype, check_shape(shown, tuple(tensor.shape), len(values)), values)


def _contents(tensor: Any, shown: str) -> Sequence[Any]:
    own = _CONTENTS.get(tensor.datatype)
    if own is None:
        raise Malformed(
            f"tensor {shown} has datatype {tensor.datatype[:40]!r}, which has no typed contents",
            next=f"use {', '.join(_CONTENTS)}, or raw contents", field=shown,
        )  # fmt: skip
    if [field.name for field, _ in tensor.contents.ListFields()] not in ([own], []):
        raise Malformed(f"tensor {shown} is {tensor.datatype} and its contents are not", next=f"fill {own}", field=shown)
    values = getattr(tensor.contents, own)
    if own != "bytes_contents":
        return list(values)
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise Malformed(f"tensor {shown} has text that is not UTF-8", next="send UTF-8", field=shown) from error
