"""A fleet as a person reads it in a terminal: its members summed up, and a page of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mulle.surfaces.cli.table import facts, more, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mulle.core.records.base import Json

__all__ = ["fleet", "members"]


def fleet(view: Json | None) -> list[RenderableType]:
    """Sum up a fleet's members, or what a run did with them; nothing for what is no fleet."""
    if view is None:
        return []
    counted = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in view["outcomes"].items() if count)
    told: dict[str, object] = {"members": f"{view['members']:,}: {counted}" if counted else "none yet"}
    if view["better"] is not None:
        told["own against shared"] = f"{view['better']:.3g} of the shared model's metric, in the middle"
    if view.get("canaries"):
        told["in canary"] = ", ".join(view["canaries"][:10]) + (
            f" and {len(view['canaries']) - 10:,} more" if len(view["canaries"]) > 10 else ""
        )
    reasons = [(r["outcome"], r["members"], r["reason"]) for r in view["reasons"]]
    shown: list[RenderableType] = [facts(told)]
    if reasons:
        shown.append(table("Why not", ("outcome", "members", "reason"), reasons))
    if view["worst"]:
        shown.append(table("Members, worst first", _COLUMNS, [_row(i) for i in view["worst"]]))
    return shown


def members(view: Json) -> list[RenderableType]:
    """Show a page of a fleet's members."""
    rows = [(*_row(i), i["champion"], i["canary"]) for i in view["items"]]
    title = f"{len(rows):,} of {view['members']:,} members, worst first"
    return [table(title, (*_COLUMNS, "champion", "canary"), rows), *more(view)]


_COLUMNS = ("member", "outcome", "rows", "metric", "own", "shared", "candidate", "reason")


def _row(item: Json) -> tuple[object, ...]:
    return tuple(item[name] for name in ("model", "outcome", "rows", "metric", "value", "shared", "candidate", "reason"))
