"""What people and programs are shown of the chain: pure readings of the records, in the shapes that every surface gives.

The command line, the control API and the Python door all render these; none of them reads the stores itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mulle.core.clock import instant, rfc3339
from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.errors import NotFound
from mulle.core.records.base import Json, to_json
from mulle.core.records.dataset import CheckResult, DatasetVersion, verdict_of
from mulle.core.records.deployment import PRODUCTION, Deployment, Route, champion_of, current
from mulle.core.records.model import ModelVersion
from mulle.core.records.notice import silenced_until
from mulle.core.records.run import Run, run_stages, run_state
from mulle.core.records.window import Alert, alert_closed_at, alert_severity, alert_state
from mulle.loop.data.catalogue import selection_of
from mulle.loop.operate import pausing
from mulle.loop.parts import Parts
from mulle.loop.views.members import fleet_view, run_members_view

__all__ = [
    "alert_view",
    "alerts_view",
    "datasets_view",
    "deployment_view",
    "find_version",
    "history_view",
    "known_model",
    "listing",
    "model_names",
    "model_view",
    "models_view",
    "paused_view",
    "run_view",
    "runs_view",
    "settings_of",
    "version_view",
    "versions_view",
]


def listing(items: Sequence[Json], next: str | int | None = None, **more: object) -> Json:
    """Give a listing in the one shape that all of them have.

    Examples
    --------
    >>> listing([])
    {'items': [], 'next': None}
    """
    return {"items": list(items), "next": next, **more}


def model_names(parts: Parts) -> tuple[str, ...]:
    """List every model that is declared, registered or deployed, fleets without their members: the declared ones first."""
    return tuple(dict.fromkeys([*parts.project.models, *parts.metadata.models.names(), *parts.metadata.deployments.names()]))


def known_model(parts: Parts, model: str) -> bool:
    """Tell whether a model is declared, registered or deployed, or a member of a fleet."""
    # A fleet's members are too many to be listed.
    return model in model_names(parts) or (bool(key_of(model)) and bool(parts.metadata.models.list(model, 1)))


def run_view(parts: Parts, run: str) -> Json:
    """Give a run with its stages, gates, trials, data, the version it made, what became of its `members` and, while its folder
    is there, its `evaluation`, the search's `notes` and the settings of the `winner`.

    Raises
    ------
    NotFound
        When there is no such run.
    """
    record = parts.metadata.runs.get(run)
    if record is None:
        raise NotFound(f"no run '{run}'", next="see `mulle runs ls`", run=run)
    search = _left(parts, run, "search")
    return {
        **_run(parts, record),
        "evaluation": _left(parts, run, "evaluation"),
        "notes": search.get("notes", []) if search else [],
        "winner": search.get("settings") if search else None,
        "members": run_members_view(parts, run),
    }


def runs_view(
    parts: Parts, *, model: str | None = None, state: str | None = None, limit: int = 20, after: str | None = None
) -> Json:
    """List runs, newest first; `next` is what to pass as `after` for the following page."""
    found = list(parts.metadata.runs.list(model, limit + 1, after, state))
    page = found[:limit]
    return listing([_run(parts, run) for run in page], page[-1].id if len(found) > limit else None)


def _run(parts: Parts, run: Run) -> Json:
    runs = parts.metadata.runs
    events = runs.events(run.id)
    version = parts.metadata.models.of_run(run.id)
    details = [e.detail for e in events]
    data = dict(version.data) if version else next((d["data"] for d in reversed(details) if isinstance(d.get("data"), dict)), {})
    final = next((e for e in reversed(events) if e.kind == "state"), None)
    return {
        **to_json(run),
        "state": run_state(events),
        "reason": str(final.detail.get("reason", "")) if final else "",
        "next": str(final.detail.get("next", "")) if final else "",
        "stages": to_json(run_stages(events)),
        "seconds": round(sum(s.seconds for s in run_stages(events)), 3),
        "finished_at": rfc3339(final.at) if final and final.name not in {"queued", "running"} else None,
        "data": data,
        "gates": [{"name": gate.gate, **to_json(gate)} for gate in runs.gates(run.id)],
        "trials": to_json(runs.trials(run.id)),
        "model_version": version.version if version else None,
        "release": next((str(d["release"]) for d in reversed(details) if "release" in d), ""),
        "paused": paused_view(parts, run.model),
        "selection": selection_of(parts, run.id),
    }


def _left(parts: Parts, run: str, name: str) -> Json | None:
    # A small file of the run's own; once its folder is cleared, the gates' records and the model's card still tell.
    path = parts.settings.home / "runs" / run / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.is_file() else None


def model_view(parts: Parts, name: str) -> Json:
    """Give a model version by ``MODEL``, ``MODEL@7``, ``MODEL@champion``, ``@challenger`` or ``@latest``, with its `settings`."""
    version = find_version(parts, name)
    return {**_version(parts, version, parts.metadata.deployments.of(version.model)), "settings": settings_of(version)}


def settings_of(version: ModelVersion) -> Json:
    """Give the settings that a version was fitted with; empty when its bundle lies elsewhere."""
    path = Path(version.address) / "bundle.json"
    return dict(json.loads(path.read_text())["settings"]) if path.is_file() else {}


def models_view(parts: Parts, *, model: str | None = None, limit: int = 50, after: str | None = None) -> Json:
    """List model versions, newest first; of a fleet, `fleet` sums up its members."""
    found = list(parts.metadata.models.list(model, limit + 1, after))
    page = found[:limit]
    deployments: dict[str, Sequence[Deployment]] = {m: parts.metadata.deployments.of(m) for m in {v.model for v in page}}
    items = [_version(parts, v, deployments[v.model]) for v in page]
    fleet = None if model is None or key_of(model) else fleet_view(parts, model)
    more = {"declared": [m for m in parts.project.models if model in (None, m)], **({} if fleet is None else {"fleet": fleet})}
    return listing(items, page[-1].id if len(found) > limit else None, **more)


def find_version(parts: Parts, name: str) -> ModelVersion:
    """Find the version that a name such as ``air-time@champion`` stands for.

    Without a version it is the champion or, while nothing is deployed, the latest.

    Raises
    ------
    NotFound
        Naming what there is.
    """
    model, mark, asked = name.rpartition("@")
    if not mark or not (asked.isdigit() or asked in ("latest", "champion", "challenger")):
        # A member's key may hold the sign itself.
        model, asked = (name, "") if key_of(name) else (name.partition("@")[0], name.partition("@")[2])
    versions = parts.metadata.models.list(model, 1)
    if not versions:
        raise _without_version(parts, model)
    number = _number(parts, model, asked, versions[0].version)
    found = parts.metadata.models.get(model, number) if number is not None else None
    if found is None:
        raise NotFound(f"no version '{asked}' of {model}", next=f"see `mulle models ls {model}`", model=model, version=asked)
    return found


def _without_version(parts: Parts, model: str) -> NotFound:
    fleet = fleet_of(model)
    last = parts.metadata.runs.last_members(fleet) if key_of(model) else ()
    if not last:
        known = ", ".join(model_names(parts)) or "none"
        return NotFound(f"model '{model}' has no version", next=f"`mulle run {model}`; known models: {known}", model=model)
    told = next((f"{m.outcome.replace('_', ' ')}: {m.reason}" for m in last if m.model == model), "no row had that key")
    return NotFound(
        f"'{model}' has no version of its own ({told}); {fleet} answers for it",
        next=f"`mulle models show {fleet}`, or `mulle models ls {fleet} --members`",
        model=model,
    )


def _number(parts: Parts, model: str, asked: str, latest: int) -> int | None:
    if asked.isdigit():
        return int(asked)
    if asked == "latest":
        return latest
    deployments = parts.metadata.deployments.of(model)
    champion = champion_of(current(deployments, parts.clock.now()))
    if not asked:
        return champion if champion is not None else latest
    aliases = _aliases(deployments, parts.clock.now())
    return next((version for version, names in aliases.items() if asked in names), None)


def _aliases(deployments: Sequence[Deployment], now: datetime) -> dict[int, list[str]]:
    aliases: dict[int, list[str]] = {}
    in_force = current(deployments, now)
    for route in in_force.routes if in_force else ():
        aliases.setdefault(route.version, []).append("champion" if route.mode == "champion" else "challenger")
    return aliases


def _version(parts: Parts, version: ModelVersion, deployments: Sequence[Deployment]) -> Json:
    return {**to_json(version), "aliases": _aliases(deployments, parts.clock.now()).get(version.version, [])}


def deployment_view(deployment: Deployment) -> Json:
    """Give a deployment; ``from`` and ``to`` are versions."""
    view: Json = to_json(deployment)
    view["from"], view["to"] = view.pop("from_version"), view.pop("to_version")
    return view


def paused_view(parts: Parts, model: str) -> Json | None:
    """Tell who paused a model's automation, when and why; null where the loop may act."""
    found = pausing(parts, model)
    if found is None:
        return None
    return {"by": found.by, "at": rfc3339(found.created_at), "why": "; ".join(cause.why for cause in found.causes)}


