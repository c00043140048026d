"""Model versions beside each other, by the data they saw, and made again from their records."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mulle.core.declare.candidates import Candidate
from mulle.core.errors import NotFound, UsageError
from mulle.core.records.base import Json, to_json
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import Run
from mulle.loop.data.datasets import find_data
from mulle.loop.parts import Parts
from mulle.loop.views.chain import find_version, listing, run_view, settings_of

__all__ = ["card_view", "compare_view", "reproduce_view", "saw_view", "search_view"]

_TASK = "mulle.bootstrap.tasks:run_task"
_PAGE, _TOLERANCE = 5_000, 1e-6
_PLATFORM = {"run", "seed", "data"}


def compare_view(parts: Parts, names: Sequence[str]) -> Json:
    """Lay versions side by side.

    Parameters
    ----------
    parts : Parts
    names : sequence of str
        Such as ``air-time@7``; of one model or of several.

    Returns
    -------
    dict
        ``items`` in the order asked, each ``model version created_at run metrics settings features data compiled
        size_bytes``, and ``differs``: by field, the values in the same order, only where they are not all equal.

    Raises
    ------
    UsageError
        With fewer than two names.
    """
    if len(names) < 2:
        raise UsageError("one version cannot be compared", next="name two or more: mulle models compare MODEL@1 MODEL@2")
    items = [_card(find_version(parts, name)) for name in names]
    return listing(items, differs=_differing(items))


def saw_view(parts: Parts, name: str) -> Json:
    """List the model versions, of fleets' members too, that were trained on a dataset version's rows, newest first.

    Returns
    -------
    dict
        ``items``: ``model version run data saw``; `saw` is ``this version``, or ``within N`` when the model was trained
        on a later version N that still holds its rows.

    Raises
    ------
    NotFound
        When there is no such dataset version.
    """
    dataset, version = find_data(parts, name)
    held: dict[int, bool] = {version.version: True}
    items = []
    for model in _every_version(parts):
        number = model.data.get(dataset.name)
        if number is None or number < version.version:
            continue
        if number not in held:
            later = parts.metadata.datasets.get(dataset.name, number)
            held[number] = later is not None and _holds(later, version.version)
        if held[number]:
            saw = "this version" if number == version.version else f"within {number}"
            items.append({"model": model.model, "version": model.version, "run": model.run, "data": dict(model.data), "saw": saw})
    return listing(items, dataset=dataset.name, data_version=version.version)


def _every_version(parts: Parts) -> Iterator[ModelVersion]:
    after: str | None = None
    while page := parts.metadata.models.list(None, _PAGE, after, members=True):
        yield from page
        after = page[-1].id


def search_view(parts: Parts, run: str) -> Json:
    """Give a run as `run_view` does, and ``importance``: candidate to parameter to its share in the scores' spread."""
    from mulle.lifecycle.training.importance import parameter_importance

    view = run_view(parts, run)
    return {**view, "importance": parameter_importance(view["trials"])}


def card_view(parts: Parts, name: str) -> Json:
    """Give a version's card: ``model``, ``version``, ``card`` (Markdown) and, while its run's folder is there, the run's
    ``inspection``.

    Raises
    ------
    NotFound
        When there is no such version, or its bundle is gone.
    """
    version = find_version(parts, name)
    path = Path(version.address) / "card.md"
    if not path.is_file():
        raise NotFound(f"{version.model}@{version.version} has no card at {path}", next="bring its bundle back")
    evaluation = run_view(parts, version.run)["evaluation"] or {}
    return {
        "model": version.model,
        "version": version.version,
        "card": path.read_text(encoding="utf-8"),
        "inspection": evaluation.get("inspection"),
    }


