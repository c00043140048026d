"""Commands about datasets: bring rows in, check, compare, name, go back, look into, share, forget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mulle.surfaces.cli.session import session, write_page

if TYPE_CHECKING:
    from mulle.core.records.base import Json

__all__ = [
    "check", "diff", "explore", "features", "forget", "ingest", "ls", "restore", "share", "sql", "suggest", "tag", "versions",
]  # fmt: skip

OneDataset = Annotated[str, typer.Argument(metavar="DATASET")]
Named = Annotated[str, typer.Argument(metavar="DATASET[@VERSION]")]
Limit = Annotated[int, typer.Option(help="At most so many.", min=1)]


def ls(ctx: typer.Context) -> None:
    """List datasets with their last version."""
    from mulle.loop.views.chain import datasets_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    call.show(datasets_view(call.parts), render.datasets)


def ingest(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[DATASET]...", help="Default: all.")] = None,
    bulk: Annotated[
        bool, typer.Option("--bulk", help="The rows are history loaded late: they count as available from known_at on.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Also judge again what was turned away since the last version.")] = False,
) -> None:
    """Read what is new at the sources, check it and publish it; exit 1 when a batch is turned away."""
    from mulle.loop.data.ingest import ingest_all
    from mulle.surfaces.cli import shown

    call = session(ctx)
    told = ingest_all(
        call.parts,
        names or None,
        causes=(call.person("asked for on the command line"),),
        bulk=True if bulk else None,
        anew=again,
        progress=lambda name, what: call.err.print(f"{name}: {what}"),
    )
    call.show(told, shown.ingested)
    if any(item["verdict"] == "fail" for item in told["items"]):
        raise typer.Exit(1)


def check(
    ctx: typer.Context,
    name: Named,
    new: Annotated[bool, typer.Option("--new", help="Look at what the source would bring, without publishing it.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Show how each check went so far.")] = False,
) -> None:
    """Run a dataset's checks and keep the results; exit 1 when one fails."""
    from mulle.loop.data.datasets import check_dataset, check_history
    from mulle.surfaces.cli import shown

    call = session(ctx)
    if history:
        call.show(check_history(call.parts, name.partition("@")[0]), shown.check_history)
        return
    told = check_dataset(call.parts, name, causes=(call.person("asked for on the command line"),), fresh=new)
    call.show(told, shown.checked)
    if told["verdict"] == "fail":
        raise typer.Exit(1)


def versions(
    ctx: typer.Context,
    dataset: OneDataset,
    limit: Limit = 50,
    after: Annotated[int | None, typer.Option(help="Continue below this version.")] = None,
) -> None:
    """List a dataset's versions and the batches that were turned away."""
    from mulle.loop.views.chain import versions_view
    from mulle.surfaces.cli import render

    call = session(ctx)
    call.show(versions_view(call.parts, dataset, limit=limit, after=after), render.data)


def diff(ctx: typer.Context, before: Named, after: Named) -> None:
    """Compare two versions: rows added, changed and removed, schema, each column's distribution."""
    from mulle.loop.data.datasets import diff_versions
    from mulle.surfaces.cli import shown

    call = session(ctx)
    if "@" not in after:
        after = f"{before.partition('@')[0]}@{after}"
    call.show(diff_versions(call.parts, before, after), shown.difference)


def tag(ctx: typer.Context, name: Named, tag: Annotated[str, typer.Argument(help="Such as 2013-q1.")]) -> None:
    """Name a version; the name can stand wherever a version can."""
    from mulle.loop.data.datasets import tag_version
    from mulle.surfaces.cli import shown

    call = session(ctx)
    call.show(tag_version(call.parts, name, tag), shown.tagged)


def restore(ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="DATASET@VERSION")]) -> None:
    """Publish an earlier version's rows again, as the next version."""
    from mulle.core.errors import UsageError
    from mulle.loop.data.datasets import restore_version
    from mulle.loop.views.chain import version_view
    from mulle.surfaces.cli import shown

    call = session(ctx)
    if "@" not in name:
        raise UsageError(f"restore {name}: to which version?", next=f"write {name}@VERSION; see `mulle data versions {name}`")
    made = restore_version(call.parts, name, causes=(call.person(f"went back to {name}"),))
    call.show(version_view(call.parts, made), shown.version)


