"""The parts that compare two versions: what changed, row by row and column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mulle.core.records.exploration import ColumnChange, ColumnProfile, Comparison, Difference
from mulle.surfaces.explore.figures import overlay_figure
from mulle.surfaces.explore.parts import Part, code, grid, number, percent, table, words

__all__ = ["distributions", "rows", "schema"]

_CELLS = 60
_ROWS = 10


def schema(found: Difference) -> Part:
    """Columns that came, went or have another type."""
    told = [
        *((code(name), "added", "–", code(dtype)) for name, dtype in found.columns_added.items()),
        *((code(name), "removed", code(dtype), "–") for name, dtype in found.columns_removed.items()),
        *((code(c.column), "another type", code(c.before), code(c.after)) for c in found.columns_retyped),
    ]
    note = "" if told else "Both versions have the same columns and types."
    return Part(
        anchor="schema", title="Schema", note=note, inner=table(("column", "what", "before", "after"), told) if told else ""
    )


def distributions(found: Comparison) -> Part:
    """Every column's values before and after, the largest change first."""
    heads = ("values changed", "PSI", "by chance", "mean or top", "missing", "distinct")
    body = [_cells(change) for change in found.difference.columns]
    names = (found.before.name, found.after.name)
    figures = {f"distribution-{at}": overlay_figure(overlay, names) for at, overlay in enumerate(found.overlays)}
    captions = {f"distribution-{at}": code(overlay.column) for at, overlay in enumerate(found.overlays)}
    key = f'<span class="key before"></span>{code(names[0])}<span class="key after"></span>{code(names[1])}'
    note = (
        "PSI is the population stability index over the deciles (or the values) of the earlier version, missing values left out; "
        "by custom 0.1 is a small change and 0.2 a large one. By chance is what sampling alone would give. Charts show shares "
        "of the values; what lies beyond the middle 99% is counted at the edges."
    )
    inner = table(("column", *heads), body, numbers=(*heads[:3],)) + f"<h3>Before and after{key}</h3>" + grid(captions)
    return Part(anchor="distributions", title="Distributions", note=note, inner=inner, figures=figures)


def rows(found: Difference) -> Part:
    """Samples of the rows that were added, changed and removed."""
    by = ", ".join(found.key)
    note = f"Rows are told apart by {by}." if by else "Without a key in both versions rows are compared whole: none is changed."
    inner = ""
    if found.changed_rows:
        inner += f"<h3>Changed ({found.changed:,})</h3>" + _changed(found)
    for title, count, samples in (("Added", found.added, found.added_rows), ("Removed", found.removed, found.removed_rows)):
        if samples:
            inner += f"<h3>{title} ({count:,})</h3>" + _sampled(samples[:_ROWS])
    return Part(anchor="rows", title="Rows", note=note, inner=inner or '<p class="dim">no row differs</p>')


def _cells(change: ColumnChange) -> tuple[str, ...]:
    psi = number(round(change.psi, 4))
    if change.psi >= 0.2:
        psi = f'<span class="bad">{psi}</span>'
    pairs = [
        _arrow(_middle(change.before), _middle(change.after)),
        _arrow(*(percent(p.missing, p.rows) for p in (change.before, change.after))),
        _arrow(*(number(p.distinct) for p in (change.before, change.after))),
    ]
    return code(change.column), number(change.changed), psi, number(round(change.noise, 4)), *pairs


def _middle(profile: ColumnProfile) -> str:
    if profile.mean is not None:
        return number(profile.mean)
    if profile.top:
        return code(profile.top[0][0])
    return number(profile.quantiles.get("0.5"))


def _arrow(before: str, after: str) -> str:
    return before if before == after else f'<span class="dim">{before} &rarr;</span> {after}'


def _changed(found: Difference) -> str:
    told = []
    for change in found.changed_rows[:_ROWS]:
        key = ", ".join(f"{code(name)} {_cell(value)}" for name, value in change.key.items())
        for at, (name, value) in enumerate(change.after.items()):
            told.append((key if at == 0 else "", code(name), _cell(change.before[name]), _cell(value)))
    return table(("row", "column", "before", "after"), told)


def _sampled(samples: Sequence[Mapping[str, object]]) -> str:
    names = list(samples[0])[:_CELLS]
    return f'<div class="cells">{table(names, [[_cell(row.get(name)) for name in names] for row in samples])}</div>'


def _cell(value: object) -> str:
    # Without thousands: a cell may be an identifier.
    return words("null" if value is None else f"{value:.15g}" if isinstance(value, float) else value)
