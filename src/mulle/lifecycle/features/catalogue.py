"""What a feature function gives, column by column: how each is defined, what it reads, and a hash that changes with it."""

from __future__ import annotations

import inspect
import textwrap
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import polars as pl
from polars.io.plugins import register_io_source

from mulle.core.declare.features import Features, History, Join
from mulle.core.errors import MulleError, TransformError
from mulle.core.hashing import hash_json
from mulle.core.records.bundle import JoinSpec
from mulle.kernel.dtypes import dtype_of, dtype_text
from mulle.kernel.rows import raw_inputs
from mulle.kernel.transform import run_transform
from mulle.lifecycle.features.join import join_specs
from mulle.lifecycle.features.windows import sources_of

__all__ = ["Described", "Source", "describe"]

_PROBES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A column that a feature reads.

    Attributes
    ----------
    column : str
        As the function sees it: a raw column, or ``join.column``.
    reads : tuple of str
        ``dataset.column`` it comes from; several for a history's value, none for one that only counts rows.
    """

    column: str
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A feature: one column of a feature function.

    Attributes
    ----------
    id : str
        ``function.name``.
    dtype : str
    definition : str
        The column's own part of the plan, as Polars writes it; it leaves some arguments out.
    file, line : str, int
        Where the function stands.
    hash : str
        Of the definition, of what the function makes of a fixed set of probe rows, of the sources and of the joins'
        definitions; 16 hex digits, the same in every process.
    sources : tuple of Source
    joins : tuple of str
        The joins that its sources come by, those among them that another needs for its key included.
    """

    id: str
    name: str
    function: str
    dtype: str
    definition: str
    file: str
    line: int
    hash: str
    sources: tuple[Source, ...]
    joins: tuple[str, ...]


def describe(
    features: Features, schemas: Mapping[str, Mapping[str, str]], *, hidden: Sequence[str] | None = None
) -> tuple[Described, ...]:
    """Describe every feature of a function.

    What a feature reads is told by Polars itself: the function is run on a source that is asked only for the columns a
    feature needs. Where that cannot be told (a function that collects, or that maps whole frames in Python), it is every
    column. A constant, or Python over whole columns, may name one column more: the one whose length it takes.

    Parameters
    ----------
    features : Features
    schemas : mapping
        Dataset name to its published schema (column to dtype text), of the function's dataset and of every joined one.
    hidden : sequence of str, optional
        Raw columns that no request carries; defaults to the dataset's own.

    Returns
    -------
    tuple of Described
        In the function's order.

    Raises
    ------
    TransformError
        When the function fails.
    """
    dataset, specs = features.dataset, join_specs(features, schemas)
    hide = dataset.hidden if hidden is None else hidden
    inputs = raw_inputs(schemas[dataset.name], hidden=hide, key=dataset.key, time=dataset.time)
    schema = {f.name: dtype_of(f.dtype) for f in inputs}
    schema |= {f"{s.name}.{column}": dtype_of(text) for s in specs for column, text in s.columns.items()}
    traced = _Traced(features, schema)
    probe = _probed(features, schema)
    file, line, source = _place(features)
    described = []
    for name, dtype in traced.schema.items():
        definition, columns = traced.read(name)
        joins = _joins_of(columns, features)
        known = [_join_definition(spec) for spec in specs if spec.name in joins]
        sources = tuple(Source(column=c, reads=_origin(c, features, schemas)) for c in columns)
        behaviour = probe[name] if probe is not None and name in probe else source
        told = [definition, behaviour, [[s.column, s.reads] for s in sources], known, dtype_text(dtype)]
        described.append(
            Described(
                id=f"{features.name}.{name}", name=name, function=features.name, dtype=dtype_text(dtype),
                definition=definition, file=file, line=line, hash=hash_json(told)[:16], sources=sources, joins=joins,
            )
        )  # fmt: skip
    return tuple(described)


