"""The same protocol over gRPC, asked by Triton's own client and by plain stubs."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_parts import Server, bundle, route, two_models, version
from tests.ports import free_port
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from mulle.core.errors import UsageError
from mulle.core.hashing import hash_folder
from mulle.core.settings import load_settings
from mulle.lifecycle.serving.runtime import Runtime
from mulle.surfaces.inference.app import create_app
from mulle.surfaces.inference.messages import METHODS, SERVICE, messages


def served(home: Path, limits: dict[str, str] | None = None, **more: Any) -> Server:
    return Server(home, {"grpc_port": str(free_port()), **(limits or {})}, **more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = {"max_body": "200000", "max_rows": "50", "max_text": "1000"}
    with served(two_models(tmp_path_factory.mktemp("rpc")), limits) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(f"127.0.0.1:{server.settings['grpc_port']}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def stub(server: Server) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{server.settings['grpc_port']}") as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def columns(rows: int = 2) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "id": np.arange(1, rows + 1, dtype=np.int64),
        "at": np.array(["2013-03-01T10:00:00Z"] * rows, dtype=object),
        "size": np.linspace(2.0, 3.5, rows).astype(np.float32),
        "kind": np.array(["a"] * rows, dtype=object),
    }


def inputs(rows: int = 2) -> list[triton.InferInput]:
    made = []
    for name, values in columns(rows).items():
        datatype = {"i": "INT64", "f": "FP32", "O": "BYTES"}[values.dtype.kind]
        made.append(triton.InferInput(name, [rows, 1], datatype))
        made[-1].set_data_from_numpy(values.reshape(-1, 1))
    return made


def typed(model: str = "trip", **more: Any) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=model, **more)
    for name, datatype, field, values in (
        ("id", "INT64", "int64_contents", [1, 2]),
        ("size", "FP64", "fp64_contents", [2.0, 3.5]),
        ("kind", "BYTES", "bytes_contents", [b"a", b"b"]),
    ):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[2])
        getattr(tensor.contents, field).extend(values)
    return request


def test_the_messages_are_those_of_the_protocol() -> None:
    ours = messages()
    for name in METHODS:
        for kind in (f"{name}Request", f"{name}Response"):
            compare(ours[kind].DESCRIPTOR, getattr(service_pb2, kind).DESCRIPTOR)


def compare(ours: Any, theirs: Any) -> None:
    assert ours.full_name == theirs.full_name
    for field in ours.fields:
        other = theirs.fields_by_number[field.number]
        assert (field.name, field.type, field.is_repeated) == (other.name, other.type, other.is_repeated)
        if field.message_type is not None:
            compare(field.message_type, other.message_type)


def test_tritons_client_infers(client: triton.InferenceServerClient) -> None:
    found = client.infer("trip", inputs(), request_id="mine")
    assert found.as_numpy("value").tolist() == [[3.0], [4.5]]
    answer = found.get_response()
    assert (answer.id, answer.model_name, answer.model_version) == ("mine", "trip", "7")
    assert [len(id) for id in answer.parameters["prediction_ids"].string_param.split(",")] == [26, 26]
    older = client.infer("trip", inputs(1), model_version="6")
    assert (older.get_response().model_version, older.as_numpy("value").item()) == ("6", 2.0)


def test_tritons_client_gets_classes_and_picks_outputs(client: triton.InferenceServerClient) -> None:
    found = client.infer("kind", inputs())
    assert found.as_numpy("value").ravel().tolist() == [b"yes", b"yes"]
    assert found.as_numpy("probabilities").sum(axis=1) == pytest.approx([1.0, 1.0])
    only = client.infer("kind", inputs(), outputs=[triton.InferRequestedOutput("probabilities")])
    assert only.as_numpy("value") is None
    with pytest.raises(InferenceServerException, match="no output 'pace'"):
        client.infer("kind", inputs(), outputs=[triton.InferRequestedOutput("pace")])


def test_tritons_client_asks_about_server_models_and_repository(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("trip", "6")
    assert client.get_server_metadata(as_json=True)["extensions"] == ["binary_tensor_data", "model_repository"]
    about = client.get_model_metadata("kind")
    assert [(i.name, i.datatype, list(i.shape)) for i in about.inputs][:2] == [("id", "INT64", [-1, 1]), ("at", "BYTES", [-1, 1])]
    assert [(o.name, o.datatype, list(o.shape)) for o in about.outputs][1] == ("probabilities", "FP64", [-1, 2])
    client.load_model("trip")
    client.unload_model("trip")
    found = {(m.name, m.version, m.state) for m in client.get_model_repository_index().models}
    assert found == {("trip", "7", "READY"), ("kind", "1", "READY")}
    with pytest.raises(InferenceServerException, match="from its bundle alone"):
        client.load_model("trip", config="{}")


def test_typed_contents_are_answered_with_typed_contents(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    answer = stub.ModelInfer(typed())
    assert list(answer.outputs[0].contents.fp64_contents) == [3.0, 4.5]
    assert len(answer.raw_output_contents) == 0
    words = stub.ModelInfer(typed("kind")).outputs
    assert list(words[0].contents.bytes_contents) == [b"yes", b"yes"]
    assert len(words[1].contents.fp64_contents) == 4


def test_raw_contents_beside_empty_ones_as_mlservers_client_sends_them(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    request = typed("kind")
    for tensor in request.inputs:
        tensor.contents.Clear()
        tensor.contents.SetInParent()
        assert tensor.HasField("contents")
    text = struct.pack("<I", 1) + b"a"
    request.raw_input_contents.extend([struct.pack("<2q", 1, 2), struct.pack("<2d", 2.0, 3.5), text + text])
    answer = stub.ModelInfer(request)
    assert answer.raw_output_contents[0] == (struct.pack("<I", 3) + b"yes") * 2
    assert len(answer.raw_output_contents[1]) == 32


@pytest.mark.parametrize(
    ("datatype", "field"),
    [
        ("INT8", "int_contents"), ("INT16", "int_contents"), ("INT32", "int_contents"), ("INT64", "int64_contents"),
        ("UINT8", "uint_contents"), ("UINT16", "uint_contents"), ("UINT32", "uint_contents"), ("UINT64", "uint64_contents"),
        ("FP32", "fp32_contents"), ("FP64", "fp64_contents"),
    ],
)  # fmt: skip
def test_every_number_has_its_contents(stub: service_pb2_grpc.GRPCInferenceServiceStub, datatype: str, field: str) -> None:
    request = typed()
    size = request.inputs[1]
    size.datatype = datatype
    size.ClearField("contents")
    getattr(size.contents, field).extend([2, 3])
    assert list(stub.ModelInfer(request).outputs[0].contents.fp64_contents) == [3.0, 4.0]


def changed(what: str) -> service_pb2.ModelInferRequest:
    request = typed()
    first = request.inputs[0]
    if what == "short":
        del first.contents.int64_contents[:1]
    elif what == "wrong contents":
        first.contents.bool_contents.append(True)
    elif what == "no raw type":
        first.datatype = "FP16"
    elif what == "negative":
        first.shape[:] = [-2]
    elif what == "raw count":
        request.raw_input_contents.append(b"")
    elif what == "both":
        request.raw_input_contents.extend([struct.pack("<2q", 1, 2)] * 3)
    elif what == "text":
        request.inputs[2].contents.bytes_contents[0] = b"\xff"
    elif what == "nothing":
        request.ClearField("inputs")
    elif what == "memory":
        first.parameters["shared_memory_region"].string_param = "x"
    return request


@pytest.mark.parametrize(
    "what", ["short", "wrong contents", "no raw type", "negative", "raw count", "both", "text", "nothing", "memory"]
)
def test_requests_that_lie_are_invalid(stub: service_pb2_grpc.GRPCInferenceServiceStub, what: str) -> None:
    assert refused(stub, changed(what))[0] is grpc.StatusCode.INVALID_ARGUMENT


def refused(stub: Any, request: Any, **more: Any) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, **more)
    error = caught.value
    trailing = dict(error.trailing_metadata() or ())
    return error.code(), error.details(), json.loads(trailing.get("mulle-problem-bin", b"{}"))


def test_errors_carry_the_same_words_as_http(server: Server, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    request = typed()
    request.inputs[1].contents.fp64_contents[1] = float("inf")
    code, said, problem = refused(stub, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert said == problem["detail"] == "trip@7 row 1: size is inf, expected a finite Float64"
    assert (problem["type"], problem["row"], problem["field"]) == ("https://mulle.dev/errors/schema", 1, "size")
    assert len(problem["request_id"]) == 26
    ghost = server.ask("POST", "/v1/models/ghost/predict", {"rows": [{}]}).json["detail"]
    assert refused(stub, typed("ghost"))[:2] == (grpc.StatusCode.NOT_FOUND, ghost)
    assert refused(stub, typed(model_version="99"))[0] is grpc.StatusCode.NOT_FOUND
    assert refused(stub, typed(model_version="new"))[0] is grpc.StatusCode.NOT_FOUND


def test_limits_hold(client: triton.InferenceServerClient, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("trip", inputs(51))
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    long = typed()
    long.inputs[2].contents.bytes_contents[0] = b"a" * 1001
    assert refused(stub, long)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    huge = typed()
    huge.inputs[2].contents.bytes_contents[0] = b"a" * 300_000
    code, said, _ = refused(stub, huge)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "200000" in said
    assert client.infer("trip", inputs(50)).as_numpy("value").shape == (50, 1)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), name=st.sampled_from(METHODS), cut=st.integers(0, 120))
def test_garbage_is_answered_with_a_reason(server: Server, data: bytes, name: str, cut: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.settings['grpc_port']}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/{name}")
        for message in (data, typed().SerializeToString()[:cut] + data):
            code = None
            try:
                call(message, timeout=10)
            except grpc.RpcError as error:
                code = error.code()
            assert code in {None, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def test_calls_are_counted_beside_http(server: Server, client: triton.InferenceServerClient, stub: Any) -> None:
    def counted(labels: str) -> float:
        text = server.get("/metrics").body.decode()
        return next(
            (float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"mulle_requests_total{labels}")), 0
        )

    fine, bad = '{model="trip",route="champion",status="200",version="7"}', '{model="trip",route="",status="422",version=""}'
    before = counted(fine), counted(bad)
    client.infer("trip", inputs())
    request = typed()
    request.inputs[1].contents.fp64_contents[0] = float("inf")
    refused(stub, request)
    assert (counted(fine), counted(bad)) == (before[0] + 1, before[1] + 1)


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    with (
        served(two_models(tmp_path), {"token": "s3cret"}) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.settings['grpc_port']}") as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        assert refused(stub, typed())[0] is grpc.StatusCode.UNAUTHENTICATED
        assert refused(stub, typed(), metadata=[("authorization", "Bearer no")])[0] is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError):
            stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name="trip"))
        fine = stub.ModelInfer(typed(), metadata=[("authorization", "Bearer s3cret")])
        assert fine.model_version == "7"


def gated(folder: Path, gate: Path) -> tuple[str, Path]:
    """A bundle whose feature function waits for a file."""
    _, made = bundle(folder)
    source = (made / "transform" / "project.py").read_text()
    wait = f"    import os, time\n    while not os.path.exists({str(gate)!r}):\n        time.sleep(0.005)\n    boom ="
    (made / "transform" / "project.py").write_text(source.replace("    boom =", wait, 1))
    return hash_folder(made), made


def test_a_deadline_is_honoured_and_an_end_is_graceful(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    gate = tmp_path / "gate"
    gate.touch()
    route(home, version(1, gated(tmp_path / "slow", gate)))
    # With fsync the work is done in a thread, so the event loop sees the deadline pass.
    with served(home, {"fsync": "true"}) as server, grpc.insecure_channel(f"127.0.0.1:{server.settings['grpc_port']}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(typed()).model_version == "1"
        gate.unlink()
        # It is told before the answer is there: only after this line can it be.
        assert refused(stub, typed(), timeout=0.2)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.touch()
        while "mulle_queue_rows 0.0" not in server.get("/metrics").body.decode():
            time.sleep(0.01)
        gate.unlink()
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(stub.ModelInfer(typed())))
        asking.start()
        while "mulle_queue_rows 0.0" in server.get("/metrics").body.decode():
            time.sleep(0.01)
        assert server.process is not None
        server.process.terminate()
        gate.touch()
        asking.join(10)
        assert server.process.wait(10) == 0
        assert found[0].model_version == "1"


@pytest.mark.parametrize("on", [True, False])
def test_grpc_is_loaded_only_when_its_port_is_set(tmp_path: Path, on: bool) -> None:
    probe = """
