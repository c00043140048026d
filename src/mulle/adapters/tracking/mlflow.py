"""Tracking on MLflow: runs, trials and versions projected to where the ecosystem's own client and UI look for them.

MLflow takes seconds to import and to make its first database, so both happen at first use, or early by `prepare`.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from mulle.adapters.tracking.figures import (
    Figure,
    dataset_input,
    gate_tags,
    log_figures,
    run_params,
    trial_figures,
    trial_params,
    trial_tags,
    write_pages,
)
from mulle.adapters.tracking.open import open_client, open_experiment
from mulle.adapters.tracking.pyfunc_model import DATA, write_model_files
from mulle.core.errors import MulleError, NotFound, Unavailable, UsageError
from mulle.core.records.base import Json
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import GateResult, Run, Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

__all__ = ["MlflowTracking", "tracking_name"]

_STATUS = {"failed": "FAILED", "pruned": "KILLED", "killed": "KILLED"}
_PARENT = "mlflow.parentRunId"
_FOLDER, _PAGES = "bundle", "figures"


def tracking_name(model: str) -> str:
    """Return the name of a model in MLflow, which takes neither ``/`` nor ``:``.

    Examples
    --------
    >>> tracking_name("air-time/UA")
    'air-time.UA'
    """
    return re.sub(r"[/:]", ".", model)


class MlflowTracking:
    """Meets `mulle.core.ports.tracking.Tracking`.

    Parameters
    ----------
    uri : str
        ``sqlite:///path`` or an MLflow server's address.
    artifacts : Path
        Folder for artifacts; a server keeps them where it was told to.
    experiment : str
    """

    def __init__(self, uri: str, artifacts: Path, experiment: str = "mulle") -> None:
        self._uri = uri
        self._artifacts = artifacts
        self._experiment = experiment
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._opened: tuple[MlflowClient, str] | None = None

    def prepare(self, run: Run | None = None, trials: Sequence[Trial] = ()) -> None:
        """Start to open MLflow, and to write a run's trials, in the background; see the port.

        A call that needs MLflow, or writes that run, meanwhile waits.
        """
        threading.Thread(target=self._quietly, args=(run, trials), name="mulle-tracking", daemon=True).start()

    def log_run(
        self,
        run: Run,
        trials: Sequence[Trial],
        metrics: Mapping[str, float],
        gates: Sequence[GateResult],
        tags: Mapping[str, str],
        *,
        data: Sequence[DatasetVersion] = (),
        files: Path | None = None,
        pages: Mapping[str, Mapping[str, Json]] | None = None,
    ) -> str:
        """Write a parent run with a child run per trial; see the port.

        Times are the record's own, so that a run repeated by replay or after a crash is the same run.
        """
        with self._writing, self._session() as (client, experiment):
            start = int(run.created_at.timestamp() * 1000)
            parent = _log_trials(client, experiment, run, trials, start)
            parent_id = str(parent.info.run_id)
            figures = [Figure(name, value) for name, value in metrics.items()]
            log_figures(client, parent_id, start, figures, run_params(run), {**tags, **gate_tags(gates)})
            if data:
                client.log_inputs(parent_id, datasets=[dataset_input(version) for version in data])
            if files is not None:
                client.log_artifacts(parent_id, str(files))
            if pages:
                with TemporaryDirectory() as folder:
                    write_pages(Path(folder), pages)
                    client.log_artifacts(parent_id, folder, _PAGES)
            if parent.info.status == "RUNNING":
                end = start + int(1000 * sum(trial.seconds for trial in trials))
                client.set_terminated(parent_id, end_time=end)
        return parent_id

    def register(self, version: ModelVersion, bundle: Path, run_id: str) -> dict[str, str]:
        """Log the bundle as a model of the run and register it as a version; see the port."""
        name = tracking_name(version.model)
        with self._session() as (client, _):
            own = f"name = '{name}' and tags.`mulle.version` = '{version.id}'"
            known = client.search_model_versions(own, max_results=1)
            if known:
                return {"run_id": str(known[0].run_id), "name": name, "version": str(known[0].version)}
            _ensure_model(client, name)
            with TemporaryDirectory() as folder:
                write_model_files(Path(folder), version, run_id)
                client.log_artifacts(run_id, str(bundle), f"{_FOLDER}/{DATA}")
                client.log_artifacts(run_id, folder, _FOLDER)
            source = f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
            tags = {"mulle.version": version.id, "mulle.number": str(version.version), "mulle.bundle": version.bundle}
            made = client.create_model_version(name, source=source, run_id=run_id, tags=tags)
        return {"run_id": run_id, "name": name, "version": str(made.version)}

    def alias(self, model: str, alias: str, version: str | None) -> None:
        """Point an alias at a tracking version; None removes it.

        Raises
        ------
        NotFound
            When the model or the version is unknown there.
        """
        name = tracking_name(model)
        with self._session() as (client, _):
            if version is not None:
                client.set_registered_model_alias(name, alias, version)
            elif alias in _aliases(client, name):
                client.delete_registered_model_alias(name, alias)

    def aliases(self, model: str) -> dict[str, str]:
        """Return alias to tracking version; empty when the model is unknown there."""
        with self._session() as (client, _):
            return _aliases(client, tracking_name(model))

    def fetch(self, source: str, folder: Path) -> Json:
        """Download a registered model version; see the port."""
        asked = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@(.+))", source)
        if asked is None:
            raise UsageError(f"'{source}' names no model version", next="write models:/NAME/3 or models:/NAME@champion")
        name, number, alias = asked.groups()
        with self._session() as (client, _):
            from mlflow.artifacts import download_artifacts
            from mlflow.models import Model

            number = number or _aliases(client, name).get(alias)
            if number is None:
                raise NotFound(f"MLflow at {self._uri} has no {source}", next="see the model's page in MLflow's UI")
            address = client.get_model_version_download_uri(name, number)
            found = download_artifacts(artifact_uri=address, dst_path=str(folder), tracking_uri=self._uri)
            model = Model.load(found)
        columns = [] if model.signature is None or model.signature.inputs is None else model.signature.inputs.input_names()
        named = [str(column) for column in columns if column is not None]
        version = f"models:/{name}/{number}"
        return {"folder": found, "version": version, "flavors": model.flavors, "columns": named, "local": self._near(address)}

    def held(self) -> dict[str, int]:
        """Return the bytes of each run of ours; see the port."""
        with self._session() as (client, experiment):
            found = _paged(client, experiment, "tags.`mulle.run` LIKE '%'")
            return {str(run.data.tags["mulle.run"]): _size(self._folder(run)) for run in found}

    def remove(self, run: str) -> None:
        """Remove a run of ours with its trials and files; see the port."""
        with self._session() as (client, experiment):
            parent = _found(client, experiment, "mulle.run", run)
            if parent is not None:
                for one in (*_children(client, experiment, str(parent.info.run_id)).values(), parent):
                    _remove(client, one, self._folder(one))

    def address(self) -> str:
        """Return the tracking URI."""
        return self._uri

    def _folder(self, run: MlflowRun) -> Path | None:
        address = str(run.info.artifact_uri)
        return Path(unquote(urlparse(address).path)) if self._near(address) else None

    def _near(self, address: str) -> bool:
        # A database on another machine may name any path, also one that somebody could write to here.
        return self._uri.startswith(("sqlite:", "file:", "/")) and urlparse(address).scheme in ("", "file")

    def _open(self) -> tuple[MlflowClient, str]:
        with self._lock:
            if self._opened is None:
                client = open_client(self._uri)
                remote = self._uri.startswith(("http://", "https://"))
                location = None if remote else self._artifacts.absolute().as_uri()
                self._opened = (client, open_experiment(client, self._experiment, location))
            return self._opened

    def _quietly(self, run: Run | None, trials: Sequence[Trial]) -> None:
        try:
            client, experiment = self._open()
            if run is not None:
                with self._writing:
                    _log_trials(client, experiment, run, trials, int(run.created_at.timestamp() * 1000))
        except Exception:
            # The call that needs MLflow opens it again, writes what is missing, and tells why it cannot.
            return

    @contextmanager
    def _session(self) -> Iterator[tuple[MlflowClient, str]]:
        try:
            yield self._open()
        except MulleError:
            raise
        except Exception as error:
            if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                raise NotFound(f"MLflow at {self._uri}: {error}", next="see the model's page in MLflow's UI") from error
            raise Unavailable(
                f"MLflow at {self._uri} did not take it: {error}",
                next="see that it is reachable, its disk has room, then try again",
            ) from error


def _found(client: MlflowClient, experiment: str, tag: str, value: str) -> MlflowRun | None:
    found = client.search_runs([experiment], f"tags.`{tag}` = '{value}'", max_results=1)
    return found[0] if found else None


def _children(client: MlflowClient, experiment: str, parent: str) -> dict[str, MlflowRun]:
    found = _paged(client, experiment, f"tags.`{_PARENT}` = '{parent}'")
    return {child.data.tags.get("mulle.trial", ""): child for child in found}


def _paged(client: MlflowClient, experiment: str, wanted: str) -> Iterator[MlflowRun]:
    token = None
    while True:
        page = client.search_runs([experiment], wanted, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _size(folder: Path | None) -> int:
    return 0 if folder is None else sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _remove(client: MlflowClient, run: MlflowRun, folder: Path | None) -> None:
    client.delete_run(run.info.run_id)
    if folder is not None:
        shutil.rmtree(folder.parent if folder.name == "artifacts" else folder, ignore_errors=True)
        # As `mlflow gc` does: a run that is only marked as deleted keeps its rows.
        client._tracking_client.store._hard_delete_run(run.info.run_id)


def _trial_tag(trial: Trial) -> str:
    return f"{trial.run}/{trial.number}"


def _log_trials(client: MlflowClient, experiment: str, run: Run, trials: Sequence[Trial], start: int) -> MlflowRun:
    """Write the parent run and a child for each trial, where they are not there yet; give the parent."""
    parent = _found(client, experiment, "mulle.run", run.id)
    if parent is None:
        names = {"mulle.run": run.id, "mulle.model": run.model}
        parent = client.create_run(experiment, start_time=start, tags=names, run_name=f"{run.model} {run.id}")
    parent_id = str(parent.info.run_id)
    done = _children(client, experiment, parent_id)
    for trial in trials:
        _log_trial(client, experiment, parent_id, trial, start, done.get(_trial_tag(trial)))
    return parent


def _log_trial(client: MlflowClient, experiment: str, parent: str, trial: Trial, start: int, child: MlflowRun | None) -> None:
    if child is None:
        tags = {_PARENT: parent, "mulle.trial": _trial_tag(trial), **trial_tags(trial)}
        name = f"{trial.number:03d} {trial.candidate}"
        child = client.create_run(experiment, start_time=start, tags=tags, run_name=name)
    if child.info.status != "RUNNING":
        return
    log_figures(client, child.info.run_id, start, trial_figures(trial), trial_params(trial), {})
    # The end comes last: a child that still runs is one that a crash left unfinished.
    client.set_terminated(child.info.run_id, _STATUS.get(trial.state, "FINISHED"), start + int(1000 * trial.seconds))


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags={"mulle.model": name})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