class _Traced:
    """A function's plan over a source that notes which columns it is asked for."""

    def __init__(self, features: Features, schema: Mapping[str, pl.DataType]) -> None:
        self._all, self._asked = list(schema), set[str]()
        blank = pl.DataFrame({n: [None] for n in schema}, schema=dict(schema))

        def give(
            with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
        ) -> Iterator[pl.DataFrame]:
            del n_rows, batch_size
            self._asked |= set(self._all if with_columns is None else with_columns)
            rows = blank if with_columns is None else blank.select(with_columns)
            yield rows if predicate is None else rows.filter(predicate)

        try:
            self._plan = features(register_io_source(give, schema=pl.Schema(schema))).lazy()
            self.schema = self._plan.collect_schema()
        except MulleError:
            raise
        except Exception as error:
            said = str(error).splitlines()[0] if str(error) else ""
            raise TransformError(
                f"feature function {features.name} failed: {type(error).__name__}: {said}",
                next="try it with `mulle plan`",
                function=features.name,
            ) from error
        # A function that reads its rows while it is written down may use what it read in any feature.
        self._before = set(self._asked)

    def read(self, name: str) -> tuple[str, tuple[str, ...]]:
        """Give a feature's definition and the columns it reads, in the input's order."""
        self._asked = set()
        plan = self._plan.select(name)
        with suppress(Exception):  # what was asked for is known by then, whatever null rows do to the function
            plan.collect()
        asked = self._asked | self._before if self._asked else set(self._all)
        return _readable(plan, name), tuple(c for c in self._all if c in asked)


def _readable(plan: pl.LazyFrame, name: str) -> str:
    """Write a plan without the lines that tell of its source.

    Examples
    --------
    >>> _readable(pl.LazyFrame({"x": [1]}).select(y=pl.col("x") * 2).select("y"), "y")
    '(col("x") * 2).alias("y")'
    """
    lines = [
        line
        for line in plan.explain().splitlines()
        if not line.strip().startswith(("PYTHON SCAN", "PROJECT ", "DF [", "simple π"))
    ]
    text = textwrap.dedent("\n".join(lines)).strip()
    if text.startswith("SELECT [") and text.endswith("]") and "\n" not in text:
        text = text.removeprefix("SELECT [").removesuffix("]")
    return text or f'col("{name}")'


def _joins_of(columns: Sequence[str], features: Features) -> tuple[str, ...]:
    joins, used = dict(features.joins), set[str]()
    waiting = list(columns)
    while waiting:
        name, dot, _ = waiting.pop().partition(".")
        if dot and name in joins and name not in used:
            used.add(name)
            waiting += joins[name].on
    return tuple(name for name in joins if name in used)


def _origin(column: str, features: Features, schemas: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    name, dot, brought = column.partition(".")
    join: Join | None = dict(features.joins).get(name) if dot else None
    if join is None:
        return (f"{features.dataset.name}.{column}",)
    if not isinstance(join, History):
        return (f"{join.dataset.name}.{brought}",)
    value = tuple((n, e) for n, e in join.values if n == brought)
    alone = History(dataset=join.dataset, on=join.on, by=join.by, window=join.window, every=join.every, values=value)
    return tuple(f"{join.dataset.name}.{c}" for c in sources_of(alone, list(schemas[join.dataset.name])))


def _join_definition(spec: JoinSpec) -> list[object]:
    # The table's name carries a hash of all that defines the join, beside the function's and the join's own name.
    return [spec.name, spec.kind, spec.dataset, list(spec.on), spec.table.rpartition(".")[2]]


def _probed(features: Features, schema: Mapping[str, pl.DataType]) -> dict[str, list[str]] | None:
    """Run the function on rows that are the same everywhere: a plan's text leaves arguments out, their effect shows here."""
    rows = pl.DataFrame([_probe(name, dtype) for name, dtype in schema.items()])
    try:
        made = run_transform(features, rows)
    except MulleError:
        return None
    return {name: [f"{v:.6g}" if isinstance(v, float) else str(v) for v in made[name].to_list()] for name in made.columns}


def _probe(name: str, dtype: pl.DataType) -> pl.Series:
    steps = [(i + zlib.crc32(name.encode()) % 97) * (-1) ** i for i in range(_PROBES - 1)]
    values: list[object]
    if dtype == pl.String:
        values = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ"[abs(s) % 26] * (i % 3 + 1) for i, s in enumerate(steps)]
    elif dtype == pl.Boolean:
        values = [s % 3 == 0 for s in steps]
    elif dtype.is_temporal():
        spread = pl.Series(name, [10_000 + s * 7 for s in steps] + [None], dtype=pl.Int32).cast(pl.Date)
        return spread.cast(pl.Datetime("us")).dt.offset_by("11h").cast(dtype, strict=False) if dtype != pl.Date else spread
    else:
        values = [abs(s) if dtype.is_unsigned_integer() else s * (1 if dtype.is_integer() else 1.7) for s in steps]
    return pl.Series(name, [*values, None], dtype=dtype)


def _place(features: Features) -> tuple[str, int, str]:
    """Tell the file, the line and the text of a function; its name alone where it is in no file."""
    try:
        lines, line = inspect.getsourcelines(features.transform)
        return inspect.getsourcefile(features.transform) or "", line, "".join(lines)
    except (OSError, TypeError):
        return "", 0, features.name