import atexit, sys
def tell():
    open("modules.txt", "w").write(" ".join(sorted({"grpc", "google.protobuf", "pandas", "mlflow"} & set(sys.modules))))
atexit.register(tell)
"""
    home = two_models(tmp_path)
    with served(home, before=probe) if on else Server(home, before=probe) as server:
        if on:
            with grpc.insecure_channel(f"127.0.0.1:{server.settings['grpc_port']}") as channel:
                assert service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(typed()).model_version == "7"
        assert server.process is not None
        assert psutil.Process(server.process.pid).memory_info().rss < 200 * 2**20
        server.process.terminate()
        server.process.wait(10)
    assert (home / "modules.txt").read_text().split() == (["google.protobuf", "grpc"] if on else [])


def test_without_the_extra_the_port_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mulle.surfaces.inference.app.find_spec", lambda name: None)
    made = load_settings({"project": str(tmp_path), "grpc_port": 1}, {})
    with pytest.raises(UsageError, match="not installed") as caught:
        create_app(Runtime(made, lambda contract: pytest.fail("no joins")), made)
    assert "mulle[grpc]" in caught.value.next


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    home = two_models(tmp_path)
    with served(home) as server, pytest.raises(AssertionError, match="the server ended"):
        Server(home, server.settings).start()
