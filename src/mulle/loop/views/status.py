"""How things stand, in words: each model's state as a person would tell it, and the engine's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import polars as pl

from mulle.core.clock import rfc3339
from mulle.core.declare.fleet import fleet_of
from mulle.core.errors import NotFound
from mulle.core.records.base import Json, to_json
from mulle.core.records.deployment import Deployment, champion_of, current
from mulle.core.records.notice import silenced_until
from mulle.core.records.prediction import ASIDE, PREDICTIONS
from mulle.core.records.window import Alert, Window
from mulle.lifecycle.monitoring.alerts import kind_of
from mulle.loop.batch.schedule import schedule_view
from mulle.loop.data.ingest import all_datasets
from mulle.loop.declared import project_state
from mulle.loop.monitoring.cron import next_cron
from mulle.loop.monitoring.triggers import rest_of, rests_until
from mulle.loop.parts import Parts
from mulle.loop.place import ENGINE, workers_here
from mulle.loop.rollout.standing import standing
from mulle.loop.views.chain import model_names

__all__ = ["engine_state", "failures", "status_view", "traffic"]

_MOST_ALERTS, _EVERY_ALERT = 20, 10_000
"""Alerts told of one model; alerts read to find those of a fleet's members."""


def status_view(
    parts: Parts,
    *,
    refused: Mapping[str, str] | None = None,
    server: Json | None = None,
) -> Json:
    """Say of each model how it stands, and whether the engine runs.

    Parameters
    ----------
    refused : mapping, optional
        By model why a running server does not load what its routes name, and answers with what it had.
    server : dict, optional
        ``state`` (``answers`` or ``silent``) and ``url`` of the inference server, when it was asked.

    Returns
    -------
    dict
        ``models``, ``batches`` (scheduled ones), ``turned_away`` (rows that wait to be mended), ``project`` (whether its file
        loads), ``engine`` and ``server``.
    """
    counted, errors = traffic(parts), failures(parts)
    refused = refused or {}
    models = [
        _model(parts, name, counted.get(name, 0), errors.get(name, 0), refused.get(name, "")) for name in model_names(parts)
    ]
    now = rfc3339(parts.clock.now())
    told = {"id": str(parts.settings.home), "created_at": now, "models": models, "batches": schedule_view(parts)}
    told["turned_away"] = list(_turned_away(parts))
    return {**told, "project": project_state(parts.settings.home), "engine": engine_state(parts.settings.home), "server": server}


def traffic(parts: Parts, span: timedelta = timedelta(hours=1)) -> dict[str, int]:
    """Count the rows answered in the last `span` by model, a fleet's members with it (shadow scores and trials not counted)."""
    return _counted(parts, span, ~pl.col("route").is_in(ASIDE), pl.len())


def failures(parts: Parts, span: timedelta = timedelta(hours=1)) -> dict[str, int]:
    """Count the requests of the last `span` that the log holds as refused or failed, by model: what any server of it was asked.

    What challengers failed while the champion answered is not counted.
    """
    # Such a failure has no time of its own, and always a version.
    refused = (pl.col("route") == "refused") & (pl.col("version").is_null() | (pl.col("seconds") > 0))
    return _counted(parts, span, refused, pl.col("request").n_unique())


def _counted(parts: Parts, span: timedelta, wanted: pl.Expr, count: pl.Expr) -> dict[str, int]:
    try:
        rows = parts.lake.scan(PREDICTIONS).filter((pl.col("created_at") > parts.clock.now() - span) & wanted)
    except NotFound:
        return {}
    # A fleet's members answer for it.
    whole = pl.col("model").str.split("/").list.first()
    return dict(rows.group_by(whole.alias("model")).agg(count.alias("count")).collect().iter_rows())


def engine_state(home: Path) -> Json:
    """Tell whether an engine holds a home, from its lock files.

    Returns
    -------
    dict
        ``state`` (``running`` or ``stopped``), ``pid``, ``home`` and, where there are any, the number of ``workers``.
    """
    found = workers_here(home)
    pid = found.get(ENGINE, next(iter(found.values()), None))
    workers = len(found.keys() - {ENGINE})
    told: Json = {"state": "stopped" if pid is None else "running", "pid": pid, "home": str(home)}
    return told | ({"workers": workers} if workers else {})


def _model(parts: Parts, name: str, rows: int, errors: int, refused: str) -> Json:
    metadata = parts.metadata
    deployments = metadata.deployments.of(name)
    in_force = current(deployments, parts.clock.now())
    window = metadata.windows.last(name)
    alerts = _alerts_of(parts, name)
    runs = metadata.runs.list(name, 1)
    run_state = metadata.runs.states([runs[0].id]).get(runs[0].id, "queued") if runs else None
    newest = metadata.models.list(name, 1)
    state = "alarmed" if refused else _state(in_force, alerts, run_state)
    routes = in_force.routes if in_force else ()
    canary = next((r for r in routes if r.mode == "canary"), None)
    released, clauses = standing(parts, name, in_force)
    loop, told = _loop(parts, name, alerts)
    if refused:
        says = f"{name} needs a look: the server answers with what it had before, for a bundle is refused: {refused}"
    else:
        says = _says(name, in_force, newest[0].version if newest else None, window, alerts, run_state)
    says = "; ".join([says, *clauses, *told])
    return {
        "id": name,
        "created_at": rfc3339(deployments[0].created_at) if deployments else None,
        "model": name,
        "state": state,
        "says": says,
        "champion": champion_of(in_force),
        "canary": {"version": canary.version, "share": canary.share} if canary else None,
        "shadow": [r.version for r in routes if r.mode == "shadow"],
        **released,
        "traffic_1h": rows,
        "errors_1h": errors,
        "refused": refused or None,
        "performance": to_json(window.performance) if window and window.performance else None,
        **loop,
        "last_run": {"id": runs[0].id, "state": run_state} if runs else None,
        "alerts": [
            {"id": a.id, "signal": a.signal, "feature": a.feature, "severity": a.severity, "model": a.model} for a in alerts
        ],
    }


