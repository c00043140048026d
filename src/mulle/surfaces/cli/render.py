"""Views as a person reads them in a terminal: tables with readable times, and ``-`` for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from mulle.core.declare.candidates import Candidate
from mulle.surfaces.cli.render_members import fleet
from mulle.surfaces.cli.table import COLOURS, facts, more, table
from mulle.surfaces.words import causes_in_words, cell, moment, routes_in_words, server_in_words, turned_away_in_words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mulle.core.records.base import Json

__all__ = [
    "alerts", "anything", "data", "datasets", "deployment", "doctor", "explained", "gates", "history", "model", "models",
    "planned", "predictions", "replayed", "run", "run_explained", "runs", "status",
]  # fmt: skip

_SLICES = 10
"""Values of a column that are shown, the largest first."""


def status(view: Json) -> list[RenderableType]:
    """Show how each model stands, in words, then the engine."""
    lines: list[RenderableType] = []
    for item in view["models"]:
        colour = COLOURS.get(item["state"], "yellow")
        lines.append(f"[{colour}]●[/] {escape(item['says'])}")
        told = [f"{item['traffic_1h']} rows in the last hour, {item['errors_1h']} refused or failed"]
        told += [f"next run {moment(item['next_run'])}"] if item["next_run"] else []
        lines.append(f"  [dim]{'; '.join(told)}[/]")
    if not view["models"]:
        lines.append("no model is declared")
    lines += [_scheduled(item) for item in view.get("batches", ())]
    if view["project"]["state"] == "broken":
        said = f"project.py is broken, the last good declaration goes on: {view['project']['detail']}"
        lines += [f"[red]●[/] {escape(said)}", f"  [dim]{escape(view['project']['next'])}[/]"]
    lines += [f"[yellow]●[/] {escape(turned_away_in_words(item))}" for item in view.get("turned_away", ())]
    silent = server_in_words(view)
    lines += [f"[red]●[/] {escape(silent)}"] if silent else []
    engine = view["engine"]
    running = f"runs, pid {engine['pid']}" if engine["state"] == "running" else "does not run (`mulle up` starts it)"
    lines.append(f"[dim]engine {running}; home {escape(engine['home'])}[/]")
    return lines


def _scheduled(item: Json) -> str:
    last = item["last"]
    ended = f"; last {moment(last['at'])} {last['state']}, {last['rows']:,} rows" if last else ""
    return f"[dim]batch of {escape(item['model'])} on {escape(item['input'])}: next {moment(item['next'])}{ended}[/]"


def runs(view: Json) -> list[RenderableType]:
    """Show a listing of runs."""
    columns = ("run", "model", "state", "started", "seconds", "cause", "version", "reason")
    rows = [
        (
            i["id"],
            i["model"],
            i["state"],
            moment(i["created_at"]),
            i["seconds"],
            causes_in_words(i),
            i["model_version"],
            i["reason"],
        )
        for i in view["items"]
    ]
    return [table("Runs", columns, rows), *more(view)]


def run(view: Json) -> list[RenderableType]:
    """Show one run: facts, stages, trials, gates."""
    told = {
        "run": view["id"], "model": view["model"], "state": view["state"], "reason": view["reason"], "next": view.get("next"),
        "cause": causes_in_words(view), "started": moment(view["created_at"]), "cutoff": moment(view["cutoff"]),
        "data": ", ".join(f"{k}@{v}" for k, v in view["data"].items()), "code": view["code"], "git": view["git"],
        "winner": _won(view.get("winner")),
        "version": f"{view['model']}@{view['model_version']}" if view["model_version"] else None,
        "not released": view.get("release"),
    }  # fmt: skip
    seldom = ("reason", "next", "git", "winner", "not released")
    told = {name: fact for name, fact in told.items() if fact or name not in seldom}
    stages = [(s["name"], s["state"], f"{s['seconds']:.2f}") for s in view["stages"]]
    return [
        facts(told),
        table("Stages", ("stage", "state", "seconds"), stages),
        _leaderboard(view["trials"]),
        *fleet(view.get("members")),
        gates(view["gates"]),
    ]


def _leaderboard(trials: Sequence[Json]) -> RenderableType:
    """Show trials, the best (lowest score) first; those without a score come last, with what became of them."""
    best = sorted(trials, key=lambda t: (t["score"] is None, t["score"] or 0.0, t["number"]))
    rows = [
        (
            t["number"],
            t["candidate"],
            t["score"],
            t["failure"] or t["state"],
            f"{t['seconds']:.2f}",
            _parameters(t),
            t.get("reason"),
        )
        for t in best
    ]
    return table("Trials, best first", ("trial", "candidate", "score", "state", "seconds", "parameters", "why"), rows)


def _parameters(trial: Json) -> Json:
    past = {} if trial.get("train_on", "all") == "all" else {"train_on": trial["train_on"]}
    return {**Candidate(kind=trial["candidate"], params=trial["params"]).chosen, **past}


def _won(settings: Json | None) -> str | None:
    """Say what won: a candidate, or the members of an ensemble with their weights."""
    if not settings:
        return None
    members = [f"{m['candidate']} {m['weight']:.0%}" for m in settings.get("members", ())]
    past = f", trained on {settings['train_on']}" if "train_on" in settings else ""
    return (f"ensemble of {', '.join(members)}" if members else str(settings["candidate"])) + past


def run_explained(view: Json) -> list[RenderableType]:
    """Show one run with what was measured of its winner, and where that is weak."""
    *first, judged = run(view)
    notes = [f"[dim]search: {escape(note)}[/]" for note in view["notes"]]
    return [*first, *notes, *_evaluation(view["evaluation"]), judged]


def gates(items: Sequence[Json]) -> RenderableType:
    """Show gate results as a table."""
    rows = [
        (g["gate"], g["verdict"], g["value"], _interval((g.get("low"), g.get("high"))), g["bound"], g["rows"], g["reason"])
        for g in items
    ]
    return table("Gates", ("gate", "verdict", "value", "95%", "bound", "rows", "reason"), rows)


def _evaluation(found: Json | None) -> list[RenderableType]:
    """Show the winner's metrics with their intervals, and where it is weak."""
    if found is None:
        return []
    train = found["train"]["metrics"]
    metrics = [(k, v, _interval(found["intervals"].get(k)), train.get(k)) for k, v in found["metrics"].items()]
    weak = [(s["column"], s["value"], s["rows"], s["inside"], s["outside"], s["low"]) for s in found["weak_slices"]]
    shown = [
        table(f"Holdout, {found['rows']} rows", ("metric", "value", "95%", "on training rows"), metrics),
        table("Where it is weak", ("column", "value", "rows", "loss", "loss of the rest", "worse by at least"), weak),
    ]
    for column, values in found["slices"].items():
        names = list(next(iter(values.values()))["intervals"])
        rows = [(value, part["rows"], *(_figure(part, name) for name in names)) for value, part in list(values.items())[:_SLICES]]
        shown.append(table(f"By {escape(column)}", ("value", "rows", *names), rows))
    return shown


