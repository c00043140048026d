"""Models that a team has already: a version from MLflow takes the place of a search, and the run judges it like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from mulle.core.declare.candidates import FILE
from mulle.core.errors import Refused
from mulle.core.hashing import hash_bytes
from mulle.core.records.base import Json
from mulle.lifecycle.registry.foreign import PICKLED
from mulle.loop.parts import Parts

__all__ = ["OPTION", "fetch_model", "instead_of_search"]

OPTION = "import"
"""The run's option that holds what `fetch_model` found."""

_FOLDER = "imports"


def fetch_model(parts: Parts, source: str, *, trust: bool = False) -> Json:
    """Get a version from MLflow and keep its model's file below the home, under its hash.

    A graph, a text of LightGBM or XGBoost and a skops file are data. A pickle may run anything when it is opened: it is taken
    only when `trust` says so, and never when it came over a network.

    Parameters
    ----------
    source : str
        ``models:/name/3`` or ``models:/name@alias``.
    trust : bool
        A person vouches for whoever logged the version.

    Returns
    -------
    dict
        ``from`` (name and version), ``file`` (relative to the home), ``form`` (``onnx``, or one of `registry.foreign.FORMS`),
        ``kind`` (the model's class), ``columns`` (the names that its signature gives) and ``trusted``.

    Raises
    ------
    NotFound
        When MLflow knows no such version.
    Refused
        When the version is a pickle that is not trusted or came over a network, or has no flavour that is known.
    """
    with TemporaryDirectory() as folder:
        found = parts.tracking().fetch(source, Path(folder))
        root = Path(found["folder"]).resolve()
        name, form, kind = _left_as(source, found["flavors"])
        if form == PICKLED:
            _refuse_pickle(source, found, trust)
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise Refused(f"{source} names no file of its own as its model: {name}", next="log it again")
        if form == "onnx":
            _refuse_scattered(source, found["flavors"]["onnx"], path, root)
        body = path.read_bytes()
    kept = Path(_FOLDER) / f"{hash_bytes(body)}.{form}"
    _write(parts.settings.home / kept, body)
    given = {"from": found["version"], "file": kept.as_posix(), "columns": found["columns"], "form": form, "kind": kind}
    return {**given, "trusted": trust and found["local"]}


def _left_as(source: str, flavors: Json) -> tuple[str, str, str]:
    """Name the file, its form and the model's class, by the flavour that is told most of."""
    if onnx := flavors.get("onnx"):
        return str(onnx["data"]), "onnx", ""
    for flavor, member in (("sklearn", "pickled_model"), ("lightgbm", "data"), ("xgboost", "data")):
        if told := flavors.get(flavor):
            name, kind = str(told.get(member)), str(told.get("model_class", ""))
            pickled = str(told.get("serialization_format", "")) in ("pickle", "cloudpickle") and flavor == "sklearn"
            form = PICKLED if pickled or name.endswith((".pkl", ".pickle")) else "skops" if name.endswith(".skops") else flavor
            return name, PICKLED if form == "sklearn" else form, kind
    if model := flavors.get("python_function", {}).get("python_model"):
        return str(model), PICKLED, ""
    raise Refused(
        f"{source} has {', '.join(sorted(flavors)) or 'no flavour'}; onnx, sklearn, lightgbm, xgboost and pyfunc are known",
        next="convert it where it was trained and log it with mlflow.onnx.log_model(..., signature=...)",
    )


def _refuse_pickle(source: str, found: Json, trust: bool) -> None:
    if not found["local"]:
        raise Refused(
            f"{source} is a pickle that came over a network, and such a one is never opened: it may run anything",
            next="log it with serialization_format='skops' or as onnx; or import it where its tracking store lies",
        )
    if not trust:
        raise Refused(
            f"{source} is a pickle, which may run anything when it is opened",
            next="say --trust if you know who logged it, or log it with serialization_format='skops' or as onnx",
        )


def _refuse_scattered(source: str, flavor: Json, path: Path, root: Path) -> None:
    if flavor.get("save_as_external_data") and len(list(path.parent.iterdir())) > 1 and path.parent != root:
        raise Refused(f"{source} keeps its weights beside the graph", next="log it with save_as_external_data=False")


def instead_of_search(home: Path, run: str, given: Json, convert: Callable[[], Json]) -> Json:
    """Give what a search would have found: the settings of the imported model, fed by feature name.

    Parameters
    ----------
    home : Path
    run : str
        Its features must be there.
    given : dict
        From `fetch_model`.
    convert : callable
        Does the task ``import`` in a child, for what is no graph yet.

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
    schema = pl.read_parquet_schema(home / "runs" / run / "features.parquet")
    texts = [name for name, dtype in schema.items() if not (dtype.is_numeric() or dtype == pl.Boolean)]
    if texts:
        raise Refused(
            f"{given['from']} cannot be fed: feature {texts[0]} is {schema[texts[0]]}; only numbers mean the same everywhere",
            next="turn it into numbers in the feature function, as was done for the imported model",
        )
    note = f"imported from {given['from']}: the rows that it was trained on are not known, so that the holdout may flatter it"
    if given.get("form", "onnx") != "onnx":
        found = convert()
        return {"trials": [], "settings": found["settings"], "notes": [note, *found["notes"]]}
    from mulle.lifecycle.registry.adopt import adopt

    body = adopt(home / given["file"], given["columns"], list(schema))
    path = home / _FOLDER / f"{hash_bytes(body)}.onnx"
    _write(path, body)
    return {"trials": [], "settings": {"candidate": "onnx:imported", "params": {FILE: str(path)}}, "notes": [note]}


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_bytes(body)
    temporary.replace(path)
