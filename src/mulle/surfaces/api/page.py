"""The status page and the API's reference as plain HTML: no script, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from mulle.surfaces.words import causes_in_words, cell, moment, server_in_words, turned_away_in_words

__all__ = ["reference_page", "status_page"]

_STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1c1c1a, #ececea); --soft: light-dark(#6a6a66, #a3a39d);
  --line: light-dark(#e2e1dc, #3a3a37); --page: light-dark(#fdfdfb, #191918); --good: light-dark(#1f7a3d, #6cc58a);
  --bad: light-dark(#b3261e, #f28b82); --mid: light-dark(#8a6100, #e3b341); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto; max-width: 62rem;
  padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.soft, th { color: var(--soft); font-weight: normal; } a { color: inherit; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { min-width: 5.5rem; overflow-wrap: anywhere; }
li { margin: .4rem 0; } code { font-size: .9em; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); } .mid { color: var(--mid); }
"""

_MOODS = {
    "healthy": "good", "succeeded": "good", "closed": "good", "alarmed": "bad", "rejected": "bad", "failed": "bad",
    "open": "bad", "canary": "mid", "running": "mid", "queued": "mid", "training": "mid",
}  # fmt: skip

Document = Mapping[str, Any]


def status_page(status: Document, runs: Document, alerts: Document, *, tracking: str, inference: str) -> str:
    """Render the front page from the views.

    Parameters
    ----------
    status, runs, alerts : dict
        As the views give them.
    tracking : str
        MLflow's address; a password in it is not shown.
    inference : str
        URL of the inference server.
    """
    engine = status["engine"]
    runs_table = _table(
        ("run", "model", "state", "started", "cause", "version", "reason"),
        ((i["id"], i["model"], _State(i["state"]), moment(i["created_at"]), causes_in_words(i), i["model_version"], i["reason"])
         for i in runs["items"]),
    )  # fmt: skip
    alerts_table = _table(
        ("model", "signal", "state", "opened", "closed", "look closer"),
        ((i["model"], f"{i['signal']} {i['feature']}", _State(i["state"]), moment(i["opened_at"]), moment(i["closed_at"]),
          i["next"])
         for i in alerts["items"]),
    )  # fmt: skip
    says = "".join(f"<li>{_mood('●', m['state'])} {escape(m['says'])}{_traffic(m)}</li>" for m in status["models"])
    if status["project"]["state"] == "broken":
        broken = f"project.py is broken, the last good declaration goes on: {status['project']['detail']}"
        says = f"<li>{_mood('●', 'failed')} {escape(broken)}</li>{says}"
    for batch in status.get("turned_away", ()):
        says += f"<li>{_mood('●', 'rejected')} {escape(turned_away_in_words(batch))}</li>"
    if silent := server_in_words(status):
        says = f"<li>{_mood('●', 'failed')} {escape(silent)}</li>{says}"
    running = f"runs, pid {engine['pid']}" if engine["state"] == "running" else "does not run"
    as_of, home, store = (escape(t) for t in (moment(status["created_at"]), engine["home"], _without_password(tracking)))
    body = f"""
<h1>Mulle</h1>
<p class="soft">The engine {escape(running)}. Home <code>{home}</code>. As of {as_of} UTC.</p>
<h2>Models</h2><ul>{says or "<li>No model is declared.</li>"}</ul>
<h2>Last runs</h2>{runs_table}
<h2>Last alerts</h2>{alerts_table}
<h2>Elsewhere</h2>
<ul><li><a href="/docs">The API's reference</a>, <a href="/openapi.json">its OpenAPI document</a>, and
<a href="/api/v1/status">this page as JSON</a></li>
<li>Predictions and labels: <code>{escape(inference)}</code>; <a href="{escape(inference)}/docs">try a model</a></li>
<li>MLflow's own page over trials and versions: <code>mlflow ui --backend-store-uri {store}</code></li></ul>
"""
    return _page("Mulle", body, refresh=15)


def reference_page(openapi: Document) -> str:
    """Render an OpenAPI document as a plain list of what can be called."""
    parts = ['<h1>Mulle\'s API</h1><p><a href="/openapi.json">OpenAPI document</a>, <a href="/">status</a></p>']
    for path, methods in openapi["paths"].items():
        for method, told in methods.items():
            parameters = [
                f"{p['name']} ({p['in']}{', required' if p.get('required') else ''})" for p in told.get("parameters", [])
            ]
            takes = f'<br><span class="soft">{escape(", ".join(parameters))}</span>' if parameters else ""
            body = _body_fields(openapi, told)
            sends = f'<br><span class="soft">JSON body: {escape(", ".join(body))}</span>' if body else ""
            words = escape(told.get("description", told.get("summary", "")))
            parts.append(f"<p><code><b>{escape(method.upper())}</b> {escape(path)}</code><br>{words}{takes}{sends}</p>")
    return _page("Mulle's API", "".join(parts))


def _body_fields(openapi: Document, told: Document) -> list[str]:
    schema = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    name = str(schema.get("$ref") or next((s["$ref"] for s in schema.get("anyOf", []) if "$ref" in s), "")).rsplit("/", 1)[-1]
    return list(openapi.get("components", {}).get("schemas", {}).get(name, {}).get("properties", {}))


class _State(str):
    """A value that is shown in the colour of its mood."""


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    if not body:
        return '<p class="soft">None.</p>'
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    return _mood(str(value), str(value)) if isinstance(value, _State) else escape(cell(value))


def _mood(text: str, state: str) -> str:
    return f'<span class="{_MOODS.get(state, "soft")}">{escape(text)}</span>'


def _traffic(model: Document) -> str:
    told = f"{model['traffic_1h']} rows in the last hour"
    if model["next_run"]:
        told += f"; next run {moment(model['next_run'])}"
    return f'<br><span class="soft">{escape(told)}</span>'


def _without_password(address: str) -> str:
    return re.sub(r"(//[^:/@]+):[^@/]+@", r"\1:***@", address)


def _page(title: str, body: str, refresh: int | None = None) -> str:
    again = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">{again}'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )
