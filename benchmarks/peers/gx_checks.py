"""Great Expectations' side, on pandas: one suite, an ephemeral context, the shortest results that still count."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd

os.environ["GX_ANALYTICS_ENABLED"] = "False"

import great_expectations as gx
from great_expectations import expectations as gxe

from benchmarks.side import Work

__all__ = ["check"]


def check(folder: Path) -> Work:
    """Validate the batch; the answer counts unexpected rows by expectation."""
    rows = pd.read_parquet(folder / "batch.parquet")
    declared = json.loads((folder / "checks.json").read_text())
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("batch")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": rows})
    suite = gx.ExpectationSuite(name="checks", expectations=[_expected(*one) for one in declared])

    def keep(result: object, path: Path) -> None:
        counts = [r.result["unexpected_count"] for r in _ordered(result, declared)]
        path.with_suffix(".json").write_text(json.dumps(counts))

    return Work(run=lambda: batch.validate(suite, result_format="BASIC"), keep=keep)


_KINDS = {
    "unique": gxe.ExpectColumnValuesToBeUnique,
    "not_null": gxe.ExpectColumnValuesToNotBeNull,
    "between": gxe.ExpectColumnValuesToBeBetween,
    "one_of": gxe.ExpectColumnValuesToBeInSet,
    "matches": gxe.ExpectColumnValuesToMatchRegex,
}


def _expected(kind: str, column: str, arguments: list) -> gxe.Expectation:
    if kind == "between":
        return _KINDS[kind](column=column, min_value=arguments[0], max_value=arguments[1])
    if kind == "one_of":
        return _KINDS[kind](column=column, value_set=arguments)
    if kind == "matches":
        return _KINDS[kind](column=column, regex=arguments[0])
    return _KINDS[kind](column=column)


def _ordered(result: object, declared: list[tuple[str, str, list]]) -> list:
    found = {(r.expectation_config.type, r.expectation_config.kwargs["column"]): r for r in result.results}
    return [found[(_expected(*one).expectation_type, one[1])] for one in declared]
