"""MLflow's scoring protocol: its shapes, its own clients, and the statuses of its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.deployments import get_deploy_client
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from requests import HTTPError
from serving_parts import Server, bundle, route, two_models, version


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(two_models(tmp_path_factory.mktemp("mlflow")), {"max_rows": "50"}) as running:
        yield running


FRAME = pd.DataFrame({"id": [1, 2], "size": [2.0, 3.5], "kind": ["a", "b"]})
SPLIT = FRAME.to_dict(orient="split")


def ask(server: Server, body: object, kind: str = "application/json", path: str = "/v1/models/trip/invocations") -> Any:
    return server.ask("POST", path, body, headers={"content-type": kind})


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": SPLIT},
        {"dataframe_split": {k: SPLIT[k] for k in ("columns", "data")}, "params": {"temperature": 1}},
        {"dataframe_split": {"data": [[1, None, 2, "a"], [2, None, 3.5, "b"]]}},
        {"dataframe_records": FRAME.to_dict(orient="records"), "params": {}, "anything": 1},
        {"instances": FRAME.to_dict(orient="records")},
        {"instances": [[1, None, 2, "a"], [2, None, 3.5, "b"]]},
        {"inputs": FRAME.to_dict(orient="list"), "params": None},
        {"inputs": {"id": [[1], [2]], "size": [[2.0], [3.5]], "kind": [["a"], ["b"]]}},
        {"inputs": FRAME.to_dict(orient="records")},
        {"inputs": [[1, None, 2, "a"], [2, None, 3.5, "b"]]},
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8"])
def test_every_json_shape(server: Server, body: object, kind: str) -> None:
    answer = ask(server, body, kind)
    assert (answer.status, answer.json) == (200, {"predictions": [3.0, 4.5]})


@pytest.mark.parametrize("kind", ["text/csv", "text/csv; charset=utf-8", "Text/CSV ;charset=UTF-8"])
@pytest.mark.parametrize("index", [True, False])
def test_csv_as_pandas_writes_it(server: Server, kind: str, index: bool) -> None:
    assert ask(server, FRAME.to_csv(index=index).encode(), kind).json == {"predictions": [3.0, 4.5]}


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        ([], "application/json", 400),
        ({"columns": ["id"], "data": [[1]]}, "application/json", 400),
        ({"instances": [], "inputs": []}, "application/json", 400),
        ({"dataframe_split": SPLIT, "instances": [[1, None, 2, "a"]]}, "application/json", 400),
        ({"dataframe_split": {**SPLIT, "index": [0]}}, "application/json", 400),
        ({"dataframe_split": {**SPLIT, "dtypes": []}}, "application/json", 400),
        ({"dataframe_split": {"columns": ["id"]}}, "application/json", 400),
        ({"dataframe_split": [[1]]}, "application/json", 400),
        ({"dataframe_records": {"id": 1}}, "application/json", 400),
        ({"instances": [1, 2]}, "application/json", 400),
        ({"inputs": "text"}, "application/json", 400),
        (b"id,size,kind\n\xff,1,a\n", "text/csv", 400),
        (b"id,size,kind\n1,1\n", "text/csv", 400),
        (b"id,size,kind\n", "text/csv", 400),
        (b"", "text/csv", 400),
        (b"id,size,kind\n1,2,a\n", "text/csv; charset=latin-1", 415),
        (b"id,size,kind\n1,2,a\n", "text/csv; header=present", 415),
        ({"dataframe_split": SPLIT}, "application/json; charset=utf-16", 415),
        (b"PAR1", "application/vnd.apache.parquet", 415),
        (b"hello", "text/plain", 415),
        ({"dataframe_records": [{"id": 1, "size": "far", "kind": "a"}]}, "application/json", 422),
        ({"dataframe_records": [{"id": 1}]}, "application/json", 422),
        ({"dataframe_records": [{}] * 51}, "application/json", 413),
    ],
)
def test_what_is_refused_and_how(server: Server, body: object, kind: str, status: int) -> None:
    answer = ask(server, body, kind)
    assert (answer.status, answer.json["status"]) == (status, status)
    assert answer.json["message"] == answer.json["detail"]
    assert answer.json["error_code"] == "BAD_REQUEST"


def test_health_and_version_as_mlflow_has_them(server: Server) -> None:
    assert [server.get(path).status for path in ("/ping", "/health", "/version")] == [200] * 3
    assert server.get("/version").body.decode() == mlflow.__version__


def test_the_deployment_client_works_unchanged(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = get_deploy_client(f"http://127.0.0.1:{server.port}")
    assert [e.name for e in client.list_endpoints()] == ["kind", "trip"]
    found = client.get_endpoint("trip")
    assert found.endpoint_url == f"http://127.0.0.1:{server.port}/endpoints/trip/invocations"
    assert client.predict(endpoint="trip", inputs={"dataframe_split": SPLIT}) == {"predictions": [3.0, 4.5]}
    assert client.predict(endpoint="kind", inputs={"inputs": FRAME.to_dict(orient="list")}) == {"predictions": ["yes", "yes"]}
    with pytest.raises(HTTPError, match="404"):
        client.predict(endpoint="ghost", inputs={"dataframe_split": SPLIT})
    with pytest.raises(HTTPError, match="404"):
        client.get_endpoint("ghost")
    with pytest.raises(HTTPError, match="422"):
        client.predict(endpoint="trip", inputs={"dataframe_records": [{"id": 1}]})


def test_kserves_first_protocol(server: Server) -> None:
    body = {"instances": FRAME.to_dict(orient="records")}
    assert ask(server, body, path="/v1/models/trip:predict").json == {"predictions": [3.0, 4.5]}
    assert server.get("/v1/models/trip").json["ready"] is True
    assert ask(server, body, path="/v1/models/ghost:predict").status == 404


def test_several_models_have_no_common_door(server: Server) -> None:
    answer = ask(server, {"dataframe_split": SPLIT}, path="/invocations")
    assert (answer.status, answer.json["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert "2 models" in answer.json["detail"]


def test_one_model_alone_answers_where_mlflows_server_does(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    route(home, version(1, bundle(tmp_path / "b", offset=1.0)))
    with Server(home) as server:
        client = ScoringServerClient("127.0.0.1", server.port)
        client.wait_server_ready(timeout=10)
        assert client.get_version() == mlflow.__version__
        assert client.invoke(FRAME).get_predictions()[0].tolist() == [3.0, 4.5]
        metrics = server.get("/metrics").body.decode()
        assert 'mulle_requests_total{model="trip",route="champion",status="200",version="1"} 1.0' in metrics
