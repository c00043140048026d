"""A registered model made again: from its data versions, code, settings and seed, and held against its bundle."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import polars as pl

from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.hashing import hash_json
from mulle.core.records.base import Json, from_json, to_json
from mulle.core.records.model import ModelVersion
from mulle.kernel.bundle import Predictor
from mulle.lifecycle.registry.parity import prove
from mulle.loop.compute.fitting import end_refit
from mulle.loop.compute.work import HELD, KNOWN, SINCE, Work, build_features, features_hash, read_rows, write_frame

__all__ = ["moved_packages", "reproduce_model"]


def reproduce_model(work: Work, recorded: Json, tolerance: float) -> Json:
    """Join, transform and fit again, and compare with what the bundle answers through the served path.

    Parameters
    ----------
    work : Work
        With the recorded run's seed, cutoff, options, data versions and code, and a folder of its own.
    recorded : dict
        The model version.
    tolerance : float
        A row agrees when the answers differ by at most this share of the target's spread.

    Returns
    -------
    dict
        ``agreement`` (`Parity`: rows, worst, outside), ``features`` (whether the definition is the recorded one),
        ``data`` (whether the data versions have the recorded content), ``packages`` (those that differ: then and now).
    """
    known = from_json(ModelVersion, recorded)
    predictor = Predictor.open(Path(known.address), expected=known.bundle)
    contract = predictor.contract
    settings = {k: v for k, v in contract.settings.items() if k not in ("seed", "data")}
    build_features(work)
    if work.member:
        _keep_own(work)
    fitted = end_refit(work, settings)[0]
    joined = read_rows(work).drop(work.hidden_columns)
    return {
        "agreement": to_json(prove(fitted, predictor, joined, tolerance=tolerance, now=work.cutoff)),
        "features": contract.transform["hash"] == features_hash(work.model),
        "data": contract.settings.get("data") == hash_json([v.hash for v in work.versions.values()]),
        "packages": moved_packages(Path(known.address, "lock.txt").read_text()),
    }


def _keep_own(work: Work) -> None:
    """Leave a member's rows of its fleet's; what was held back does not matter to a fit on all of them."""
    each = work.project.model(fleet_of(work.model.name)).each
    assert each is not None
    rows, features = read_rows(work), pl.read_parquet(work.folder / "features.parquet")
    mine = (rows[each.column].cast(pl.String) == key_of(work.model.name)).fill_null(False)
    write_frame(features.filter(mine), work.folder / "features.parquet")
    told = (pl.lit(False).alias(HELD), pl.lit(0).alias(SINCE), pl.lit(None).alias(KNOWN))
    write_frame(rows.filter(mine).with_columns(told), work.folder / "rows.parquet")


def moved_packages(lock: str) -> dict[str, list[str | None]]:
    """Give the packages of a bundle's lock that have another version here, or none: then and now.

    Examples
    --------
    >>> moved_packages("no-such-package==3")
    {'no-such-package': ['3', None]}
    """
    moved: dict[str, list[str | None]] = {}
    for line in lock.splitlines():
        name, _, then = line.partition("==")
        if not then:
            continue
        try:
            now = version(name)
        except PackageNotFoundError:
            now = None
        if now != then:
            moved[name] = [then, now]
    return moved