def _figure(part: Json, name: str) -> str:
    interval = _interval(part["intervals"].get(name))
    return cell(part["metrics"].get(name)) + (f" ({interval})" if interval else "")


def _interval(ends: Sequence[float | None] | None) -> str | None:
    return None if ends is None or ends[0] is None else f"{cell(ends[0])} to {cell(ends[1])}"


def models(view: Json) -> list[RenderableType]:
    """Show a listing of model versions."""
    columns = ("version", "aliases", "made", "metrics", "compiled", "data until", "run")
    rows = [
        (f"{i['model']}@{i['version']}", i["aliases"], moment(i["created_at"]), i["metrics"], i["compiled"],
         moment(i["refit_cutoff"]), i["run"])
        for i in view["items"]
    ]  # fmt: skip
    have = {i["model"] for i in view["items"]}
    waiting = [name for name in view.get("declared", []) if name not in have]
    told = [f"[dim]declared, without a version here: {escape(', '.join(waiting))}[/]"] if waiting else []
    return [table("Models", columns, rows), *more(view), *told, *fleet(view.get("fleet"))]


def model(view: Json) -> list[RenderableType]:
    """Show one model version."""
    parity = view["parity"]
    proof = (
        f"worst {parity['worst']:.2g} of the scale over {parity['rows']} rows, {parity['outside']:.2%} outside"
        if parity
        else None
    )
    told = {
        "version": f"{view['model']}@{view['version']}", "aliases": view["aliases"], "made": moment(view["created_at"]),
        "winner": _won(view.get("settings")), "metrics": view["metrics"], "compiled": view["compiled"], "parity": proof,
        "size": f"{view['size_bytes'] / 1024:,.0f} KiB",
        "features": view["features"], "data": ", ".join(f"{k}@{v}" for k, v in view["data"].items()),
        "metrics from rows until": moment(view["data_cutoff"]), "fitted on rows until": moment(view["refit_cutoff"]),
        "run": view["run"], "bundle": view["address"],
    }  # fmt: skip
    return [facts(told)]


def saw(view: Json) -> list[RenderableType]:
    """Show the model versions that saw a dataset version."""
    rows = [(f"{i['model']}@{i['version']}", i["saw"], i["run"]) for i in view["items"]]
    return [table(f"Trained on {view['dataset']}@{view['data_version']}", ("version", "saw", "run"), rows)]


