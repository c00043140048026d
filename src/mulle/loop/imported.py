"""Models that a team has already: a version from MLflow takes the place of a search, and the run judges it like any other."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from mulle.core.declare.candidates import FILE
from mulle.core.errors import Refused
from mulle.core.hashing import hash_bytes
from mulle.core.records.base import Json
from mulle.loop.parts import Parts

__all__ = ["OPTION", "fetch_model", "instead_of_search"]

OPTION = "import"
"""The run's option that holds what `fetch_model` found."""

_FOLDER = "imports"


def fetch_model(parts: Parts, source: str) -> Json:
    """Download a version from MLflow and keep its graph below the home, under its hash.

    Parameters
    ----------
    source : str
        ``models:/name/3`` or ``models:/name@alias``.

    Returns
    -------
    dict
        ``from`` (name and version), ``file`` (relative to the home) and ``columns`` (the names that its signature gives).

    Raises
    ------
    NotFound
        When MLflow knows no such version.
    Refused
        When the version has no ONNX flavour: a pickle from a server runs whatever is in it when it is opened.
    """
    with TemporaryDirectory() as folder:
        found = parts.tracking().fetch(source, Path(folder))
        flavor = found["flavors"].get("onnx")
        if flavor is None:
            raise Refused(
                f"{source} has {', '.join(sorted(found['flavors']))}; only onnx is opened: a pickle may run anything",
                next="convert it where it was trained and log it with mlflow.onnx.log_model(..., signature=...)",
            )
        root = Path(found["folder"]).resolve()
        path = (root / str(flavor["data"])).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise Refused(f"{source} names no file of its own as its graph: {flavor['data']}", next="log it again")
        if flavor.get("save_as_external_data") and len(list(path.parent.iterdir())) > 1 and path.parent != root:
            raise Refused(f"{source} keeps its weights beside the graph", next="log it with save_as_external_data=False")
        body = path.read_bytes()
    kept = Path(_FOLDER) / f"{hash_bytes(body)}.onnx"
    _write(parts.settings.home / kept, body)
    return {"from": found["version"], "file": kept.as_posix(), "columns": found["columns"]}


def instead_of_search(home: Path, run: str, given: Json) -> Json:
    """Give what a search would have found: the settings of the imported model, fed by feature name.

    Parameters
    ----------
    home : Path
    run : str
        Its features must be there.
    given : dict
        From `fetch_model`.

    Returns
    -------
    dict
        ``trials`` (none), ``settings``, ``notes``.

    Raises
    ------
    Refused
        When a feature is not a number: the codes of categories are this model's own, the imported one cannot know them.
    BundleError
        When the graph asks for a column that is no feature.
    """
    from mulle.lifecycle.registry.adopt import adopt

    schema = pl.read_parquet_schema(home / "runs" / run / "features.parquet")
    texts = [name for name, dtype in schema.items() if not (dtype.is_numeric() or dtype == pl.Boolean)]
    if texts:
        raise Refused(
            f"{given['from']} cannot be fed: feature {texts[0]} is {schema[texts[0]]}; only numbers mean the same everywhere",
            next="turn it into numbers in the feature function, as was done for the imported model",
        )
    body = adopt(home / given["file"], given["columns"], list(schema))
    path = home / _FOLDER / f"{hash_bytes(body)}.onnx"
    _write(path, body)
    note = f"imported from {given['from']}: the rows that it was trained on are not known, so that the holdout may flatter it"
    return {"trials": [], "settings": {"candidate": "onnx:imported", "params": {FILE: str(path)}}, "notes": [note]}


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_bytes(body)
    temporary.replace(path)
