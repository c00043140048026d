"""Commands that score many rows: a batch with an end, and a stream without one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from mulle.core.clock import WallClock, rfc3339
from mulle.core.errors import UsageError
from mulle.surfaces.cli.session import Session, session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mulle.core.ports.compute import Compute
    from mulle.core.ports.stream import Flow
    from mulle.core.records.base import Json

__all__ = ["batch", "stream"]


def batch(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]")],
    input: Annotated[
        str, typer.Option(metavar="DATASET[@V]|FILES|URL#TABLE", help="A dataset, files (path, glob, folder, s3://) or a table.")
    ],
    output: Annotated[
        str,
        typer.Option(
            metavar="FOLDER/|NAME|URL#TABLE", help="A folder (its name has a / or .), a table of the lake, or of a database."
        ),
    ],
    format: Annotated[str, typer.Option(help="Of the parts in a folder: parquet, csv or jsonl.")] = "parquet",
    keep: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Also write this column of the input.")] = None,
    processes: Annotated[int, typer.Option(help="Processes that score side by side.", min=1)] = 1,
    max_rejected: Annotated[float, typer.Option(help="Share of rows that may break the contract.", min=0, max=1)] = 0.1,
    anew: Annotated[bool, typer.Option("--anew", help="Begin again, whatever is done.")] = False,
) -> None:
    """Score many rows with a version's bundle, in bounded memory; a killed job goes on where it was.

    Rows that break the contract are set apart with their reasons; exit 1 when they are more than --max-rejected.
    What scored what stands in the manifest: `mulle explain OUTPUT` shows it.
    """
    from mulle.loop.batch.job import run_batch
    from mulle.loop.batch.plan import Order

    call = session(ctx)
    order = Order(model=model, input=input, output=output, format=format, keep=tuple(keep or ()), max_rejected=max_rejected)
    with _computing(call, processes) as compute, _rows_told(call, f"batch {model}") as told:
        manifest = run_batch(
            call.parts, order, causes=(call.person("asked for on the command line"),), compute=compute, processes=processes,
            anew=anew, told=told,
        )  # fmt: skip
    call.show(manifest, scored)


def stream(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]")],
    input: Annotated[str, typer.Option(metavar="URL", help="kafka://HOST:PORT/TOPIC; librdkafka's options after a ?.")],
    output: Annotated[str, typer.Option(metavar="URL", help="kafka://HOST:PORT/TOPIC, on the same brokers.")],
    dead_letter: Annotated[
        str, typer.Option(metavar="TOPIC", help="Where messages that cannot be answered go; without one they end the stream.")
    ] = "",
    group: Annotated[str, typer.Option(help="Consumer group (default: mulle-MODEL).")] = "",
    registry: Annotated[str, typer.Option(metavar="URL", help="Schema registry; messages may then be Avro.")] = "",
    format: Annotated[str, typer.Option(help="Of the answers: json or avro.")] = "json",
    most: Annotated[int, typer.Option(help="Messages in one transaction.", min=1, max=100_000)] = 2_000,
    linger: Annotated[str, typer.Option(help="How long a transaction waits for more messages.")] = "50ms",
    metrics_port: Annotated[int, typer.Option(help="Port of /metrics (0: any free one).")] = 8802,
) -> None:
    """Answer a topic's messages into another, each exactly once, until Ctrl-C or SIGTERM.

    More processes of one group share the partitions. The routes are followed while it runs; answers are logged like the
    server's.
    """
    from mulle.bootstrap.inference import wire_stream
    from mulle.core.clock import duration
    from mulle.kernel.pauses import shorten_pauses
    from mulle.lifecycle.serving.streaming import StreamOrder
    from mulle.surfaces.door import check_binding
    from mulle.surfaces.flow_metrics import FlowMetrics, serve_metrics

    call = session(ctx)
    if format not in {"json", "avro"}:
        raise UsageError(f"no format '{format}'", next="choose json or avro")
    check_binding(call.settings)
    order = StreamOrder(
        model=model, input=input, output=output, dead=dead_letter, group=group, registry=registry, format=format, most=most,
        linger=duration(linger).total_seconds(),
    )  # fmt: skip
    flow, handler = wire_stream(call.settings, order, say=lambda words: call.err.print(words, markup=False))
    port = serve_metrics(FlowMetrics(model.partition("@")[0], flow.flow, handler.tally), call.settings.host, metrics_port)
    call.err.print(f"metrics  http://{call.settings.host}:{port}/metrics")
    shorten_pauses()
    with _asked_to_stop() as stopping:
        try:
            flow.run(handler, stopping)
        finally:
            handler.close()
    call.show(_ended(group or f"mulle-{model}", model, flow.flow), _flowed)


def _ended(group: str, model: str, counted: Flow) -> Json:
    told: Json = {"id": group, "created_at": rfc3339(WallClock().now()), "model": model, "answered": counted.answered}
    return {**told, "dead": counted.dead, "skipped": counted.skipped, "transactions": counted.transactions}


def _flowed(view: Json) -> list[RenderableType]:
    return [f"answered {view['answered']:,} messages, {view['dead']:,} went to the dead letters"]


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Give what is set when the process is asked to end."""
    stopping = threading.Event()
    before = {s: signal.signal(s, lambda *_: stopping.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def scored(view: Json) -> list[RenderableType]:
    """Render a batch job's manifest."""
    made = view["output"]
    where = made.get("folder") or (made["table"] if made["format"] == "sql" else f"the lake's table {made['table']}")
    what = f"{view['input']['name']}{'@' + str(view['input']['version']) if 'version' in view['input'] else ''}"
    lines = [f"{view['model']}@{view['version']} scored {view['rows_out']:,} of {view['rows_in']:,} rows of {what} into {where}"]
    if by := view.get("members"):
        lines.append(f"{by['rows']:,} of them by {by['models']:,} members' own models")
    if view["state"] != "done":
        lines.append(f"the job is {view['state']}: {view['chunks']['done']} of {view['chunks']['all']} chunks are done")
    if view["rejected"]:
        lines.append(f"{view['rejected']:,} rows were set apart, see {view['rejects']}")
        lines += [f"  {item['rows']:,} x {item['reason']}" for item in view["reasons"][:5]]
    joined = ", ".join(f"{name}@{version}" for name, version in view["joined"].items())
    lines += [f"joined at each row's own time: {joined}"] if joined else []
    return [*lines, f"job {view['id']}, bundle {view['bundle']}"]


@contextmanager
def _computing(call: Session, processes: int) -> Iterator[Compute | None]:
    """Give compute where chunks are to be done elsewhere; None for one after the other, here."""
    from mulle.bootstrap.processes import batch_compute

    if processes == 1 and call.settings.compute == "local":
        yield None
        return
    compute = batch_compute(call.settings, processes)
    try:
        yield compute
    finally:
        compute.close()


@contextmanager
def _rows_told(call: Session, title: str) -> Iterator[Callable[[int, int, int], None]]:
    """Draw a bar in a terminal; say nothing elsewhere."""
    if not call.err.is_terminal:
        yield lambda *_: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=call.err, transient=True) as bar:
        task = bar.add_task(title)

        def told(rows: int, rejected: int, whole: int) -> None:
            aside = f", {rejected:,} set apart" if rejected else ""
            bar.update(task, completed=rows, total=whole, description=f"{title}{aside}")

        yield told
