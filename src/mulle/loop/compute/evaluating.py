"""Stage 4 of a run as compute: fit the winner on the training rows, measure it on the holdout."""

from __future__ import annotations

import polars as pl

from mulle.core.declare.gates import EachSlice
from mulle.core.records.base import Json, to_json
from mulle.kernel.encode import encode, feature_specs
from mulle.kernel.fitted import classes_of
from mulle.lifecycle.evaluation.evaluate import by_slice, evaluate
from mulle.lifecycle.training.fit import fit
from mulle.loop.compute.fitting import begin_refit, kept_specs, said, split, target_of
from mulle.loop.compute.work import HOLDOUT, Work, read_features, read_rows, write_frame

__all__ = ["evaluate_model"]


def evaluate_model(work: Work, settings: Json) -> Json:
    """Fit the winner on the training rows and measure it on the holdout.

    Returns
    -------
    dict
        ``metrics``, ``rows``, ``slices`` (column, value, rows and metrics), ``data_cutoff``.
    """
    begin_refit(work, settings)
    train, last = split(work)
    features, target, time = read_features(work, train=train)
    specs = kept_specs(feature_specs(features[train]), settings)
    fitted = fit(
        settings,
        encode(features[train], specs),
        target_of(work, target)[train],
        task=work.model.task,
        specs=specs,
        seed=work.seed,
    )
    classes = classes_of(fitted, work.model.task)
    values, shares = said(fitted, encode(features[last], specs), work.model.task, classes)
    truth = target_of(work, target)[last]
    rows = read_rows(work)[last]
    columns = sorted({g.column for g in work.model.gates if isinstance(g, EachSlice)})
    slices = {c: by_slice(rows[c], work.model.task, truth, values, shares, classes) for c in columns if c in rows.columns}
    kept = pl.DataFrame({"row": last, "truth": truth, "value": values})
    kept = kept if shares is None else kept.hstack([pl.Series(f"share.{c}", shares[:, i]) for i, c in enumerate(classes)])
    write_frame(kept, work.folder / HOLDOUT)
    cutoff = time[train].max() if not time.null_count() else work.cutoff
    return {
        "metrics": evaluate(work.model.task, truth, values, shares, classes),
        "rows": len(last),
        "slices": to_json(slices),
        "classes": list(classes),
        "data_cutoff": to_json(cutoff),
    }
