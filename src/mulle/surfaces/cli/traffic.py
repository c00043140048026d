"""Commands about single rows: ask the running server for predictions, tell labels."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mulle.surfaces.cli.session import session

__all__ = ["label", "predict", "predictions", "read_rows", "typed"]


def predict(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]")],
    row: Annotated[list[str] | None, typer.Option(help="One row as a JSON object; may be repeated.")] = None,
    input: Annotated[str | None, typer.Option(help="Rows: a .json, .jsonl or .csv file, or - for JSON on stdin.")] = None,
) -> None:
    """Ask the running server for predictions."""
    from mulle.core.errors import UsageError
    from mulle.surfaces.cli import render
    from mulle.surfaces.reach import input_types, post

    call = session(ctx)
    if (row is None) == (input is None):
        raise UsageError("predict wants rows", next="give --row '{...}' or --input FILE, one of them")
    name, _, version = model.partition("@")
    if row is not None:
        rows = [_object(text, "--row") for text in row]
    else:
        found, untyped = read_rows(str(input), "rows")
        rows = [typed(r, input_types(call.settings, name)) for r in found] if untyped else found
    where = f"/versions/{version}" if version and version != "champion" else ""
    call.show(post(call.settings, f"/v1/models/{name}{where}/predict", {"rows": rows}), render.predictions)


def label(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument()],
    input: Annotated[str, typer.Option(help="Labels: a .csv, .json or .jsonl file, or - for JSON on stdin.")],
    by: Annotated[str | None, typer.Option(help="Who says so (default: the name of your account).")] = None,
) -> None:
    """Tell the true outcomes of earlier predictions, by prediction id or by key and time.

    A CSV has the columns value (or the target's name) and prediction_id, or the dataset's key columns and its time;
    known_at and reason may follow. An empty value says that no label will come, and reason why. A correction is told
    like any other label and kept as a new record. No server needs to run.
    """
    from mulle.loop.data.labels import import_labels
    from mulle.surfaces.cli import render

    call = session(ctx)
    found, untyped = read_rows(input, "labels")
    told = import_labels(call.parts, model, found, by=by or call.by, untyped=untyped)
    call.show(told, render.anything)
    if told["unknown"]:
        raise typer.Exit(1)


def predictions(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this model's.")] = None,
    sql: Annotated[str | None, typer.Option(help="A SELECT over the table predictions (DuckDB's SQL).")] = None,
    since: Annotated[str, typer.Option(help="Rows logged since: a duration back from now, or a time (RFC 3339).")] = "1d",
    limit: Annotated[int, typer.Option(help="At most so many rows.", min=1, max=1_000_000)] = 50,
) -> None:
    """Ask the prediction log, joined with the labels that came: the newest answers, or what a SELECT says.

    What the server logged a moment ago is there too. Columns: id, created_at, request, model, version, route, key, time, row,
    features, value, probabilities, freshness, unseen, seconds, error, day, key_text, label, labelled.
    """
    from mulle.loop.data.predictions import predictions_view
    from mulle.surfaces.cli import shown

    call = session(ctx)
    call.show(predictions_view(call.standing, model, sql=sql, since=since, limit=limit), shown.answer)


def read_rows(source: str, member: str) -> tuple[list[dict[str, Any]], bool]:
    """Read rows from a file or ``-``; the second answer says that every value is text (CSV)."""
    from mulle.core.errors import UsageError

    if source == "-":
        return _from_json(sys.stdin.read(), "standard input", member), False
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", next="name a JSON, JSON lines or CSV file", file=str(path)) from error
    if path.suffix == ".csv":
        return [dict(r) for r in csv.DictReader(io.StringIO(text))], True
    if path.suffix in {".jsonl", ".ndjson"}:
        return [_object(line, str(path)) for line in text.splitlines() if line.strip()], False
    return _from_json(text, str(path), member), False


def _from_json(text: str, where: str, member: str) -> list[dict[str, Any]]:
    from mulle.core.errors import UsageError

    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {error}", next='give [{...}] or {"' + member + '": [{...}]}') from error
    if isinstance(found, dict):
        found = found.get(member, [found])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UsageError(f"{where} is not a list of objects", next='give [{...}] or {"' + member + '": [{...}]}')
    return found


def _object(text: str, where: str) -> dict[str, Any]:
    from mulle.core.errors import UsageError

    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where} {text[:80]!r} is not JSON: {error}", next="""quote it, as in --row '{"x": 1}'""") from error
    if not isinstance(found, dict):
        raise UsageError(f"{where} {text[:80]!r} is not an object", next="""write --row '{"x": 1}'""")
    return found


def typed(row: Mapping[str, str], types: Mapping[str, str]) -> dict[str, Any]:
    """Turn a CSV row's text into the types a model's inputs have; an empty cell is null.

    Examples
    --------
    >>> typed({"distance": "1400", "tailnum": "007", "wind": ""}, {"distance": "INT64", "tailnum": "BYTES"})
    {'distance': 1400, 'tailnum': '007', 'wind': None}
    """
    return {name: _value(text, types.get(name, "BYTES")) for name, text in row.items() if name}


def _value(text: str, kind: str) -> object:
    if text is None or text == "":
        return None
    try:
        if kind == "INT64":
            return int(text)
        if kind == "FP64":
            return float(text)
    except ValueError:
        # The server names row and field in its refusal; guessing here would hide them.
        return text
    return text.lower() in {"true", "1", "yes"} if kind == "BOOL" else text
