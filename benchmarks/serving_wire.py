"""How each server is spoken to: the same rows as the body that it takes, and its answer as numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

__all__ = ["WIRES", "ask", "write_bodies"]

WIRES = {
    "mulle": "/v1/models/model/predict",
    "rows": "/predict",
    "mlflow": "/invocations",
    "v2": "/v2/models/model/infer",
}
"""Paths by kind of body."""

_SECONDS = 30
_KINDS = {"FP64": "FP64", "INT64": "INT64", "BOOL": "BOOL", "BYTES": "BYTES", "TIME": "BYTES"}


def write_bodies(folder: Path, wire: str, rows: int) -> Path:
    """Write the request rows, so many a body and one body a line, as a kind of server takes them."""
    requests = json.loads((folder / "requests.json").read_text())
    inputs = json.loads((folder / "told.json").read_text())["inputs"]
    parts = [requests[i : i + rows] for i in range(0, len(requests) - rows + 1, rows)]
    path = folder / f"bodies-{wire}.jsonl"
    path.write_text("\n".join(json.dumps(_body(wire, part, inputs)) for part in parts) + "\n")
    return path


def _body(wire: str, rows: Sequence[dict[str, Any]], inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if wire == "mlflow":
        return {"dataframe_records": list(rows)}
    if wire != "v2":
        return {"rows": list(rows)}
    columns = [(f["name"], _KINDS[f["type"]]) for f in inputs]
    return {
        "inputs": [
            {"name": name, "shape": [len(rows), 1], "datatype": kind, "data": [row[name] for row in rows]}
            for name, kind in columns
        ]
    }


def ask(url: str, wire: str, body: str) -> list[float]:
    """Ask a server and give its answers, one a row.

    Raises
    ------
    OSError
        When it does not answer, or not with a success.
    """
    request = Request(url, body.encode(), {"Content-Type": "application/json"})
    # A proxy of the environment must not stand between two processes of this machine.
    with build_opener(ProxyHandler({})).open(request, timeout=_SECONDS) as answer:
        told = json.load(answer)
    if wire == "v2":
        return [float(v) for v in told["outputs"][0]["data"]]
    found = told["predictions"] if isinstance(told, dict) else told
    return [float(v["value"] if isinstance(v, dict) else v) for v in found]
