"""Datasets as a person reads them in a terminal: batches, checks, differences, features, erasures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from mulle.surfaces.cli.table import facts, more, table
from mulle.surfaces.words import causes_in_words, cell, moment

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mulle.core.records.base import Json

__all__ = [
    "answer", "check_history", "checked", "difference", "erased", "features", "ingested", "shared", "swept", "tagged", "version",
]  # fmt: skip

_BARS = "▁▂▃▄▅▆▇█"
_FEW = 5


def ingested(view: Json) -> list[RenderableType]:
    """Show what an ingest did with each dataset, and why a batch was turned away."""
    columns = ("dataset", "action", "version", "rows", "added", "replaced", "checks")
    rows = [
        (i["dataset"], i["action"], i["version"], i["rows"], i["added"], i["replaced"], i["verdict"] if i["checks"] else None)
        for i in view["items"]
    ]
    shown = [table("Ingested", columns, rows)]
    for item in view["items"]:
        bad = [c for c in item["checks"] if c["verdict"] != "pass"]
        if bad:
            shown += [_checks(f"{item['dataset']}: checks that did not pass", bad), *_samples(bad)]
        if item["action"] == "quarantined":
            then = "mend them where they come from; if the check was wrong, mend it and ingest with --again"
            shown.append(Text(f"{item['added']:,} rows of {item['dataset']} were turned away to {item['address']}: {then}"))
    return shown


def checked(view: Json) -> list[RenderableType]:
    """Show a dataset's check results, and samples of what failed."""
    what = f"{view['dataset']}@{view['version']}" if view["version"] else f"{view['dataset']}, as its source gives it"
    head = facts({"dataset": what, "rows": view["rows"], "verdict": view["verdict"], "at": moment(view["created_at"])})
    if not view["version"] and not view["checks"]:
        return [head, "[dim]nothing new at the source[/]"]
    return [head, _checks("Checks", view["checks"]), *_samples([c for c in view["checks"] if c["verdict"] != "pass"])]


def check_history(view: Json) -> list[RenderableType]:
    """Show how each check went so far: a bar per publish, refusal or audit, by the share of rows that failed."""
    names = dict.fromkeys(c["name"] for i in view["items"] for c in i["checks"])
    rows = []
    for name in names:
        found = [next((c for c in i["checks"] if c["name"] == name), None) for i in view["items"]]
        bars = "".join(" " if c is None else _bar(c["failed"] / max(c["rows"], 1)) for c in found)
        known = [c for c in found if c is not None]
        failed = sum(c["verdict"] == "fail" for c in known)
        rows.append((name, bars, len(known), failed, known[-1]["verdict"], known[-1]["detail"]))
    events = [(moment(i["created_at"]), i["kind"], i["version"], i["rows"], i["verdict"]) for i in reversed(view["items"][-20:])]
    return [
        table("Checks over time", ("check", "share failed", "times", "failed", "last", "said"), rows),
        table("Looked at", ("when", "what", "version", "rows", "verdict"), events),
    ]


def difference(view: Json) -> list[RenderableType]:
    """Show how two versions of a dataset differ."""
    told = {
        "dataset": f"{view['dataset']}@{view['before']} to @{view['after']}",
        "rows": f"{view['rows_before']:,} to {view['rows_after']:,}",
        "added": f"{view['added']:,}",
        "changed": f"{view['changed']:,}",
        "removed": f"{view['removed']:,}",
        "compared by": ", ".join(view["key"]) or "whole rows",
    }
    schema = [("added", n, t) for n, t in view["columns_added"].items()]
    schema += [("removed", n, t) for n, t in view["columns_removed"].items()]
    schema += [("retyped", r["column"], f"{r['before']} to {r['after']}") for r in view["columns_retyped"]]
    moved = [c for c in view["columns"] if c["changed"] or c["psi"] > c["noise"]]
    columns = [(c["column"], c["psi"], c["changed"], _pair(c, "mean"), _pair(c, "missing"), _pair(c, "distinct")) for c in moved]
    shown = [facts(told)]
    if schema:
        shown.append(table("Schema", ("change", "column", "type"), schema))
    head = ("column", "psi", "changed rows", "mean", "missing", "distinct")
    shown.append(table("Columns that moved, most first", head, columns))
    if view["changed_rows"]:
        changes = [
            (", ".join(cell(v) for v in row["key"].values()), name, row["before"][name], row["after"][name])
            for row in view["changed_rows"][:_FEW]
            for name in row["before"]
        ]
        few = min(_FEW, len(view["changed_rows"]))
        heads = (", ".join(view["key"]), "column", "before", "after")
        shown.append(table(f"Changed: {few} of {view['changed']:,} rows", heads, changes))
    return shown


