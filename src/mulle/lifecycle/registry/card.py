"""The model card: what a version is, what it showed, on which fit, in words a reader outside the team can follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mulle.core.clock import rfc3339
from mulle.core.records.bundle import Contract
from mulle.core.records.evaluation import Evaluation, Measured
from mulle.core.records.run import GateResult
from mulle.lifecycle.registry.inspected import inspected
from mulle.lifecycle.registry.markdown import table, text

__all__ = ["card"]

_MOST_VALUES = 20
"""Values of a declared slice that the card shows, the largest first."""

_LONG = 60
_SHARED = 5
"""A value that fewer rows carry may tell of somebody, and a card goes where rows do not."""


def card(
    contract: Contract,
    metrics: Mapping[str, float],
    gates: Sequence[GateResult] = (),
    evaluation: Evaluation | None = None,
) -> str:
    """Write the card of a model version.

    Parameters
    ----------
    contract : Contract
    metrics : mapping
        On the holdout, by the fit before the refit.
    gates : sequence of GateResult
    evaluation : Evaluation, optional
        Intervals, slices and calibration to the figures.

    Returns
    -------
    str
        Markdown.
    """
    parts = [_facts(contract), _figures(contract, metrics, evaluation)]
    if evaluation is not None:
        parts += [_weak(evaluation), *_slices(evaluation), *_calibration(evaluation)]
        parts += [] if evaluation.inspection is None else inspected(evaluation.inspection)
    if gates:
        parts.append("## Gates\n\n" + table(("gate", "verdict", "reason"), [(g.gate, g.verdict, g.reason) for g in gates]))
    parts += [_inputs(contract), _features(contract)]
    return "\n\n".join(parts) + "\n"


def _estimator(contract: Contract, params: str) -> str:
    members = contract.settings.get("members")
    if not members:
        return f"{contract.settings.get('candidate', 'unknown')} ({params or 'as it comes'})"
    return "an ensemble of " + ", ".join(f"{m['weight']:.0%} {m['candidate']}" for m in members)


def _facts(contract: Contract) -> str:
    params = ", ".join(f"{k}={text(v)}" for k, v in sorted(contract.settings.get("params", {}).items()))
    data = ", ".join(f"{name}@{version}" for name, version in sorted(contract.data.items()))
    lines = [
        f"# {contract.model}",
        "",
        f"Answers `{contract.target}` of `{contract.dataset}` ({contract.task}).",
        "",
        f"- Made by run `{contract.run}` from {data or 'no recorded data'}.",
        f"- Estimator: {_estimator(contract, params)}.",
        f"- Served as {contract.compiled}.",
    ]
    selection = contract.settings.get("selection")
    if selection:
        lines.append(f"- Features kept: {len(selection['kept'])} of {len(selection['scores'])}, by {_words(selection['by'])}.")
    if contract.classes:
        lines.append(f"- Classes: {', '.join(contract.classes)}.")
    if contract.parity is not None:
        proof = contract.parity
        lines.append(
            f"- Served and fitted answers differ by at most {proof.worst:.2g} of the scale {proof.scale:.4g} "
            f"on {proof.rows} rows (tolerance {proof.tolerance:g}, {proof.outside:.2%} outside)."
        )
    return "\n".join(lines)


def _figures(contract: Contract, metrics: Mapping[str, float], evaluation: Evaluation | None) -> str:
    told = (
        f"Measured on the holdout by a fit on outcomes known at {rfc3339(contract.data_cutoff)}. The model that is served "
        f"has the same settings and was refitted on outcomes known at {rfc3339(contract.refit_cutoff)}, holdout included; "
        "no figure here is of the refit."
    )
    if evaluation is None:
        return f"## Figures\n\n{told}\n\n" + table(("metric", "value"), [(k, f"{v:.6g}") for k, v in metrics.items()])
    train = evaluation.train
    told += (
        f" The holdout has {evaluation.rows} rows; intervals are by bootstrap. The last column is the same fit on "
        f"{train.rows} of the rows it was fitted on: the distance is the generalisation gap."
    )
    rows = [
        (k, f"{v:.6g}", _interval(evaluation.intervals.get(k)), f"{train.metrics[k]:.6g}" if k in train.metrics else "")
        for k, v in metrics.items()
    ]
    return f"## Figures\n\n{told}\n\n" + table(("metric", "value", "95%", "on training rows"), rows)


def _weak(evaluation: Evaluation) -> str:
    head = "## Where it is weak\n\n"
    if not evaluation.weak_slices:
        return head + "No value or range of one column is worse than the rest by more than noise."
    found = evaluation.weak_slices
    told = f"Slices of one column whose mean loss ({found[0].metric}) is above the rest's by more than noise, surest first."
    rows = [
        (f"`{s.column}`", _line(s.value), str(s.rows), text(s.inside), text(s.outside), f"at least {text(s.low)}") for s in found
    ]
    return f"{head}{told}\n\n" + table(("column", "value", "rows", "loss", "loss of the rest", "worse by (95%)"), rows)


def _slices(evaluation: Evaluation) -> list[str]:
    parts = []
    for column, values in evaluation.slices.items():
        shown = [(value, found) for value, found in values.items() if found.rows >= _SHARED][:_MOST_VALUES]
        names = sorted({name for _, found in shown for name in found.intervals})
        rows = [(_line(value), str(found.rows), *(_figure(found, name) for name in names)) for value, found in shown]
        parts.append(f"## By `{column}`\n\n" + table(("value", "rows", *names), rows))
    return parts


def _calibration(evaluation: Evaluation) -> list[str]:
    if not evaluation.calibrations:
        return []
    found = next(iter(evaluation.calibrations.values()))
    if found.bias is not None:
        told = f"Answers are off by {text(found.bias)} on average, {text(found.error)} standard deviations of the target."
        return [f"## Calibration\n\n{told}"]
    told = f"Expected calibration error {text(found.error)}, Brier score {text(found.brier)}, on {found.rows} rows."
    rows = [(f"{b.low:.2g} to {b.high:.2g}", str(b.rows), f"{b.said:.3f}", f"{b.observed:.3f}") for b in found.bins]
    return [f"## Calibration\n\n{told}\n\n" + table(("probability", "rows", "said", "came true"), rows)]


def _figure(found: Measured, name: str) -> str:
    value, interval = found.metrics.get(name), _interval(found.intervals.get(name))
    return "" if value is None else f"{text(value)} ({interval})" if interval else text(value)


def _line(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _LONG else f"{line[: _LONG - 3]}..."


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{text(interval[0])} to {text(interval[1])}"


def _inputs(contract: Contract) -> str:
    rows = [(f"`{f.name}`", f.type, "yes" if f.required else "no") for f in contract.inputs]
    return "## What a request carries\n\n" + table(("column", "type", "required"), rows)


def _features(contract: Contract) -> str:
    selection = contract.settings.get("selection") or {}
    scores: Mapping[str, float] = selection.get("scores", {})
    head = ("feature", "kind", "categories", *([_words(selection["by"])] if scores else []))
    rows = [
        (
            f"`{s.name}`",
            s.kind,
            str(len(s.categories)) if s.kind == "category" else "",
            *([text(scores[s.name])] if scores else []),
        )
        for s in contract.features
    ]
    joins = "".join(f"\n- `{j.name}`: {j.kind} of {j.dataset} by {', '.join(j.on)}" for j in contract.joins)
    out = [f"`{name}` ({text(score)})" for name, score in scores.items() if name not in selection["kept"]]
    left = f"\n\nLeft out: {', '.join(out)}.\n" if out else ""
    return "## What the model sees\n\n" + table(head, rows) + left + (f"\n{joins}" if joins else "")


def _words(by: str) -> str:
    return by.replace("_", " ")
