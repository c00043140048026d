"""The wired parts that the loop works with; `bootstrap` makes them, tests make them with other stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from mulle.core.clock import Clock
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.project import Project
from mulle.core.ports.alerts import Receiver
from mulle.core.ports.compute import Compute
from mulle.core.ports.lake import Lake, Vacuum
from mulle.core.ports.metadata import Metadata
from mulle.core.ports.online import Online
from mulle.core.ports.rowfiles import RowFiles
from mulle.core.ports.rowtable import RowTable
from mulle.core.ports.source import SourceReader
from mulle.core.ports.traces import Traces
from mulle.core.ports.tracking import Tracking
from mulle.core.settings import Settings

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the loop needs, passed explicitly.

    Attributes
    ----------
    settings : Settings
        Resolved.
    clock : Clock
        Where every rule takes `now` from.
    project : Project
        The declaration in force.
    metadata, lake, online : ports
        The stores.
    vacuum : callable
        Clears out the lake's superseded files.
    tracking, compute : callables
        Make the part at first use (both are slow to start).
    source, labels : callables
        Give a dataset's reader, and that of its labels (None when it declares none).
    opened : callable
        Opens another project's lake, read-only, by the address of a shared dataset.
    playback : callable
        Gives a reader that plays a frame back as it became available; takes the frame and that column.
    files : RowFiles
        Files that batch jobs read by spans.
    table : callable
        Opens a database's table that batch jobs write to, by ``URL#TABLE``.
    receivers : callable
        Makes those who are told of alerts (slow: the library behind them is large).
    traces : Traces or None
        Where the spans of runs go.
    """

    settings: Settings
    clock: Clock
    project: Project
    metadata: Metadata
    lake: Lake
    vacuum: Vacuum
    online: Online
    tracking: Callable[[], Tracking]
    compute: Callable[[], Compute]
    source: Callable[[Dataset], SourceReader]
    labels: Callable[[Dataset], SourceReader | None]
    opened: Callable[[str], tuple[Lake, str]]
    playback: Callable[[pl.DataFrame, str | None], SourceReader]
    files: RowFiles
    table: Callable[[str], RowTable]
    receivers: Callable[[], Sequence[Receiver]]
    traces: Traces | None