def reproduce_view(parts: Parts, name: str, *, tolerance: float | None = None) -> Json:
    """Train a version again from its recorded data, code, settings and seed, and compare its answers.

    The search is not repeated: what it chose is recorded. Nothing is registered.

    Parameters
    ----------
    parts : Parts
    name : str
    tolerance : float, optional
        By default that of the version's own parity: its bundle was proved to answer like its fit within that, no closer.

    Returns
    -------
    dict
        ``model version run reproduced`` (whether every row agrees within `tolerance` of the target's spread),
        ``agreement``, ``features``, ``data`` and ``packages`` (see `loop.compute.reproducing`).

    Raises
    ------
    NotFound
        When the run, a data version or the code snapshot is gone.
    """
    version = find_version(parts, name)
    run = parts.metadata.runs.get(version.run)
    if run is None:
        raise NotFound(f"{version.model}@{version.version}: its run {version.run} is not on record", next="see `mulle runs ls`")
    if tolerance is None:
        tolerance = version.parity.tolerance if version.parity is not None else _TOLERANCE
    scratch = f"reproduce-{version.run}"
    try:
        answer = parts.compute().call(_TASK, _payload(parts, version, run, scratch, tolerance))
    finally:
        shutil.rmtree(parts.settings.home / "runs" / scratch, ignore_errors=True)
    found = answer["agreement"]["outside"] == 0 and answer["features"] and answer["data"]
    return {"model": version.model, "version": version.version, "run": version.run, "reproduced": found, **answer}


def _payload(parts: Parts, version: ModelVersion, run: Run, scratch: str, tolerance: float) -> Json:
    return {
        "name": "reproduce",
        "settings": {k: str(v) for k, v in to_json(parts.settings).items()},
        "arguments": {
            "run": scratch,
            "model": version.model,
            "code": run.code,
            "seed": run.seed,
            "cutoff": to_json(run.cutoff),
            "options": run.options,
            "versions": {name: {**to_json(v), "checks": []} for name, v in _read(parts, version.data).items()},
            "recorded": to_json(version),
            "tolerance": tolerance,
        },
    }


def _read(parts: Parts, data: Mapping[str, int]) -> dict[str, DatasetVersion]:
    found = {}
    for name, number in data.items():
        version = parts.metadata.datasets.get(name, number)
        if version is None:
            raise NotFound(f"dataset version {name}@{number} is not on record", next=f"see `mulle data versions {name}`")
        found[name] = version
    return found


def _holds(later: DatasetVersion, number: int) -> bool:
    # A restored version leaves out what came between.
    return not later.spans or any(first <= number <= last for first, last in later.spans)


def _card(version: ModelVersion) -> Json:
    settings = settings_of(version)
    return {
        "model": version.model,
        "version": version.version,
        "created_at": to_json(version.created_at),
        "run": version.run,
        "metrics": dict(version.metrics),
        "settings": {k: v for k, v in settings.items() if k not in _PLATFORM},
        "features": list(version.features),
        "data": dict(version.data),
        "compiled": version.compiled,
        "size_bytes": version.size_bytes,
    }


def _differing(items: Sequence[Json]) -> Json:
    flat = [_flat(item) for item in items]
    names = dict.fromkeys(name for one in flat for name in one)
    rows = {name: [one.get(name) for one in flat] for name in names}
    return {name: values for name, values in rows.items() if any(v != values[0] for v in values[1:])}


def _flat(item: Json) -> Json:
    settings = item["settings"]
    members = [f"{m['candidate']} {m['weight']:.0%}" for m in settings.get("members", ())]
    flat: Json = {"candidate": settings.get("candidate"), "members": members or None, "train_on": settings.get("train_on", "all")}
    flat |= {f"metrics.{name}": value for name, value in item["metrics"].items()}
    params = Candidate(kind=settings.get("candidate") or "", params=settings.get("params", {})).chosen
    flat |= {f"params.{name}": value for name, value in params.items()}
    flat |= {f"data.{name}": value for name, value in item["data"].items()}
    flat |= {f"features.{name}": True for name in item["features"]}
    return flat | {"compiled": item["compiled"], "size_bytes": item["size_bytes"]}