def history_view(
    parts: Parts, model: str, *, at: str | datetime | None = None, limit: int = 100, environment: str = PRODUCTION
) -> Json:
    """List a model's deployments, newest first; with `at`, give the one in force at that instant.

    That one tells of each version that served its run, the data it was trained on and the code it was made by (``served``).
    When nothing was deployed then, ``routes`` is empty and ``action`` is null.

    Raises
    ------
    NotFound
        When there is no such model.
    """
    if not known_model(parts, model):
        known = ", ".join(model_names(parts)) or "none"
        raise NotFound(f"no model '{model}'", next=f"known models: {known}", model=model)
    deployments = parts.metadata.deployments.of(model, environment)
    if at is None:
        paused = bool(deployments) and deployments[-1].paused
        return listing([deployment_view(d) for d in reversed(deployments)][:limit], paused=paused, environment=environment)
    moment = instant(at)
    found = current(deployments, moment)
    if found is not None:
        served = [_served(parts, model, route) for route in found.routes]
        return {**deployment_view(found), "at": rfc3339(moment), "served": served}
    blank = dict.fromkeys(("id", "created_at", "action", "effective_at", "by", "from", "to"))
    where = {"model": model, "environment": environment, "routes": [], "causes": [], "evidence": {}, "paused": False}
    return {**blank, **where, "at": rfc3339(moment), "served": []}