def _alerts_of(parts: Parts, name: str) -> Sequence[Alert]:
    """List what is open about a model; of a fleet, about its members too."""
    declared = parts.project.models.get(name)
    if declared is None or declared.each is None:
        return parts.metadata.alerts.list(name, "open", _MOST_ALERTS)
    # Asked for whole: alerts of members have names of their own.
    every = parts.metadata.alerts.list(None, "open", _EVERY_ALERT)
    return [alert for alert in every if fleet_of(alert.model) == name][:_MOST_ALERTS]


def _loop(parts: Parts, name: str, alerts: Sequence[Alert]) -> tuple[Json, list[str]]:
    """Say when the loop runs a model next, how long it rests, and whether people are told of its alerts."""
    declared, now = parts.project.models.get(name), parts.clock.now()
    silent = silenced_until(parts.metadata.outbox.silences(), name, now)
    view: Json = {"next_run": None, "cooldown": None, "rests_until": None, "silenced_until": rfc3339(silent) if silent else None}
    said = [f"alerts are silent until {rfc3339(silent)}"] if silent else []
    if declared is None:
        return view, said
    retrain, rest = declared.retrain, rest_of(parts, declared)
    upcoming = next_cron(retrain.cron, now, retrain.timezone) if retrain.cron else None
    view |= {"next_run": rfc3339(upcoming) if upcoming else None, "cooldown": rest.span.total_seconds()}
    if rest.span > retrain.cooldown:
        said.append(f"the last {rest.in_vain} runs were no better, so the cool-down is {rest.span} instead of {retrain.cooldown}")
    held = rests_until(parts, declared, rest, now)
    if held is not None:
        view["rests_until"] = rfc3339(held[0])
        if any(kind_of(alert) in retrain.on for alert in alerts):
            said.append(f"alerts cause no run before {rfc3339(held[0])[:19].replace('T', ' ')}, for {held[1]}")
    return view, said


def _turned_away(parts: Parts) -> Iterator[Json]:
    """Tell of each dataset what was turned away after the last that was published."""
    store = parts.metadata.datasets
    for dataset in all_datasets(parts.project):
        newest = store.get(dataset.name)
        for batch in store.quarantines(dataset.name, 1):
            if newest is None or batch.created_at > newest.created_at:
                yield {
                    "id": batch.id, "created_at": rfc3339(batch.created_at), "dataset": dataset.name, "rows": batch.rows,
                    "failed": [check.name for check in batch.checks if check.verdict == "fail"],
                    "next": f"mulle data versions {dataset.name}",
                }  # fmt: skip


def _state(in_force: Deployment | None, alerts: Sequence[Alert], run: str | None) -> str:
    if in_force is None:
        return "training" if run in {"queued", "running"} else "not deployed"
    if alerts:
        return "alarmed"
    return "canary" if any(r.mode == "canary" for r in in_force.routes) else "healthy"


def _says(
    name: str, in_force: Deployment | None, newest: int | None, window: Window | None, alerts: Sequence[Alert], run: str | None
) -> str:
    if in_force is None:
        return _says_undeployed(name, newest, run)
    champion = champion_of(in_force)
    canary = next((r for r in in_force.routes if r.mode == "canary"), None)
    if canary:
        answers = f"version {champion} answers {1 - canary.share:.0%}, canary {canary.version} takes {canary.share:.0%}"
    else:
        answers = f"version {champion} answers all traffic"
    clauses = [answers]
    if window and window.performance and window.performance.value is not None:
        clauses.append(f"last window {window.performance.metric.upper()} {window.performance.value:.3g}")
    elif window and window.performance:
        clauses.append("the last window has no labels yet" if window.rows else "nothing was asked in the last window")
    if run in {"queued", "running"}:
        clauses.append("a run is under way")
    elif run in {"rejected", "failed"}:
        clauses.append(f"the last run was {run}" if run == "rejected" else "the last run failed")
    if alerts:
        told = ", ".join(dict.fromkeys(_told(name, a) for a in alerts[:3]))
        head = f"{name} needs a look: {len(alerts)} open alert{'s' * (len(alerts) > 1)} ({told})"
    else:
        head = f"{name} is in canary" if canary else f"{name} is healthy"
    return f"{head}: {'; '.join(clauses)}" if not alerts else f"{head}; {'; '.join(clauses)}"


def _told(name: str, alert: Alert) -> str:
    about = f"{alert.signal} {alert.feature}".strip()
    return about if alert.model == name else f"{about} of {alert.model}"


def _says_undeployed(name: str, newest: int | None, run: str | None) -> str:
    if run in {"queued", "running"}:
        return f"{name} is being trained; nothing is deployed yet"
    if newest is not None:
        return f"{name} has version {newest} and none is deployed: `mulle deploy {name}@{newest}`"
    if run in {"rejected", "failed", "cancelled"}:
        return f"{name} has no version: its last run was {run}, see `mulle runs ls`"
    return f"{name} has no version yet: `mulle run {name}`"
