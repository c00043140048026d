"""A chunk of a fleet's members as compute: each is searched, evaluated, judged and bundled like any model, on its own rows."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from mulle.core.declare.fleet import key_of
from mulle.core.declare.gates import NoWorseThanChampion, no_worse_than_champion
from mulle.core.declare.model import Model
from mulle.core.errors import MulleError
from mulle.core.hashing import hash_json
from mulle.core.records.base import Json, from_json, to_json
from mulle.core.records.run import GateResult, Member
from mulle.lifecycle.evaluation.compare import Comparison, Side, compare
from mulle.lifecycle.evaluation.evidence import Evidence
from mulle.lifecycle.evaluation.gates import accepted, judge
from mulle.lifecycle.evaluation.own import own_metrics
from mulle.lifecycle.registry.sample import sample_rows
from mulle.loop.compute.bundling import bundle_model
from mulle.loop.compute.cutting import KEY, SAID, chunk_files
from mulle.loop.compute.evaluating import evaluate_model
from mulle.loop.compute.inspecting import OPTION as INSPECT
from mulle.loop.compute.judging import judge_model
from mulle.loop.compute.searching import search_model
from mulle.loop.compute.work import HELD, HOLDOUT, KNOWN, SINCE, TARGET, TIME, Work, done_file, write_frame

__all__ = ["train_members"]

log = logging.getLogger("mulle.members")

_FILES = ("rows.parquet", "features.parquet", HOLDOUT, "evaluation.json")


@dataclass(frozen=True, slots=True)
class _Shared:
    """What every member of a chunk is given: the shared model's settings, champions by member, and how to judge."""

    settings: list[Json]
    sample: pl.DataFrame
    champions: Mapping[str, Json]
    replay: bool
    code: Path


def train_members(
    work: Work, chunk: str, keys: Sequence[str], settings: Json, champions: Mapping[str, Json], replay: bool, code: Path
) -> Json:
    """Train and judge some members of a chunk; what became of each is left in one file, by rename.

    Parameters
    ----------
    work : Work
        Of the fleet, after `cut_members`.
    chunk : str
        Its name; with ``-alone`` after it when its process died and its members are tried one by one.
    keys : sequence of str
        Of the chunk.
    settings : dict
        The shared model's, which each member tries after the baseline.
    champions : mapping
        Member's name to its present version.
    replay : bool
    code : Path
        The project's snapshot.

    Returns
    -------
    dict
        ``members``: how many. The file holds for each a ``member`` (`Member`), its ``gates``, and where it has a model
        ``evaluation`` (metrics) and ``bundle``. Nothing that one member raises reaches another.
    """
    rows, features = chunk_files(work, chunk.removesuffix("-alone"))
    at = rows.select(KEY).with_row_index("row").group_by(KEY, maintain_order=True).agg(pl.col("row").min(), pl.len())
    places = {key: (first, count) for key, first, count in at.iter_rows()}
    # One proof of the feature function serves all bundles of a chunk: it is the same function, on rows that are nobody's.
    carried = rows.drop(KEY, TARGET, TIME, HELD, SINCE, KNOWN, cs.starts_with(SAID))
    sample = sample_rows(work.model.features, carried, work.model.features.dataset.key, seed=work.seed)
    shared = _Shared([_warm(settings)] if "candidate" in settings else [], sample, champions, replay, code)
    done = []
    for key in keys:
        first, count = places[key]
        done.append(
            _trained(
                work,
                work.model.member(key, winner=settings.get("candidate", "")),
                rows[first : first + count],
                features[first : first + count],
                shared,
            )
        )
    path = done_file(work.folder, chunk, keys)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(done))
    temporary.replace(path)
    return {"members": len(done)}


def _warm(settings: Json) -> Json:
    return {name: settings[name] for name in ("candidate", "params", "train_on") if name in settings}


def _trained(fleet: Work, model: Model, rows: pl.DataFrame, features: pl.DataFrame, shared: _Shared) -> Json:
    began = time.perf_counter()
    folder = fleet.folder / "members" / f"work-{hash_json(key_of(model.name))}"
    folder.mkdir(parents=True, exist_ok=True)
    work = replace(fleet, model=model, folder=folder, options={**fleet.options, INSPECT: False})
    known = int((~rows[HELD]).sum())
    try:
        found = _judged(work, rows, features, shared)
    except Exception as error:
        # A member that cannot be trained is served by the shared model; the others go on.
        detail = error.detail if isinstance(error, MulleError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, MulleError):
            log.warning("%s", model.name, exc_info=error)
        gate = GateResult(gate="trained", metric="", value=None, bound=None, verdict="fail", reason=detail, rows=known)
        found = {"outcome": "failed", "reason": detail, "gates": to_json([gate])}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found["gates"] = [{**gate, "model": model.name} for gate in found["gates"]]
    told = {name: found.pop(name) for name in ("outcome", "reason", "value", "shared", "candidate") if name in found}
    member = Member(run=fleet.run, model=model.name, rows=known, metric=model.metric, seconds=time.perf_counter() - began, **told)
    return {"member": to_json(member), **found}