def _served(parts: Parts, model: str, route: Route) -> Json:
    """Tell of a version's part in answering by which run, data and code it was made."""
    told: Json = to_json(route)
    version = parts.metadata.models.get(model, route.version)
    if version is None:
        return told
    run = parts.metadata.runs.get(version.run)
    datasets = [parts.metadata.datasets.get(name, number) for name, number in version.data.items()]
    data = [{"dataset": d.dataset, "version": d.version, "rows": d.rows, "hash": d.hash} for d in datasets if d is not None]
    cutoffs = {"data_cutoff": rfc3339(version.data_cutoff), "refit_cutoff": rfc3339(version.refit_cutoff)}
    made = {"run": version.run, "bundle": version.bundle, "code": run.code if run else None, "git": run.git if run else None}
    return {**told, **made, "data": data, **cutoffs}


def datasets_view(parts: Parts) -> Json:
    """List datasets, declared or published, with their last version."""
    store = parts.metadata.datasets
    items = []
    for name in dict.fromkeys([*parts.project.datasets, *store.names()]):
        last = store.get(name)
        quarantined = len(store.quarantines(name))
        blank: Json = dict.fromkeys(("created_at", "version", "rows", "hash", "verdict"))
        known = {**version_view(parts, last), "verdict": verdict_of(last.checks)} if last else blank
        items.append({"tags": [], "checks": [], **known, "id": name, "dataset": name, "quarantined": quarantined})
    return listing(items)


def versions_view(parts: Parts, dataset: str, *, limit: int = 50, after: int | None = None) -> Json:
    """List a dataset's versions, newest first, with the batches that were turned away.

    Raises
    ------
    NotFound
        When the dataset is neither declared nor published.
    """
    store = parts.metadata.datasets
    if dataset not in {*parts.project.datasets, *store.names()}:
        parts.project.dataset(dataset)
    found = list(store.versions(dataset, limit + 1, after))
    turned_away = [
        {"id": q.id, "created_at": rfc3339(q.created_at), "rows": q.rows, "address": q.address, "checks": _checks(q.checks)}
        for q in store.quarantines(dataset)
    ]
    page = found[:limit]
    next_page = page[-1].version if len(found) > limit else None
    return listing([version_view(parts, v) for v in page], next_page, quarantined=turned_away)


def version_view(parts: Parts, version: DatasetVersion) -> Json:
    """Give a dataset version with its tags and what each check said."""
    tags = [t.name for t in parts.metadata.datasets.tags(version.dataset) if t.version == version.version]
    view: Json = to_json(version)
    view.pop("positions")
    return {**view, "tags": tags, "checks": _checks(version.checks)}


def _checks(checks: Sequence[CheckResult]) -> list[Json]:
    return [to_json(check) for check in checks]


def alerts_view(parts: Parts, *, model: str | None = None, state: str | None = None, limit: int = 50) -> Json:
    """List alerts, newest first; `state` is ``open`` or ``closed``."""
    return listing([alert_view(parts, alert) for alert in parts.metadata.alerts.list(model, state, limit)])


def alert_view(parts: Parts, alert: Alert) -> Json:
    """Give an alert with its present state and its latest evidence."""
    events = parts.metadata.alerts.events(alert.id)
    silent = silenced_until(parts.metadata.outbox.silences(), alert.model, parts.clock.now())
    closed = alert_closed_at(events)
    latest = next((e.evidence for e in reversed(events) if e.evidence), alert.evidence)
    return {
        **to_json(alert),
        "severity": alert_severity(alert, events),
        "state": alert_state(events),
        "silenced_until": rfc3339(silent) if silent else None,
        "opened_at": rfc3339(alert.created_at),
        "closed_at": rfc3339(closed) if closed else None,
        "evidence": to_json(latest),
    }
