"""What a look at the world reads: logged rows, the versions in force, and their bundles."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import polars as pl

from mulle.core.declare.model import Model
from mulle.core.records.base import Json
from mulle.core.records.bundle import Contract
from mulle.core.records.deployment import champion_of
from mulle.core.records.model import ModelVersion
from mulle.kernel.bundle import read_contract
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import labels_between, predictions_between

__all__ = ["Happening", "bundle_of", "contract_at", "estimate_of", "in_force", "logged_between", "version_at"]

Happening = tuple[str, str, str]
"""Kind, model, sentence: what a tick did, for people."""


def logged_between(
    parts: Parts, model: Model, start: datetime, end: datetime, now: datetime, *, refused: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the logged rows of a span, and the labels of them that are known now; of a fleet with its members'.

    What was `refused` is among the rows where it is asked for.
    """
    members, until = model.each is not None, max(end, now) + timedelta(microseconds=1)
    return (
        predictions_between(parts.lake, model.name, start, end, members=members, refused=refused),
        labels_between(parts.lake, model.name, start, until, members=members),
    )


@lru_cache(maxsize=64)
def bundle_of(address: str) -> tuple[Contract, Json]:
    """Return a bundle's contract and its reference histograms."""
    # Bundles are content-addressed and never change, so reading one once is enough.
    import orjson

    return contract_at(address), orjson.loads((Path(address) / "reference.json").read_bytes())


@lru_cache(maxsize=64)
def estimate_of(address: str) -> Json | None:
    """Return what a bundle has learned of its own loss; None for one that has nothing of the kind."""
    import orjson

    path = Path(address) / "estimate.json"
    found: Json | None = orjson.loads(path.read_bytes()) if path.is_file() else None
    return found


@lru_cache(maxsize=4_096)
def contract_at(address: str) -> Contract:
    """Return a bundle's contract."""
    return read_contract(Path(address))


def in_force(parts: Parts, model: str, at: datetime) -> ModelVersion:
    """Return the version that was champion right before an instant; before the first deployment, the first."""
    history = parts.metadata.deployments.of(model)
    effective = [d for d in history if d.effective_at < at] or list(history[:1])
    version = champion_of(effective[-1])
    return version_at(parts, model, version if version is not None else effective[-1].to_version)


def version_at(parts: Parts, model: str, version: int) -> ModelVersion:
    """Return a version that is deployed, so that it must be registered."""
    record = parts.metadata.models.get(model, version)
    if record is None:
        raise LookupError(f"{model}@{version} is deployed and not registered")
    return record
