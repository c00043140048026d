"""Writing a bundle: a folder named by its content, complete or not there at all."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mulle.core.errors import BundleError
from mulle.core.hashing import hash_folder
from mulle.core.records.base import Json, to_json
from mulle.core.records.bundle import Contract
from mulle.kernel.project import code_files
from mulle.kernel.sample import Sample, sample_json
from mulle.lifecycle.registry.native import dump_native, own_modules

__all__ = ["write_bundle"]

_LOCKED = (
    "mulle",
    "polars",
    "numpy",
    "scipy",
    "scikit-learn",
    "lightgbm",
    "xgboost",
    "catboost",
    "onnx",
    "onnxruntime",
    "skl2onnx",
    "skops",
)


def write_bundle(
    folder: Path,
    *,
    contract: Contract,
    model: bytes | None,
    native: object | None,
    project_folder: Path,
    reference: Json,
    sample: Sample,
    card: str,
    estimate: Json | None = None,
) -> tuple[str, Path]:
    """Write a bundle.

    Parameters
    ----------
    folder : Path
        Where bundles lie; made when it is not there.
    contract : Contract
        Its `compiled` says which of the two models is written.
    model : bytes or None
        The compiled model.
    native : object or None
        The fitted pipeline, for what does not compile.
    project_folder : Path
        Its own Python files are the transform's snapshot.
    reference : dict
        Histograms.
    sample : Sample
        What `make_sample` gave: the transform is proved with it whenever the bundle loads.
    card : str
        Markdown.
    estimate : dict, optional
        What was learned of the model's own loss (`mulle.kernel.estimate`).

    Returns
    -------
    hash, address
        Content hash and ``folder/hash``. The same content gives the same address, however often it is written.

    Raises
    ------
    BundleError
        When the model is missing, or a compiled one has no parity proof.
    """
    _refuse_incomplete(contract, model, native)
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        _fill(made, contract, model, native, project_folder)
        _describe(made, contract, reference, sample, card)
        if estimate is not None:
            (made / "estimate.json").write_text(json.dumps(to_json(estimate), sort_keys=True) + "\n")
        made.chmod(0o755)
        name = hash_folder(made)
        _publish(made, folder / name)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return name, folder / name


def _refuse_incomplete(contract: Contract, model: bytes | None, native: object | None) -> None:
    if contract.compiled == "onnx" and (not model or contract.parity is None):
        raise BundleError(
            f"{contract.model}: a compiled bundle needs its model and its parity proof", next="prove parity before writing"
        )
    if contract.compiled == "native" and native is None:
        raise BundleError(f"{contract.model}: a native bundle needs the fitted pipeline", next="give `native`")
    if contract.compiled not in ("onnx", "native"):
        raise BundleError(f"{contract.model}: compiled is '{contract.compiled}'", next="say onnx or native")


def _fill(made: Path, contract: Contract, model: bytes | None, native: object | None, project_folder: Path) -> None:
    if contract.compiled == "onnx" and model is not None:
        (made / "model.onnx").write_bytes(model)
    else:
        (made / "model.skops").write_bytes(dump_native(native, own_modules(contract.settings)))
    for path in code_files(project_folder):
        copied = made / "transform" / path.relative_to(project_folder)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)


def _describe(made: Path, contract: Contract, reference: Json, sample: Sample, card: str) -> None:
    (made / "bundle.json").write_text(json.dumps(to_json(contract), indent=1, sort_keys=True) + "\n")
    (made / "reference.json").write_text(json.dumps(to_json(reference), sort_keys=True) + "\n")
    (made / "sample.json").write_text(json.dumps(sample_json(sample), allow_nan=False) + "\n")
    (made / "lock.txt").write_text(_lock())
    (made / "card.md").write_text(card)


def _publish(made: Path, address: Path) -> None:
    try:
        os.rename(made, address)
    except OSError:
        # Somebody wrote the same content before; a half-written folder cannot have this name.
        if not address.is_dir() or hash_folder(address) != address.name:
            raise


@lru_cache(maxsize=1)
def _lock() -> str:
    lines = [f"# python {platform.python_version()}"]
    for name in _LOCKED:
        try:
            lines.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return "\n".join(lines) + "\n"
