"""The files that make a bundle a model in MLflow's own format, so that MLflow's tools load and serve it."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version as installed
from pathlib import Path

from mulle.core.clock import rfc3339
from mulle.core.records.model import ModelVersion

__all__ = ["DATA", "LOADER", "write_model_files"]

LOADER = "mulle.surfaces.pyfunc"
"""The module whose ``_load_pyfunc(path)`` MLflow calls with the bundle's folder."""

DATA = "data"
"""Where in the model's folder the bundle lies."""


def write_model_files(folder: Path, version: ModelVersion, run_id: str) -> None:
    """Write ``MLmodel`` and the environment files that it names.

    Parameters
    ----------
    folder : Path
        The model's folder; the bundle itself belongs in its subfolder `DATA`.
    version : ModelVersion
    run_id : str
        MLflow's id of the run.
    """
    flavor = {
        "loader_module": LOADER,
        "data": DATA,
        "python_version": platform.python_version(),
        "env": {"virtualenv": "python_env.yaml"},
    }
    model = {
        "artifact_path": "bundle",
        "flavors": {"python_function": flavor},
        "mlflow_version": installed("mlflow"),
        "model_uuid": version.bundle,
        "run_id": run_id,
        "utc_time_created": rfc3339(version.created_at),
        "metadata": {"mulle.version": version.id, "mulle.number": str(version.version)},
    }
    # JSON is YAML, and needs no writer of its own.
    (folder / "requirements.txt").write_text(f"mulle=={installed('mulle')}\n")
    environment = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(json.dumps(environment, indent=2))
    (folder / "MLmodel").write_text(json.dumps(model, indent=2))
