"""The Open Inference Protocol over HTTP, asked by Triton's own client and with bytes made by hand."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from serving_parts import Answered, Server, row, two_models
from tritonclient.utils import InferenceServerException

SPLIT = "inference-header-content-length"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(two_models(tmp_path_factory.mktemp("v2")), {"max_body": "200000", "max_text": "1000"}) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield made
    made.close()


def inputs(*, binary: bool, flat: bool = False, rows: int = 2) -> list[triton.InferInput]:
    columns = {
        "id": np.arange(1, rows + 1, dtype=np.int64),
        "at": np.array(["2013-03-01T10:00:00Z"] * rows, dtype=object),
        "size": np.linspace(2.0, 3.5, rows).astype(np.float32),
        "kind": np.array(["a", "bé"][:rows], dtype=object),
    }
    made = []
    for name, values in columns.items():
        shaped = values if flat else values.reshape(-1, 1)
        datatype = {"i": "INT64", "f": "FP32", "O": "BYTES"}[values.dtype.kind]
        made.append(triton.InferInput(name, list(shaped.shape), datatype).set_data_from_numpy(shaped, binary_data=binary))
    return made


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("flat", [True, False])
def test_tritons_client_infers(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool | None, flat: bool
) -> None:
    asked = None if binary_out is None else [triton.InferRequestedOutput("value", binary_data=binary_out)]
    found = client.infer("trip", inputs(binary=binary_in, flat=flat), outputs=asked, request_id="mine")
    assert found.as_numpy("value").tolist() == [[3.0], [4.5]]
    assert found.as_numpy("value").dtype == np.float64
    answer = found.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("mine", "trip", "7")
    assert len(answer["parameters"]["prediction_ids"]) == 2


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_gets_classes_and_probabilities(client: triton.InferenceServerClient, binary: bool) -> None:
    asked = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("value", "probabilities")]
    found = client.infer("kind", inputs(binary=binary), outputs=asked)
    words = [w.decode() if isinstance(w, bytes) else w for w in found.as_numpy("value").ravel()]
    assert words == ["yes", "yes"]
    assert found.as_numpy("probabilities").shape == (2, 2)
    assert found.as_numpy("probabilities").sum(axis=1) == pytest.approx([1.0, 1.0])


def test_only_the_outputs_asked_for_come(client: triton.InferenceServerClient) -> None:
    found = client.infer("kind", inputs(binary=True), outputs=[triton.InferRequestedOutput("probabilities")])
    assert [o["name"] for o in found.get_response()["outputs"]] == ["probabilities"]
    with pytest.raises(InferenceServerException, match="no output 'speed'"):
        client.infer("kind", inputs(binary=True), outputs=[triton.InferRequestedOutput("speed")])


def test_tritons_client_names_a_version(client: triton.InferenceServerClient) -> None:
    found = client.infer("trip", inputs(binary=True, rows=1), model_version="6")
    assert (found.get_response()["model_version"], found.as_numpy("value").item()) == ("6", 2.0)
    with pytest.raises(InferenceServerException, match="no version 99 of trip"):
        client.infer("trip", inputs(binary=True, rows=1), model_version="99")


def test_tritons_client_asks_about_server_and_models(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("trip")
    assert client.is_model_ready("trip", "6")
    assert not client.is_model_ready("ghost")
    assert set(client.get_server_metadata()["extensions"]) == {"binary_tensor_data", "model_repository"}
    about = client.get_model_metadata("kind")
    assert [o["datatype"] for o in about["outputs"]] == ["BYTES", "FP64"]
    assert about["outputs"][1]["shape"] == [-1, 2]


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_tritons_client_packs_its_request(client: triton.InferenceServerClient, how: str) -> None:
    found = client.infer("trip", inputs(binary=True), request_compression_algorithm=how)
    assert found.as_numpy("value").tolist() == [[3.0], [4.5]]


def test_tritons_client_reads_the_error(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("trip", inputs(binary=True)[:2])
    assert caught.value.status() == "422"
    assert "size is missing and required" in caught.value.message()


def test_the_repository_is_listed_and_old_versions_are_let_go(client: triton.InferenceServerClient) -> None:
    client.infer("trip", inputs(binary=True), model_version="6")
    ready = {(m["name"], m["version"]): m["state"] for m in client.get_model_repository_index()}
    assert ready == {("trip", "6"): "READY", ("trip", "7"): "READY", ("kind", "1"): "READY"}
    client.unload_model("trip")
    assert ("trip", "6") not in {(m["name"], m["version"]) for m in client.get_model_repository_index()}
    assert client.is_model_ready("trip")
    client.load_model("trip")
    assert client.infer("trip", inputs(binary=True), model_version="6").as_numpy("value").tolist() == [[2.0], [3.5]]
    for ask in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="ghost"):
            ask("ghost")
    with pytest.raises(InferenceServerException, match="from its bundle alone"):
        client.load_model("trip", config="{}")


def test_unloading_tells_what_stays(server: Server) -> None:
    server.ask("POST", "/v2/models/trip/versions/6/infer", json_request())
    answer = server.ask("POST", "/v2/repository/models/trip/unload", {}).json
    assert (answer["unloaded"], answer["kept"]) == ([6], [7])
    assert server.ask("POST", "/v2/repository/models/trip/unload", b"").json["unloaded"] == []
    only = server.ask("POST", "/v2/repository/index", {"ready": True}).json
    assert {m["state"] for m in only} == {"READY"}


def json_request(**more: object) -> dict[str, object]:
    return {"inputs": [
        {"name": "id", "datatype": "INT64", "shape": [1], "data": [1]},
        {"name": "size", "datatype": "FP64", "shape": [1], "data": [2]},
        {"name": "kind", "datatype": "BYTES", "shape": [1], "data": ["a"]},
    ], **more}  # fmt: skip


def binary_request(server: Server, tensors: list[dict[str, object]], tail: bytes, *, told: str = "", **more: object) -> Answered:
    head = json.dumps({"inputs": tensors, **more}).encode()
    return server.ask("POST", "/v2/models/trip/infer", head + tail, headers={
        SPLIT: told or str(len(head)), "content-type": "application/octet-stream",
    })  # fmt: skip


def tensor(name: str, datatype: str, size: object, shape: object = (1, 1)) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


NUMBERS = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_number_may_be_binary(server: Server, datatype: str) -> None:
    id, size = struct.pack("<q", 5), struct.pack(f"<{NUMBERS[datatype]}", 3)
    tail = id + size + struct.pack("<I", 1) + b"a"
    tensors = [tensor("id", "INT64", 8), tensor("size", datatype, len(size)), tensor("kind", "BYTES", 5)]
    answer = binary_request(server, tensors, tail).json
    assert answer["outputs"][0]["data"] == [4.0]


def test_binary_and_json_tensors_mix_and_nan_is_missing(server: Server) -> None:
    tensors = [
        {"name": "id", "datatype": "INT64", "shape": [2, 1], "data": [[1], [2]]},
        tensor("size", "FP64", 16, [2]),
        {"name": "kind", "datatype": "BYTES", "shape": [2], "data": ["a", None]},
    ]
    answer = binary_request(server, tensors, struct.pack("<2d", 1.5, float("nan")), parameters={"binary_data_output": True})
    assert answer.status == 200
    cut = int(answer.headers[SPLIT])
    assert json.loads(answer.body[:cut])["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert struct.unpack("<2d", answer.body[cut:])[0] == 2.5


@pytest.mark.parametrize(
    ("tensors", "tail", "told", "said"),
    [
        ([tensor("id", "INT64", 7)], b"1234567", "", "no whole number of INT64"),
        ([tensor("id", "INT64", 8)], b"1234567", "", "claims 8 of 7"),
        ([tensor("id", "INT64", 8)], b"123456789", "", "9 bytes follow"),
        ([tensor("id", "INT64", -8)], b"12345678", "", "claims -8"),
        ([tensor("id", "INT64", 10**30)], b"12345678", "", "claims 1e+30"),
        ([tensor("id", "INT64", "8")], b"12345678", "", "claims 8"),
        ([tensor("id", "INT64", True)], b"1", "", "claims True"),
        ([tensor("id", "INT64", 8, [2])], b"12345678", "", "shape [2] and 1 values"),
        ([tensor("id", "INT64", 8, [10**18, 10**18])], b"12345678", "", "and 1 values"),
        ([tensor("id", "INT64", 8, [1, 1, 1])], b"12345678", "", "use [n]"),
        ([tensor("id", "INT64", 8, [True])], b"12345678", "", "use [n]"),
        ([tensor("id", "COMPLEX", 8)], b"12345678", "", "datatype 'COMPLEX'"),
        ([tensor("id", "BF16", 2)], b"12", "", "datatype 'BF16'"),
        ([tensor("kind", "BYTES", 3)], b"\x01\x00\x00", "", "ends within a text"),
        ([tensor("kind", "BYTES", 5)], b"\x02\x00\x00\x00a", "", "ends within a text"),
        ([tensor("kind", "BYTES", 5)], b"\xff\xff\xff\xffa", "", "ends within a text"),
        ([tensor("kind", "BYTES", 5)], b"\x01\x00\x00\x00\xff", "", "not UTF-8"),
        ([{**tensor("id", "INT64", 8), "data": [1]}], b"12345678", "", "and no data"),
        ([tensor("id", "INT64", 8)], b"12345678", "99999", "Inference-Header-Content-Length"),
        ([tensor("id", "INT64", 8)], b"12345678", "-1", "Inference-Header-Content-Length"),
        ([tensor("id", "INT64", 8)], b"12345678", "9" * 5000, "Inference-Header-Content-Length"),
        ([tensor("id", "INT64", 8)], b"12345678", "1e3", "Inference-Header-Content-Length"),
        ([tensor("id", "INT64", 8)], b"12345678", "0", "not JSON"),
        ([tensor("id", "INT64", 8), tensor("id", "INT64", 8)], b"1234567812345678", "", "the same name"),
        ([{"name": "id", "shape": [1], "datatype": "INT64", "parameters": 3}], b"", "", "not an object"),
        ([{"name": "id", "shape": [1], "datatype": "INT64", "parameters": {"shared_memory_region": "x"}}], b"", "", "not spoken"),
    ],
)  # fmt: skip
def test_binary_tensors_that_lie_are_refused(
    server: Server, tensors: list[dict[str, object]], tail: bytes, told: str, said: str
) -> None:
    answer = binary_request(server, tensors, tail, told=told)
    assert (answer.status, answer.json["error"]) == (400, answer.json["detail"])
    assert said in answer.json["detail"] + answer.json["next"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"id": 3}, "id is not text"),
        ({"outputs": 3}, "outputs is not"),
        ({"outputs": [{"name": 3}]}, "outputs is not"),
        ({"outputs": [{"name": "value", "parameters": {"classification": 2}}]}, "classification is not spoken"),
        ({"outputs": [{"name": "pace"}]}, "no output 'pace'"),
        ({"parameters": []}, "parameters"),
    ],
)
def test_a_request_with_odd_words_is_refused(server: Server, more: dict[str, object], said: str) -> None:
    answer = server.ask("POST", "/v2/models/trip/infer", json_request(**more))
    assert answer.status == 400
    assert said in answer.json["error"]
    assert server.ask("POST", "/v2/models/trip/infer", json_request(parameters={"mine": 1}, outputs=[])).status == 200


def test_a_packed_body_is_unpacked_within_the_limit(server: Server) -> None:
    body = json.dumps({"rows": [row()]}).encode()
    ask = "/v1/models/trip/predict"
    packed = {"content-encoding": "gzip"}
    assert server.ask("POST", ask, gzip.compress(body), headers=packed).status == 200
    assert server.ask("POST", ask, gzip.compress(b" " * 50_000_000), headers=packed).status == 413
    assert server.ask("POST", ask, gzip.compress(body)[:-12], headers=packed).status == 400
    assert server.ask("POST", ask, body, headers=packed).status == 400
    assert server.ask("POST", ask, body, headers={"content-encoding": "br"}).status == 415


def test_a_text_above_its_limit_is_refused_and_named(server: Server) -> None:
    answer = server.predict(row(kind="a" * 1001))
    assert (answer.status, answer.json["field"], answer.json["row"]) == (413, "kind", 0)
    assert server.predict(row(kind="a" * 1000)).status == 200


def test_the_request_that_mlservers_pandas_codec_makes(server: Server) -> None:
    body = (
        b'{"parameters":{"content_type":"pd"},"inputs":['
        b'{"name":"id","shape":[2,1],"datatype":"INT64","data":[1,2]},'
        b'{"name":"size","shape":[2,1],"datatype":"FP64","parameters":{"content_type":"np"},"data":[2.0,null]},'
        b'{"name":"at","shape":[2,1],"datatype":"BYTES","parameters":{"content_type":"datetime"},'
        b'"data":["2013-03-01T00:00:00","2013-03-01T00:00:00"]},'
        b'{"name":"kind","shape":[2,1],"datatype":"BYTES","parameters":{"content_type":"str"},"data":["a","b"]}]}'
    )
    answer = server.ask("POST", "/v2/models/trip/infer", body).json
    assert answer["outputs"] == [{"name": "value", "datatype": "FP64", "shape": [2, 1], "data": [3.0, None]}]


def test_the_request_that_kserves_client_makes(server: Server) -> None:
    head = (
        b'{"id":"k1","inputs":['
        b'{"name":"id","shape":[2,1],"datatype":"INT64","parameters":{"binary_data_size":16}},'
        b'{"name":"size","shape":[2,1],"datatype":"FP32","parameters":{"binary_data_size":8}},'
        b'{"name":"kind","shape":[2,1],"datatype":"BYTES","parameters":{"binary_data_size":10}}]}'
    )
    tail = struct.pack("<2q", 1, 2) + struct.pack("<2f", 2.0, 3.5) + b"\x01\0\0\0a\x01\0\0\0b"
    headers = {SPLIT: str(len(head)), "content-type": "application/octet-stream"}
    answer = server.ask("POST", "/v2/models/trip/infer", head + tail, headers=headers).json
    assert (answer["id"], answer["outputs"][0]["data"]) == ("k1", [3.0, 4.5])