def _judged(work: Work, rows: pl.DataFrame, features: pl.DataFrame, shared: _Shared) -> Json:
    said = rows.select(c for c in rows.columns if c.startswith(SAID)).filter(rows[HELD])
    write_frame(rows.drop(KEY, *said.columns), work.folder / "rows.parquet")
    write_frame(features, work.folder / "features.parquet")
    champion = shared.champions.get(work.model.name)
    stays = "kept" if champion is not None else "held_back"
    settings = search_model(work, None, shared.settings)["settings"]
    evaluation = evaluate_model(work, settings)
    comparisons = _beside_shared(work, evaluation, said)
    gates = _against_shared(work, evaluation, comparisons)
    main = comparisons[0]
    told: Json = {"value": main.challenger, "shared": main.champion, "candidate": settings["candidate"]}
    if not accepted(gates):
        # No bundle is made of what the shared model does better: that costs as much as the fits.
        return {**told, "outcome": stays, "reason": _reasons(gates), "gates": to_json(gates)}
    bundle = bundle_model(work, settings, evaluation["metrics"], shared.code, proved=shared.sample)
    answer = judge_model(work, champion, evaluation, bundle, shared.replay)
    verdicts = [from_json(GateResult, g) for g in answer["gates"]]
    every = [*verdicts, *gates]
    held = "" if answer["accepted"] else _reasons(verdicts)
    kept = {"bundle": bundle, "evaluation": {"metrics": evaluation["metrics"]}}
    return {**told, "outcome": stays if held else "trained", "reason": held, "gates": to_json(every), **({} if held else kept)}


def _beside_shared(work: Work, evaluation: Json, said: pl.DataFrame) -> list[Comparison]:
    """Compare with the shared model's evaluated fit, on the member's own rows of the holdout."""
    kept = pl.read_parquet(work.folder / HOLDOUT)
    classes = tuple(evaluation["classes"])
    shares = kept.select(f"share.{c}" for c in classes).to_numpy() if classes else None
    general = tuple(c.removeprefix(f"{SAID}share.") for c in said.columns if c.startswith(f"{SAID}share."))
    theirs = said.select(f"{SAID}share.{c}" for c in general).to_numpy() if general else None
    before, after = Side(said[f"{SAID}value"].to_numpy(), theirs, general), Side(kept["value"].to_numpy(), shares, classes)
    own, raw = own_metrics(work.model.gates), None
    found = []
    for gate in _rules(work.model):
        if gate.own is not None and raw is None:
            raw = pl.read_parquet(work.folder / "rows.parquet")[kept["row"].to_numpy()].drop(work.hidden_columns, strict=False)
        truth: Any = kept["truth"].to_numpy()
        found.append(
            compare(work.model.task, gate.metric, truth, before, after, seed=work.seed, own=own.get(gate.metric), rows=raw)
        )
    return found


def _against_shared(work: Work, evaluation: Json, comparisons: Sequence[Comparison]) -> tuple[GateResult, ...]:
    """Hold a member to the shared model that it would replace, by the rule that champions are held to."""
    evidence = Evidence(
        metrics=evaluation["metrics"],
        rows=evaluation["rows"],
        has_champion=True,
        comparison=comparisons[0],
        further=tuple(comparisons[1:]),
    )
    return tuple(
        replace(r, gate=r.gate.replace("champion", "shared"), reason=r.reason.replace("the champion's", "the shared model's"))
        for r in judge(_rules(work.model), evidence)
    )


def _rules(model: Model) -> tuple[NoWorseThanChampion, ...]:
    """Give the declared comparisons, the model's own metric first; without one, a plain one: not worse on its rows."""
    declared = [g for g in model.gates if isinstance(g, NoWorseThanChampion)]
    plain = no_worse_than_champion(model.metric, min_rows=1)
    return tuple(sorted(declared, key=lambda g: g.metric != model.metric)) or (plain,)


def _reasons(gates: Sequence[GateResult]) -> str:
    return "; ".join(f"{g.gate}: {g.reason}" for g in gates if g.verdict in ("fail", "not_enough_evidence"))
