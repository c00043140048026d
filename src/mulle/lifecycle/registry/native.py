"""A fitted pipeline that did not compile, written and read without pickle."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from mulle.core.declare.candidates import FACTORY
from mulle.core.errors import BundleError
from mulle.core.records.base import Json
from mulle.kernel.bundle import read_contract
from mulle.kernel.fitted import Estimator
from mulle.kernel.project import load_project

__all__ = ["dump_native", "load_native", "open_native", "own_modules"]

_ID = re.compile(r'"__id__": (\d+)')
_FILE = re.compile(r'"file": "([^"]+)"')
_OURS = (
    "sklearn.",
    "lightgbm.",
    "numpy.",
    "scipy.",
    "collections.",
    "builtins.",
    "mulle.lifecycle.training.",
    "skl2onnx.sklapi.",
    "xgboost.",
    "catboost.",
)
_PROJECT = "mulle_project_"


def dump_native(fitted: object, own: Sequence[str] = ()) -> bytes:
    """Write a fitted pipeline without pickle (skops); the same pipeline gives the same bytes.

    Parameters
    ----------
    fitted : object
    own : sequence of str
        As for `load_native`: what could not be read again is not written.

    Raises
    ------
    BundleError
        When the pipeline cannot be written this way, or not be read again.
    """
    from skops.io import dumps, get_untrusted_types

    try:
        written = bytes(dumps(fitted))
        asked = get_untrusted_types(data=written)
    except Exception as error:  # an estimator may hold anything
        raise BundleError(
            f"the fitted model cannot be written without pickle: {type(error).__name__}: {error}",
            next="take an estimator that skops writes, or one that compiles",
        ) from error
    _refuse_strange(asked, own, "the fitted model")
    return _steady(written)


def _refuse_strange(asked: Sequence[str], own: Sequence[str], what: str) -> None:
    allowed = (*_OURS, *(f"{name}." for name in own))
    strange = [name for name in asked if not name.startswith(allowed)]
    if strange:
        raise BundleError(
            f"{what} asks for {', '.join(strange[:5])}, and only models made by Mulle are loaded",
            next="register the model again; of ml.custom, the factory must be the estimator's own class",
        )


def _steady(archive: bytes) -> bytes:
    # skops numbers objects and names files by memory address and dates them: the bundle's hash would never repeat.
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as sink:
        schema = source.read("schema.json").decode()
        numbers: dict[str, int] = {}
        schema = _ID.sub(lambda m: f'"__id__": {numbers.setdefault(m[1], len(numbers))}', schema)
        names: dict[str, str] = {}
        schema = _FILE.sub(lambda m: f'"file": "{names.setdefault(m[1], _plain(m[1], len(names)))}"', schema)
        for old, new in {**names, "schema.json": "schema.json"}.items():
            body = schema.encode() if old == "schema.json" else source.read(old)
            sink.writestr(zipfile.ZipInfo(new), body, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def _plain(name: str, number: int) -> str:
    return f"{number}{Path(name).suffix}"


def load_native(path: Path, own: Sequence[str] = ()) -> Estimator:
    """Read a fitted pipeline; only types of scikit-learn, LightGBM, NumPy, SciPy and ours are built.

    Parameters
    ----------
    path : Path
    own : sequence of str
        Modules that the bundle's candidates of the user's own come from: their types are built too.

    Raises
    ------
    BundleError
        When the file asks for another type.
    """
    from skops.io import get_untrusted_types, load

    asked = get_untrusted_types(file=path)
    _refuse_strange(asked, own, path.name)
    return cast(Estimator, load(path, trusted=asked))


def open_native(folder: Path) -> Estimator:
    """Read the fitted pipeline of a bundle, and before it the project's snapshot where the estimator stands in it."""
    own = own_modules(read_contract(folder).settings)
    if any(name.startswith(_PROJECT) for name in own):
        load_project(folder / "transform")
    return load_native(folder / "model.skops", own)


def own_modules(settings: Json) -> list[str]:
    """Name the modules of the factories that settings name, those of an ensemble's members too."""
    every = [settings, *settings.get("members", ())]
    addresses = [str(s.get("params", {}).get(FACTORY, "")) for s in every]
    return sorted({address.partition(":")[0].partition(".")[0] for address in addresses if address})
