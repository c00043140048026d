"""The records' store, split by aggregate.

Every ``add`` writes a record that is never edited and is idempotent by the record's id: adding it again changes
nothing. Listings are newest first unless they say otherwise; ``limit`` bounds them and ``after`` (an id) pages on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mulle.core.ports.alerts import Outbox
from mulle.core.records.base import Json
from mulle.core.records.dataset import Audit, DatasetVersion, Erasure, Quarantine, Tag
from mulle.core.records.deployment import Deployment
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import GateResult, Member, Run, RunEvent, Trial
from mulle.core.records.window import Alert, AlertEvent, Window

__all__ = ["Alerts", "Claim", "Datasets", "Deployments", "Metadata", "Models", "Queue", "Runs", "Windows"]


class Datasets(Protocol):
    """Published versions, quarantined batches and tags."""

    def add(self, version: DatasetVersion) -> DatasetVersion:
        """Add a published version; its number must be the next one, else `Conflict`."""
        ...

    def get(self, dataset: str, version: int | None = None) -> DatasetVersion | None:
        """Return one version (default: the last), or None."""
        ...

    def versions(self, dataset: str, limit: int = 100, after: int | None = None) -> Sequence[DatasetVersion]:
        """List versions, newest first; `after` is a version number to continue below."""
        ...

    def names(self) -> Sequence[str]:
        """List the datasets that have a version, sorted."""
        ...

    def add_quarantine(self, batch: Quarantine) -> None:
        """Add the record of a batch that was turned away."""
        ...

    def quarantines(self, dataset: str | None = None, limit: int = 100) -> Sequence[Quarantine]:
        """List quarantined batches, newest first."""
        ...

    def add_audit(self, audit: Audit) -> None:
        """Add the results of checks that were run without publishing."""
        ...

    def audits(self, dataset: str, limit: int = 100) -> Sequence[Audit]:
        """List a dataset's audits, newest first."""
        ...

    def add_erasure(self, erasure: Erasure) -> None:
        """Add the record of an erasure."""
        ...

    def erasures(self, dataset: str | None = None, limit: int = 100) -> Sequence[Erasure]:
        """List erasures, newest first."""
        ...

    def redact(self, dataset: str, unwanted: Callable[[Json], bool]) -> int:
        """Drop the samples that an erasure names from every kept check result of a dataset; return how many."""
        ...

    def tag(self, tag: Tag) -> None:
        """Name a version; the newest tag of a name wins."""
        ...

    def tags(self, dataset: str) -> Sequence[Tag]:
        """List a dataset's tags in force."""
        ...


class Runs(Protocol):
    """Runs, their events, trials and gate results."""

    def add(self, run: Run) -> None:
        """Add a run."""
        ...

    def get(self, run: str) -> Run | None:
        """Return a run, or None."""
        ...

    def list(
        self, model: str | None = None, limit: int = 100, after: str | None = None, state: str | None = None
    ) -> Sequence[Run]:
        """List runs, newest first, of one model or all, in one present state or any."""
        ...

    def add_events(self, *events: RunEvent) -> None:
        """Append events, in one transaction."""
        ...

    def events(self, run: str) -> Sequence[RunEvent]:
        """List a run's events, oldest first."""
        ...

    def states(self, runs: Sequence[str]) -> dict[str, str]:
        """Return the present state of each of the runs, in one query."""
        ...

    def add_trials(self, trials: Sequence[Trial]) -> None:
        """Add trials; idempotent by run and number."""
        ...

    def trials(self, run: str) -> Sequence[Trial]:
        """List a run's trials by number."""
        ...

    def add_gates(self, run: str, gates: Sequence[GateResult]) -> None:
        """Add gate results, of the run's model and of members, in one transaction; idempotent by run, model and gate."""
        ...

    def gates(self, run: str, model: str = "") -> Sequence[GateResult]:
        """List a run's gate results in the order they were judged: those of its own model, or of one member."""
        ...

    def add_members(self, members: Sequence[Member]) -> None:
        """Add what runs did with members, in one transaction; idempotent by run and model."""
        ...

    def members(self, run: str) -> Sequence[Member]:
        """List what a run did with each member, in the order of writing."""
        ...

    def last_members(self, fleet: str) -> Sequence[Member]:
        """List what was last done with each member of a fleet, sorted by name."""
        ...


class Models(Protocol):
    """Registered model versions."""

    def add(self, version: ModelVersion) -> ModelVersion:
        """Add a version and give it the model's next number (whatever number it carries).

        Idempotent by run and model: a run that registered before gets its version back unchanged.
        """
        ...

    def add_many(self, versions: Sequence[ModelVersion]) -> Sequence[ModelVersion]:
        """Add versions of as many models in one transaction, numbered as by `add`; returns them in the order given."""
        ...

    def get(self, model: str, version: int) -> ModelVersion | None:
        """Return a version, or None."""
        ...

    def of_run(self, run: str) -> ModelVersion | None:
        """Return the version that a run made of its own model (not of a member), or None."""
        ...

    def many(self, versions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], ModelVersion]:
        """Return those of the versions that there are, in few queries."""
        ...

    def bundles(self, versions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], tuple[str, str]]:
        """Return the bundle's hash and address of each of the versions that there are, in few queries."""
        ...

    def set_tracking(self, id: str, tracking: dict[str, str]) -> None:
        """Fill in MLflow's ids of a version: the one late-bound projection; once set it stays."""
        ...

    def list(
        self, model: str | None = None, limit: int = 100, after: str | None = None, *, members: bool = False
    ) -> Sequence[ModelVersion]:
        """List versions, newest first, of one model or of all; without a model, those of fleets' members only with `members`."""
        ...

    def names(self) -> Sequence[str]:
        """List the models that have a version, sorted; members of fleets are left out."""
        ...