def explore(
    ctx: typer.Context,
    name: Named,
    later: Annotated[str | None, typer.Argument(metavar="[V2]", help="With --compare V1: the later version.")] = None,
    output: Annotated[Path | None, typer.Option(help="The page's file (default: DATASET-explored.html here).")] = None,
    target: Annotated[str | None, typer.Option(help="The column to relate others to (default: the first outcome).")] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="V1", help="An earlier version to lay beside it: --compare V1, or --compare V1 V2.")
    ] = None,
) -> None:
    """Write one HTML page about a version: distributions, missing values, outliers, relations, trend."""
    from mulle.core.clock import rfc3339
    from mulle.core.errors import UsageError
    from mulle.core.records.exploration import Comparison
    from mulle.loop.data.datasets import explore_dataset
    from mulle.surfaces.explore.page import render

    call = session(ctx)
    if later is not None:
        if compare is None or "@" in name:
            raise UsageError(
                f"'{later}' is one version too many", next="write mulle data explore DATASET --compare V1 V2, or DATASET@V2 alone"
            )
        name = f"{name}@{later}"
    with call.waiting(f"looking into {name}"):
        found = explore_dataset(call.parts, name, target=target, compare=compare)
        file = output or Path(f"{name.replace('@', '-')}-explored.html")
        write_page(file, render(found))
    sides = [found.before.name, found.after.name] if isinstance(found, Comparison) else [found.name]
    told: Json = {"id": " and ".join(sides), "created_at": rfc3339(call.parts.clock.now()), "dataset": name.partition("@")[0]}
    told |= {"versions": [int(side.partition("@")[2]) for side in sides], "page": str(file.absolute())}
    call.show(told, lambda view: [f"the page is {view['page']}"])


def suggest(ctx: typer.Context, name: Named) -> None:
    """Propose checks from a profile of the rows, as Python to paste."""
    from mulle.loop.data.datasets import suggest_checks

    call = session(ctx)
    told = suggest_checks(call.parts, name)
    call.show(told, lambda view: [call.plain(view["text"])])


def features(
    ctx: typer.Context, function: Annotated[str | None, typer.Argument(help="Only this feature function.")] = None
) -> None:
    """List features: definition, sources, models that use them, freshness."""
    from mulle.core.errors import NotFound
    from mulle.loop.data.catalogue import features_view
    from mulle.surfaces.cli import shown

    call = session(ctx)
    view = features_view(call.parts)
    if function is not None:
        declared = call.parts.project.features
        if function not in declared:
            raise NotFound(f"no feature function '{function}'", next=f"declared: {', '.join(declared) or 'none'}")
        view["items"] = [i for i in view["items"] if i["function"] == function]
    call.show(view, shown.features)


def sql(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(help="A SELECT; each published dataset is a table of its name.")],
    limit: Limit = 100,
) -> None:
    """Ask the published datasets by SQL (DuckDB)."""
    from mulle.loop.data.datasets import query as ask
    from mulle.surfaces.cli import shown

    call = session(ctx)
    told = ask(call.parts, query, limit=limit)
    call.show(told, shown.answer)
    if len(told["items"]) == limit:
        call.err.print(f"stopped after {limit:,}: a higher --limit gives more")


def share(
    ctx: typer.Context, dataset: OneDataset, stop: Annotated[bool, typer.Option("--stop", help="Share it no longer.")] = False
) -> None:
    """Let other projects read a dataset's published versions; prints the URL that ml.Shared and ml.read take."""
    from mulle.loop.data.share import share as tell
    from mulle.loop.data.share import unshare
    from mulle.surfaces.cli import shown

    call = session(ctx)
    call.show((unshare if stop else tell)(call.parts, dataset), shown.shared)


def forget(
    ctx: typer.Context,
    dataset: OneDataset,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="A value; origin=JFK,dest=LAX for several columns.")],
    why: Annotated[str, typer.Option(help="The request this answers, kept with the record.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase rows by key for good: table and its past, quarantine, samples, prediction log, labels, online store.

    The one edit of the past, and itself recorded (keys only as salted hashes). Erase at the source as well, or it brings
    the rows again.
    """
    from mulle.core.records.base import to_json
    from mulle.loop.keeping.forget import forget as erase
    from mulle.surfaces.cli import shown

    call = session(ctx)
    if not yes:
        typer.confirm(f"Erase {len(keys)} key(s) of {dataset} for good?", abort=True, err=True)
    record = erase(call.parts, dataset, keys, by=call.by, causes=(call.person(why),))
    call.show(to_json(record), shown.erased)