def compared(view: Json) -> list[RenderableType]:
    """Show versions side by side, what differs only."""
    names = [f"{i['model']}@{i['version']}" for i in view["items"]]
    rows = [(name, *values) for name, values in view["differs"].items()]
    return [table("Differs", ("", *names), rows)] if rows else ["nothing that is recorded differs"]


def reproduced(view: Json) -> list[RenderableType]:
    """Show how a version that was trained again answers beside the recorded one."""
    found = view["agreement"]
    told = {
        "version": f"{view['model']}@{view['version']}",
        "reproduced": "yes" if view["reproduced"] else "no",
        "answers": f"worst difference {found['worst']:.2g} of the spread on {found['rows']} rows, {found['outside']:.2%} outside",
        "features": "as recorded" if view["features"] else "another definition",
        "data": "as recorded" if view["data"] else "another content",
        "packages": ", ".join(f"{k} {a} then, {b} now" for k, (a, b) in view["packages"].items()) or "as recorded",
    }
    return [facts(told)]


def deployment(view: Json) -> list[RenderableType]:
    """Show one deployment."""
    if view["action"] is None:
        return [f"nothing of {view['model']} was deployed at {moment(view['at'])}"]
    told = {
        "model": view["model"], "routes": routes_in_words(view), "action": view["action"], "by": view["by"],
        "effective": moment(view["effective_at"]), "from": view["from"], "to": view["to"], "cause": causes_in_words(view),
        "environment": view["environment"], "evidence": view["evidence"],
        "automation": "paused" if view.get("paused") else None,
    }  # fmt: skip
    return [facts(told), *(facts(_made_by(view["model"], served)) for served in view.get("served", ()))]


def _made_by(model: str, served: Json) -> Json:
    """Say how a version that served was made: run, data, code."""
    told = {"version": f"{model}@{served['version']} as {served['mode']}, {served['share']:.0%}"}
    if "run" not in served:
        return told
    data = ", ".join(f"{d['dataset']}@{d['version']} ({d['rows']:,} rows, {d['hash'][:12]})" for d in served["data"])
    cutoffs = {"outcomes until": moment(served["refit_cutoff"])}
    return {**told, "run": served["run"], "data": data, **cutoffs, "code": served["code"], "git": served["git"]}


def history(view: Json) -> list[RenderableType]:
    """Show a model's deployments, or the one in force at an instant."""
    if "items" not in view:
        return deployment(view)
    rows = [
        (moment(i["effective_at"]), i["action"], routes_in_words(i), i["by"], i["from"], i["to"], causes_in_words(i))
        for i in view["items"]
    ]
    shown = table("History", ("effective", "action", "routes", "by", "from", "to", "cause"), rows)
    return [shown, "its automation is paused"] if view.get("paused") else [shown]


def datasets(view: Json) -> list[RenderableType]:
    """Show a listing of datasets."""
    rows = [
        (i["dataset"], i["version"], i["rows"], moment(i["created_at"]), i["verdict"], i["tags"], i["quarantined"])
        for i in view["items"]
    ]
    return [table("Datasets", ("dataset", "version", "rows", "published", "checks", "tags", "batches quarantined"), rows)]


def data(view: Json) -> list[RenderableType]:
    """Show a dataset's versions and what was turned away."""
    rows = [
        (
            f"{i['dataset']}@{i['version']}",
            i["rows"],
            i["added"],
            moment(i["created_at"]),
            i["hash"],
            i["tags"],
            _failed(i["checks"]),
        )
        for i in view["items"]
    ]
    away = [(moment(q["created_at"]), q["rows"], _failed(q["checks"]), q["address"]) for q in view["quarantined"]]
    shown = [table("Versions", ("version", "rows", "added", "published", "hash", "tags", "checks"), rows)]
    return shown + ([table("Quarantined", ("when", "rows", "reasons", "address"), away)] if away else []) + more(view)


def _failed(checks: Sequence[Json]) -> str:
    bad = [f"{c['name']}: {c['verdict']} on {c['failed']} rows" for c in checks if c["verdict"] != "pass"]
    return "; ".join(bad) or (f"{len(checks)} passed" if checks else "-")


def alerts(view: Json) -> list[RenderableType]:
    """Show a listing of alerts."""
    rows = [
        (i["model"], f"{i['signal']} {i['feature']}".strip(), i["severity"], i["state"], moment(i["opened_at"]),
         moment(i["closed_at"]), i["evidence"], i["next"])
        for i in view["items"]
    ]  # fmt: skip
    return [table("Alerts", ("model", "signal", "severity", "state", "opened", "closed", "evidence", "next"), rows)]