class Deployments(Protocol):
    """The append-only table of deployments."""

    def add(self, deployment: Deployment) -> None:
        """Append a deployment."""
        ...

    def add_many(self, added: Sequence[Deployment]) -> None:
        """Append deployments in one transaction."""
        ...

    def of(self, model: str, environment: str = "production") -> Sequence[Deployment]:
        """List a model's deployments, oldest first."""
        ...

    def all(self, environment: str = "production") -> Sequence[Deployment]:
        """List every model's deployments, oldest first."""
        ...

    def latest(
        self, limit: int, models: Sequence[str] | None = None, environment: str = "production"
    ) -> dict[str, Sequence[Deployment]]:
        """Return each model's last deployments, at most `limit`, oldest first: what the routing table is derived from."""
        ...

    def count(self, environment: str = "production") -> int:
        """Count the deployments."""
        ...

    def names(self, environment: str = "production") -> Sequence[str]:
        """List the models that were deployed, sorted; members of fleets are left out."""
        ...

    def canaries(self, environment: str = "production") -> Sequence[str]:
        """List the models, members among them, whose last deployment has more than a champion, sorted."""
        ...


class Windows(Protocol):
    """Windows of the prediction log."""

    def add(self, window: Window) -> None:
        """Add a window. A window is first added immature, then once more when mature, under another id."""
        ...

    def add_many(self, windows: Sequence[Window]) -> None:
        """Add windows in one transaction."""
        ...

    def of(self, model: str, start: datetime | None = None, end: datetime | None = None, limit: int = 1000) -> Sequence[Window]:
        """List a model's windows by start, oldest first; of two with the same start the mature one counts."""
        ...

    def last(self, model: str, mature: bool = True) -> Window | None:
        """Return the latest window by start; `mature=False` takes immature ones into account too."""
        ...

    def drop(self, model: str, now: datetime) -> None:
        """Take away what ends after now, of a model and its members: a clock that was ahead judged time that has not passed."""
        ...


class Alerts(Protocol):
    """Alerts and what happened to them."""

    def add(self, alert: Alert, event: AlertEvent) -> None:
        """Add an alert together with its opening event; people are told of it (`outbox`)."""
        ...

    def add_event(self, event: AlertEvent) -> None:
        """Append an event to an alert; people are told where the event says so."""
        ...

    def get(self, alert: str) -> Alert | None:
        """Return an alert, or None."""
        ...

    def events(self, alert: str) -> Sequence[AlertEvent]:
        """List an alert's events, oldest first."""
        ...

    def list(self, model: str | None = None, state: str | None = None, limit: int = 100) -> Sequence[Alert]:
        """List alerts, newest first; `state` is ``open`` or ``closed``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A run that a worker took.

    Attributes
    ----------
    token : str
        New with every claim: what is written under an earlier one is refused.
    given : dict
        What was put with the run.
    first : bool
        Whether nobody had taken it before.
    """

    run: str
    model: str
    token: str
    given: Json
    first: bool = False


class Queue(Protocol):
    """Who runs what: runs that wait, those who took them, and which of these live."""

    def put(self, run: str, *, model: str = "", priority: int = 0, given: Json | None = None) -> None:
        """Let a run wait; one that was put before, ended or not, is left as it is.

        Parameters
        ----------
        run : str
        model : str
            Runs of one model go one after another; empty for a run that waits for no other.
        priority : int
            Lower goes first; of equal ones the older.
        given : dict, optional
            Kept for whoever takes it.
        """
        ...

    def take(self, worker: str, *, dead: Sequence[str] = (), at_most: int | None = None) -> Claim | None:
        """Take the next run whose model has no other under way; None when there is none.

        Parameters
        ----------
        worker : str
            Has beaten.
        dead : sequence of str
            Workers whose beat stands still. What they took, and what workers without a beat took, is free again, and goes
            before what only waits.
        at_most : int, optional
            Runs that may be under way at once, of all workers that live.
        """
        ...

    def held(self, worker: str) -> Sequence[Claim]:
        """Return what a worker holds, oldest first."""
        ...

    def end(self, run: str, state: str, token: str | None = None) -> bool:
        """Note that a run has ended, where it still bears the token; return whether this call did."""
        ...

    def ended(self, run: str) -> str | None:
        """Return the state that a run ended in, empty while it has not; None when it was never put here."""
        ...

    def unfinished(self) -> Sequence[str]:
        """List the runs that wait or run, oldest first."""
        ...

    def finished(self, before: str, limit: int) -> Sequence[str]:
        """List runs that ended and whose id is below `before`, oldest first."""
        ...

    def forget(self, runs: Sequence[str]) -> None:
        """Remove the rows of runs that ended."""
        ...

    def fence(self, run: str, token: str) -> AbstractContextManager[None]:
        """Let what this thread writes inside the block hold only while the run bears the token.

        Checked in each write's own transaction; a write that comes too late raises `LostFence`, and nothing is kept of it.
        """
        ...

    def beat(self, worker: str, count: int, told: Json) -> None:
        """Say that a worker lives: a count that rises, and what it tells of itself."""
        ...

    def beats(self) -> Mapping[str, tuple[int, Json]]:
        """Return each worker's last beat and what it told of itself."""
        ...

    def leave(self, worker: str) -> None:
        """Take a worker that ends in order off the list."""
        ...


@dataclass(frozen=True, slots=True)
class Metadata:
    """The aggregates of one database."""

    datasets: Datasets
    runs: Runs
    models: Models
    deployments: Deployments
    windows: Windows
    alerts: Alerts
    queue: Queue
    outbox: Outbox
