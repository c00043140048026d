"""The model card: what a version is, what it showed, on which fit, in words a reader outside the team can follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mulle.core.clock import rfc3339
from mulle.core.records.bundle import Contract
from mulle.core.records.run import GateResult

__all__ = ["card"]


def card(contract: Contract, metrics: Mapping[str, float], gates: Sequence[GateResult] = ()) -> str:
    """Write the card of a model version.

    Parameters
    ----------
    contract : Contract
    metrics : mapping
        On the holdout, by the fit before the refit.
    gates : sequence of GateResult

    Returns
    -------
    str
        Markdown.
    """
    parts = [_facts(contract), _figures(contract, metrics)]
    if gates:
        parts.append("## Gates\n\n" + _table(("gate", "verdict", "reason"), [(g.gate, g.verdict, g.reason) for g in gates]))
    parts += [_inputs(contract), _features(contract)]
    return "\n\n".join(parts) + "\n"


def _facts(contract: Contract) -> str:
    params = ", ".join(f"{k}={_text(v)}" for k, v in sorted(contract.settings.get("params", {}).items()))
    data = ", ".join(f"{name}@{version}" for name, version in sorted(contract.data.items()))
    lines = [
        f"# {contract.model}",
        "",
        f"Answers `{contract.target}` of `{contract.dataset}` ({contract.task}).",
        "",
        f"- Made by run `{contract.run}` from {data or 'no recorded data'}.",
        f"- Estimator: {contract.settings.get('candidate', 'unknown')} ({params or 'as it comes'}).",
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


def _figures(contract: Contract, metrics: Mapping[str, float]) -> str:
    told = (
        f"Measured on the holdout by a fit on outcomes known at {rfc3339(contract.data_cutoff)}. The model that is served "
        f"has the same settings and was refitted on outcomes known at {rfc3339(contract.refit_cutoff)}, holdout included; "
        "no figure here is of the refit."
    )
    return f"## Figures\n\n{told}\n\n" + _table(("metric", "value"), [(k, f"{v:.6g}") for k, v in metrics.items()])


def _inputs(contract: Contract) -> str:
    rows = [(f"`{f.name}`", f.type, "yes" if f.required else "no") for f in contract.inputs]
    return "## What a request carries\n\n" + _table(("column", "type", "required"), rows)


def _features(contract: Contract) -> str:
    selection = contract.settings.get("selection") or {}
    scores: Mapping[str, float] = selection.get("scores", {})
    head = ("feature", "kind", "categories", *([_words(selection["by"])] if scores else []))
    rows = [
        (
            f"`{s.name}`",
            s.kind,
            str(len(s.categories)) if s.kind == "category" else "",
            *([_text(scores[s.name])] if scores else []),
        )
        for s in contract.features
    ]
    joins = "".join(f"\n- `{j.name}`: {j.kind} of {j.dataset} by {', '.join(j.on)}" for j in contract.joins)
    out = [f"`{name}` ({_text(score)})" for name, score in scores.items() if name not in selection["kept"]]
    left = f"\n\nLeft out: {', '.join(out)}.\n" if out else ""
    return "## What the model sees\n\n" + _table(head, rows) + left + (f"\n{joins}" if joins else "")


def _words(by: str) -> str:
    return by.replace("_", " ")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
