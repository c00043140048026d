"""Stage 1's records in the database: published versions, quarantined batches, tags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, Table, func, select, update

from mulle.adapters.metadata.database import Database, dump, insert_once, instant, load, microseconds, newest_first
from mulle.adapters.metadata.tables import audits, dataset_versions, erasures, quarantines, tags
from mulle.core.errors import Conflict
from mulle.core.records.base import Json
from mulle.core.records.dataset import Audit, CheckResult, DatasetVersion, Erasure, Quarantine, Tag

__all__ = ["SqlDatasets"]


class SqlDatasets:
    """Meets `mulle.core.ports.metadata.Datasets`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, version: DatasetVersion) -> DatasetVersion:
        """Add a published version; see the port."""
        row = {
            "id": version.id,
            "dataset": version.dataset,
            "version": version.version,
            "created_at": microseconds(version.created_at),
            "record": dump(version),
        }
        with self._database.write() as connection:
            stored = _stored(connection, version.id)
            if stored is not None:
                return stored
            expected = _last(connection, version.dataset) + 1
            if version.version == expected and insert_once(connection, dataset_versions, ("dataset", "version"), row):
                return version
            # Between the two looks another process may have added this very version.
            stored = _stored(connection, version.id)
            if stored is not None:
                return stored
        raise Conflict(
            f"{version.dataset}@{version.version} cannot be added: the next version is {expected}",
            next="another run published meanwhile; read the last version and publish on top of it",
            dataset=version.dataset,
        )

    def get(self, dataset: str, version: int | None = None) -> DatasetVersion | None:
        """Return one version, by default the last; see the port."""
        table = dataset_versions
        query = select(table.c.record).where(table.c.dataset == dataset)
        query = query.order_by(table.c.version.desc()).limit(1) if version is None else query.where(table.c.version == version)
        return next(iter(self._database.records(DatasetVersion, query)), None)

    def versions(self, dataset: str, limit: int = 100, after: int | None = None) -> Sequence[DatasetVersion]:
        """List versions, newest first; see the port."""
        table = dataset_versions
        query = select(table.c.record).where(table.c.dataset == dataset).order_by(table.c.version.desc()).limit(limit)
        return self._database.records(DatasetVersion, query if after is None else query.where(table.c.version < after))

    def names(self) -> Sequence[str]:
        """List the datasets that have a version, sorted."""
        return self._database.names(dataset_versions.c.dataset)

    def add_quarantine(self, batch: Quarantine) -> None:
        """Add the record of a batch that was turned away."""
        self._add(quarantines, batch)

    def quarantines(self, dataset: str | None = None, limit: int = 100) -> Sequence[Quarantine]:
        """List quarantined batches, newest first."""
        query = newest_first(quarantines, limit)
        return self._database.records(Quarantine, query if dataset is None else query.where(quarantines.c.dataset == dataset))

    def add_audit(self, audit: Audit) -> None:
        """Add the results of checks that were run without publishing."""
        self._add(audits, audit)

    def audits(self, dataset: str, limit: int = 100) -> Sequence[Audit]:
        """List a dataset's audits, newest first."""
        return self._database.records(Audit, newest_first(audits, limit).where(audits.c.dataset == dataset))

    def add_erasure(self, erasure: Erasure) -> None:
        """Add the record of an erasure."""
        self._add(erasures, erasure)

    def erasures(self, dataset: str | None = None, limit: int = 100) -> Sequence[Erasure]:
        """List erasures, newest first."""
        query = newest_first(erasures, limit)
        return self._database.records(Erasure, query if dataset is None else query.where(erasures.c.dataset == dataset))

    def redact(self, dataset: str, unwanted: Callable[[Json], bool]) -> int:
        """Drop the samples that an erasure names from every kept check result; see the port."""
        dropped = 0
        kinds: tuple[tuple[Table, type[DatasetVersion] | type[Quarantine] | type[Audit]], ...] = (
            (dataset_versions, DatasetVersion),
            (quarantines, Quarantine),
            (audits, Audit),
        )
        with self._database.write() as connection:
            on_file = connection.dialect.name == "sqlite"
            if on_file:
                # Freed pages are overwritten, so that the file does not remember either.
                connection.exec_driver_sql("PRAGMA secure_delete = ON")
            for table, kind in kinds:
                rows = connection.execute(select(table.c.seq, table.c.record).where(table.c.dataset == dataset)).all()
                for seq, text in rows:
                    record = load(kind, text)
                    checks = tuple(_without(c, unwanted) for c in record.checks)
                    fewer = sum(len(c.samples) for c in record.checks) - sum(len(c.samples) for c in checks)
                    if fewer:
                        changed = dump(replace(record, checks=checks))
                        connection.execute(update(table).where(table.c.seq == seq).values(record=changed))
                        dropped += fewer
        if on_file:
            with self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return dropped

    def _add(self, table: Table, record: Quarantine | Audit | Erasure) -> None:
        at = microseconds(record.created_at)
        row = {"id": record.id, "dataset": record.dataset, "created_at": at, "record": dump(record)}
        self._database.add(table, "id", row)

    def tag(self, tag: Tag) -> None:
        """Name a version; the newest tag of a name wins."""
        row = {"dataset": tag.dataset, "name": tag.name, "version": tag.version, "created_at": microseconds(tag.created_at)}
        with self._database.write() as connection:
            insert_once(connection, tags, ("dataset", "name", "created_at", "version"), row)

    def tags(self, dataset: str) -> Sequence[Tag]:
        """List a dataset's tags in force, by name."""
        query = select(tags.c.name, tags.c.version, tags.c.created_at).where(tags.c.dataset == dataset)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(tags.c.created_at, tags.c.seq)).all()
        latest = {name: (version, at) for name, version, at in rows}
        return [
            Tag(dataset=dataset, name=name, version=version, created_at=instant(at))
            for name, (version, at) in sorted(latest.items())
        ]


def _stored(connection: Connection, id: str) -> DatasetVersion | None:
    text = connection.execute(select(dataset_versions.c.record).where(dataset_versions.c.id == id)).scalar()
    return None if text is None else load(DatasetVersion, text)


def _last(connection: Connection, dataset: str) -> int:
    query = select(func.max(dataset_versions.c.version)).where(dataset_versions.c.dataset == dataset)
    return connection.execute(query).scalar() or 0


def _without(check: CheckResult, unwanted: Callable[[Json], bool]) -> CheckResult:
    return replace(check, samples=tuple(sample for sample in check.samples if not unwanted(sample)))