def tagged(view: Json) -> list[RenderableType]:
    """Say which version a tag names now."""
    return [Text(f"{view['id']} is {view['dataset']}@{view['version']}")]


def shared(view: Json) -> list[RenderableType]:
    """Say where a dataset is shared, and how it is read from there."""
    if view["url"] is None:
        return [Text(f"{view['dataset']} is shared no longer")]
    how = f'ml.read("{view["url"]}") reads it once; as the source of a dataset, ml.Shared("{view["url"]}") follows it'
    return [Text(view["url"]), Text(how, style="dim")]


def version(view: Json) -> list[RenderableType]:
    """Show one dataset version."""
    told = {"version": f"{view['dataset']}@{view['version']}", "rows": view["rows"], "hash": view["hash"]}
    return [facts({**told, "published": moment(view["created_at"]), "cause": causes_in_words(view)})]


def features(view: Json) -> list[RenderableType]:
    """Show the feature registry."""
    heads = ("feature", "type", "definition", "reads", "models", "hash", "online")
    functions: dict[str, list[tuple[object, ...]]] = {}
    for i in view["items"]:
        reads = list(dict.fromkeys(name for source in i["sources"] for name in source["reads"]))
        row = (i["name"], i["dtype"], i["definition"], reads, i["models"], i["hash"], _fresh(i["freshness"]))
        functions.setdefault(i["function"], []).append(row)
    if not functions:
        return [table("Features", heads, [])]
    return [*(table(name, heads, rows) for name, rows in functions.items()), *more(view)]


def answer(view: Json) -> list[RenderableType]:
    """Show the rows that a query gave."""
    names = list(view["columns"])
    return [table("", names, [[i[n] for n in names] for i in view["items"]])]


def erased(view: Json) -> list[RenderableType]:
    """Show what an erasure removed, and where."""
    rows = [(place, count) for place, count in view["removed"].items()]
    told = {"dataset": view["dataset"], "by": view["by"], "when": moment(view["created_at"]), "because": causes_in_words(view)}
    what = "version" if len(view["lost"]) == 1 else "versions"
    lost = [f"[yellow]{what} {cell(view['lost'])} had been taken back and can no longer be read[/]"] if view["lost"] else []
    after = "erase the rows at the source as well: what it still gives is ingested again"
    held = [f"[yellow]backups that hold the rows still: {cell(view['backups'])}[/]"] if view["backups"] else []
    return [facts(told), table("Removed", ("where", "how many"), rows), *lost, *held, f"[dim]{after}[/]"]


def _checks(title: str, checks: Sequence[Json]) -> RenderableType:
    rows = [(c["name"], c["severity"], c["verdict"], c["failed"], c["rows"], c["value"], c["detail"]) for c in checks]
    return table(title, ("check", "severity", "verdict", "failed", "rows", "value", "said"), rows)


def _samples(checks: Sequence[Json]) -> list[RenderableType]:
    shown = []
    for found in checks:
        if found["samples"]:
            names = list(found["samples"][0])
            rows = [[sample.get(n) for n in names] for sample in found["samples"][:_FEW]]
            shown.append(table(f"{found['name']}: {len(rows)} of {found['failed']:,} rows", names, rows))
    return shown


def _bar(share: float) -> str:
    return _BARS[0] if share <= 0 else _BARS[min(1 + int(share * (len(_BARS) - 1)), len(_BARS) - 1)]


def _pair(column: Json, name: str) -> str:
    before, after = (column.get(side) or {} for side in ("before", "after"))
    first, last = (cell(side.get(name)) for side in (before, after))
    return first if first == last else f"{first} to {last}"


def _fresh(freshness: Mapping[str, Json]) -> str:
    return ", ".join(f"{join} {moment(told.get('until'))}" for join, told in freshness.items() if told)


def swept(view: Json) -> list[RenderableType]:
    """Show what went, or would go, how much that is, and what waits for who is away."""
    if view["waiting"]:
        held = [(i["kind"], i["address"], i["why"]) for i in view["waiting"]]
        return [*swept({**view, "waiting": []}), table("Waits for the next clean-up", ("kind", "address", "why"), held)]
    if not view["items"]:
        return ["nothing to remove: no logged row is older than its model keeps it, and nothing that no record needs than keep"]
    rows = [(i["kind"], i.get("model"), i["address"], i.get("rows"), i["bytes"], i["why"]) for i in view["items"]]
    freed = f"{len(rows)} items, {sum(i['bytes'] for i in view['items']) / 1e6:.1f} MB"
    return [
        table("Removed" if view["removed"] else "Would go", ("kind", "model", "address", "rows", "bytes", "why"), rows),
        freed,
    ]