def explained(view: Json) -> list[RenderableType]:
    """Show a prediction's whole chain."""
    told, route, label, window = view["prediction"], view["route"], view["label"], view["window"]
    deployed = route["deployment"] or {}
    run_told = view["run"] or {}
    told = {
        "prediction": told["id"], "answer": _refusal(told) if told.get("error") else told["value"],
        "asked for": moment(told["time"]), "key": told["key"],
        "label": (label["value"] if label["value"] is not None else f"none will come: {label['reason']}") if label else None,
        "version": f"{told['model']}@{told['version']} as {route['mode']}" if told["version"] is not None else None,
        "deployment": f"{deployed['action']} by {deployed['by']} at {moment(deployed['effective_at'])}" if deployed else None,
        "run": f"{run_told['id']}: {causes_in_words(run_told)}" if run_told else None,
        "data": ", ".join(f"{d['dataset']}@{d['version']}" for d in view["data"]),
        "window": f"{moment(window['start'])} to {moment(window['end'])}, {window['rows']} rows" if window else None,
        "alerts": [f"{a['signal']} {a['feature']}".strip() for a in view["alerts"]],
    }  # fmt: skip
    did = view.get("contributions") or {}
    if did:
        told["explained"] = (
            f"{view['explains']} {sum(did.values()) + view['base']:.6g} = {view['base']:.6g} and what the features did"
        )
    rows = [(name, f["value"], f"{did[name]:+.6g}" if name in did else None, f["source"], f["columns"], moment(f["tick"]),
             moment(f["freshness"])) for name, f in view["features"].items()]  # fmt: skip
    return [facts(told), table("Features", ("feature", "value", "did", "source", "columns", "tick", "fresh as of"), rows)]


def _refusal(prediction: Json) -> str:
    fields = ", ".join(prediction.get("unseen") or ())
    return f"none, refused: {prediction['error']}" + (f" ({fields})" if fields else "")


def predictions(view: Json) -> list[RenderableType]:
    """Show answers of the inference server."""
    rows = [(p["id"], p["value"], p.get("probabilities"), p["version"], p["route"]) for p in view["predictions"]]
    return [table("", ("prediction", "value", "probabilities", "version", "route"), rows)]


def planned(view: Json) -> list[RenderableType]:
    """Show what a declaration would change."""
    rows = [
        (d["dataset"], d["version"], d.get("action"), d["rows"], d["verdict"], d["problem"] or _failed(d["checks"]))
        for d in view["datasets"]
    ]
    models = _records("Models", view["models"])
    return [table("Datasets", ("dataset", "version", "action", "rows", "verdict", "checks"), rows), models]


def replayed(view: Json) -> list[RenderableType]:
    """Show a replay: policies side by side, by month, what was held back."""
    plain = {k: v for k, v in view.items() if not isinstance(v, (list, Mapping)) and v is not None}
    policies = [{"policy": name, **told} for name, told in view["policies"].items()]
    held = [{"policy": name, **h} for name, account in view["accounts"].items() for h in account["held_back"]]
    tables = {"Policies": policies, "By month": view["by_month"], "Held back": held}
    homes = [account["home"] for account in view["accounts"].values()]
    looks = [f"every record of it: [dim]mulle --home {escape(home)} history {escape(view['model'])}[/]" for home in homes]
    return [facts(plain), *(_records(title, things) for title, things in tables.items()), *looks]


def doctor(view: Json) -> list[RenderableType]:
    """Show what was tried and its remedy."""
    rows = [(c["name"], c["verdict"], c["detail"], c["next"]) for c in view["checks"]]
    return [table("", ("check", "verdict", "detail", "next"), rows)]


def anything(view: Json) -> list[RenderableType]:
    """Show a document whose shape is its own: facts first, then a table per list or table of things."""
    plain = {k: v for k, v in view.items() if not _tabular(v)}
    shown: list[RenderableType] = [facts(plain)] if plain else []
    for name, value in view.items():
        if _tabular(value):
            things = [{"": key, **row} for key, row in value.items()] if isinstance(value, Mapping) else value
            shown.append(_records(name, things))
    return shown


def _records(title: str, things: Sequence[Json]) -> RenderableType:
    columns = list(dict.fromkeys(column for thing in things for column in thing))
    return table(title, columns, [[thing.get(c) for c in columns] for thing in things])


def _tabular(value: object) -> bool:
    things = list(value.values()) if isinstance(value, Mapping) else value
    return isinstance(things, list) and bool(things) and all(isinstance(t, Mapping) for t in things)
