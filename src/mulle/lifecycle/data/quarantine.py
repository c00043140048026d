"""Batches that failed their audit: moved aside with their reasons, and not judged again while they stay the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mulle.core.errors import NotFound
from mulle.core.ports.lake import Lake
from mulle.core.ports.metadata import Datasets
from mulle.core.records.base import Json
from mulle.core.records.dataset import DatasetVersion, Quarantine
from mulle.kernel.faults import point

__all__ = ["ReadingState", "aside", "reading_state", "staging", "turn_away"]

_REMEMBERED = 20
"""Batches that a source's rows are held against: one that gives all rows each time gives the refused ones again."""


@dataclass(frozen=True, slots=True)
class ReadingState:
    """Where reading a source goes on.

    Attributes
    ----------
    positions : dict
        The published version's, or those of the last batch that was turned away since.
    aside : tuple of str
        The last batches that were turned away.
    """

    positions: Json
    aside: tuple[str, ...] = ()


def staging(dataset: str, batch: str) -> str:
    """Name the place of a batch that waits.

    Examples
    --------
    >>> staging("flights", "b1"), aside("flights", "b1")
    ('staging/flights/b1', 'quarantine/flights/b1')
    """
    return f"staging/{dataset}/{batch}"


def aside(dataset: str, batch: str) -> str:
    """Name the place of a batch that failed."""
    return f"quarantine/{dataset}/{batch}"


def reading_state(dataset: str, previous: DatasetVersion | None, lake: Lake, *, anew: bool = False) -> ReadingState:
    """Tell where reading goes on: after the published version, or after what was turned away since (unless `anew`)."""
    published: Json = previous.positions if previous else {}
    kept = lake.read_document(aside(dataset, "_positions"))
    if kept is None or anew:
        return ReadingState(published)
    # A version published after the quarantine was staged from its positions, and is further.
    further = kept["version"] < (previous.version if previous else 0)
    return ReadingState(published if further else kept["positions"], tuple(kept.get("batches", ())))


def turn_away(
    record: Quarantine, batch: str, positions: Json, previous: DatasetVersion | None, lake: Lake, datasets: Datasets
) -> Quarantine:
    """Move a staged batch aside and record why.

    Parameters
    ----------
    record : Quarantine
        Without its address.
    batch : str
    positions : dict
        How far the source was read with it: the next read goes on from there.
    previous : DatasetVersion or None
        The published version, which stays.

    Returns
    -------
    Quarantine
        As recorded. Running it again changes nothing.
    """
    name = aside(record.dataset, batch)
    try:
        rows = lake.parked(staging(record.dataset, batch))
    except NotFound:  # moved by an earlier attempt
        rows = lake.parked(name)
    address = lake.park(name, rows.collect_batches())
    point("during:quarantine")
    state = reading_state(record.dataset, previous, lake)
    batches = [*(b for b in state.aside if b != batch), batch][-_REMEMBERED:]
    after = {"version": previous.version if previous else 0, "positions": positions, "batches": batches}
    lake.write_document(aside(record.dataset, "_positions"), after)
    record = replace(record, address=address)
    datasets.add_quarantine(record)
    point("during:quarantine:recorded")
    lake.unpark(staging(record.dataset, batch))
    return record
